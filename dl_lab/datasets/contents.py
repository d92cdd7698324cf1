"""Digests of files and folders by content, so that a sweep notices changed data before it loads any.

A digest depends on names and bytes, not on times. To hash gigabytes takes seconds. So the cache folder keeps the
digests of large folders by size and time of change; a file is read again only if one of these has changed. This module
imports no torch.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

LARGE = 1 << 24  # bytes; to read less takes milliseconds and is not worth a cache file
SETTLED_NS = 2_000_000_000  # a file that changed less than this long ago may change again within the same clock tick

MISSING = "missing"  # in place of the digest of a file that does not exist


class Contents:
    """Digests of data files and folders.

    Args:
        cache_dir: The folder that keeps the digests of large folders.
        output_dir: The folder of runs. It is never data, even inside a data folder.
    """

    def __init__(self, cache_dir: Path, output_dir: Path) -> None:
        self.cache_dir = cache_dir.expanduser()
        self.output_dir = output_dir.expanduser().resolve()

    def digest(self, path: Path) -> str:
        """Return the digest of a file, or of all files below a folder without hidden files and Python source."""
        if path.is_file():
            return self._digest_file(path)
        if not path.is_dir():
            return MISSING
        files = {file.relative_to(path).as_posix(): file for file in self._walk(path)}
        sizes = sum(_size(file) for file in files.values())
        known = self._read_cache(path) if sizes > LARGE else {}
        kept: dict[str, list[int | str]] = {}
        total = hashlib.sha256()
        for name in sorted(files):
            size, modified, digest = _read_or_recall(files[name], known.get(name))
            if time.time_ns() - modified > SETTLED_NS:
                kept[name] = [size, modified, digest]
            total.update(f"{name}\0{digest}\0".encode())
        if sizes > LARGE and kept != known:
            self._write_cache(path, kept)
        return total.hexdigest()[:12]

    def _digest_file(self, path: Path) -> str:
        known = self._read_cache(path) if _size(path) > LARGE else {}
        size, modified, digest = _read_or_recall(path, known.get(path.name))
        if size > LARGE and time.time_ns() - modified > SETTLED_NS and path.name not in known:
            self._write_cache(path, {path.name: [size, modified, digest]})
        return digest

    def _walk(self, folder: Path) -> Iterator[Path]:
        for parent, folders, files in os.walk(folder):
            inside = Path(parent)
            folders[:] = sorted(name for name in folders if self._is_data_folder(inside / name))
            for name in files:
                if not name.startswith(".") and not name.endswith((".py", ".pyc")) and (inside / name).is_file():
                    yield inside / name

    def _is_data_folder(self, folder: Path) -> bool:
        return not folder.name.startswith((".", "__pycache__")) and folder.resolve() != self.output_dir

    def _cache_file(self, path: Path) -> Path:
        return self.cache_dir / "contents" / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}.json"

    def _read_cache(self, path: Path) -> dict[str, list[int | str]]:
        try:
            known = json.loads(self._cache_file(path).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}

    def _write_cache(self, path: Path, known: dict[str, list[int | str]]) -> None:
        target = self._cache_file(path)
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        with contextlib.suppress(OSError):  # a full or read-only disk: the next time reads the files again
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(json.dumps(known), encoding="utf-8")
            os.replace(temporary, target)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _read_or_recall(path: Path, known: list[int | str] | None) -> tuple[int, int, str]:
    """Return (size, time of change, digest) of a file. The digest is the known one if size and time are the same."""
    status = path.stat()
    size = status.st_size
    changed = status.st_mtime_ns
    if known is not None and known[:2] == [size, changed]:
        return size, changed, str(known[2])
    return size, changed, _digest_content(path, size, changed)


@functools.cache  # the jobs of a sweep read the same files
def _digest_content(path: Path, size: int, modified: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]
