"""One cache for everything that a data set computes from its files: decoded images, speech features, vectors.

An entry is a folder `<kind>_<key>` with one .npy file for each array and `about.json`. The key is a hash of everything
that the content depends on. An entry appears whole or not at all. Processes that want the same entry wait for the
first one, and an entry whose files do not agree with its `about.json` is made again.

    entry = load_or_fill(cache_dir, "images", key, fill)  # calls fill(writer) only if there is no such entry
    entry.arrays["pixels"], entry.facts["turned"]
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import DTypeLike

from dl_lab.runs.files import to_json, write_atomic
from dl_lab.types import UserError

VERSION = 1  # version of an entry's layout; entries of another version are made again
ABOUT = "about.json"


@dataclass(frozen=True)
class Entry:
    """The content of the cache under one key.

    Attributes:
        arrays: Name -> array, mapped from its file: pages are read when they are used, and changes stay in memory.
        facts: Plain JSON values.
    """

    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


@dataclass
class Writer:
    """A new entry that is being filled.

    Args:
        folder: The folder of the entry.
        facts: Plain JSON values.
    """

    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)
    _arrays: dict[str, np.memmap] = field(default_factory=dict)

    def array(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        """Return a new array of zeros for the caller to fill.

        Args:
            name: A file name without suffix.
            shape: The shape of the array; an axis may be 0.
            dtype: The type of the array.
        """
        if 0 in shape:  # an empty file cannot be mapped
            np.save(self._file(name), np.zeros(shape, dtype))
            return np.zeros(shape, dtype)
        self._arrays[name] = np.lib.format.open_memmap(self._file(name), mode="w+", dtype=dtype, shape=shape)
        return self._arrays[name]

    def save(self, name: str, values: np.ndarray) -> None:
        """Add an array that is complete."""
        np.save(self._file(name), values, allow_pickle=False)

    def remove(self, name: str) -> None:
        """Remove an array from the entry."""
        self._arrays.pop(name, None)
        self._file(name).unlink()

    def finish(self) -> None:
        """Write everything to the disk, and list the sizes of the files so that a reader can tell a whole entry."""
        for array in self._arrays.values():
            array.flush()
        sizes = {path.name: path.stat().st_size for path in sorted(self.folder.glob("*.npy"))}
        about = {"version": VERSION, "sizes": sizes, "facts": self.facts}
        write_atomic(self.folder / ABOUT, to_json(about))

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.npy"


def key_of(*parts: object) -> str:
    """Return the key (24 hex digits) of an entry.

    Args:
        *parts: Plain values and bytes: everything that the content of the entry depends on.
    """
    digest = hashlib.sha256()
    for part in parts:
        data = part if isinstance(part, bytes) else to_json(part).encode()
        digest.update(f"{len(data)} ".encode())
        digest.update(data)
    return digest.hexdigest()[:24]


def digest_of(items: Iterable[bytes]) -> bytes:
    """Return one digest of many, in their order."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(item)
    return digest.digest()


def load_or_fill(cache_dir: str | Path, kind: str, key: str, fill: Callable[[Writer], None]) -> Entry:
    """Return the entry under this key. Make it first if it is missing, damaged or of an older version.

    Args:
        cache_dir: The folder of all entries.
        kind: The kind of content, in one word; the first part of the entry's name.
        key: The key of the entry (see `key_of`).
        fill: Writes the arrays and facts of a new entry. Where it raises, no entry is kept.

    Raises:
        UserError: The cache cannot be written. Errors of `fill` are raised as well.
    """
    folder = Path(cache_dir).expanduser() / f"{kind}_{key}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        entry = _read(folder)
        if entry is None:
            with FileLock(folder.with_name(f"{folder.name}.lock")):  # the jobs of a sweep start together
                entry = _read(folder)
                if entry is None:
                    _write(folder, fill)
                    entry = _read(folder)
    except OSError as error:
        raise UserError(f"Cannot write the cache {folder}: {error.strerror or error}.") from error
    if entry is None:
        raise UserError(f"The cache {folder} cannot be read back.")
    return entry


def _read(folder: Path) -> Entry | None:
    """Read an entry; return None where it is missing, or where a file is not as `about.json` says."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if about["version"] != VERSION:
            return None
        arrays: dict[str, np.ndarray] = {}
        for name, size in about["sizes"].items():
            path = folder / name
            if path.stat().st_size != size:
                return None
            arrays[path.stem] = _map(path)
        return Entry(arrays, about["facts"])
    except (OSError, ValueError, EOFError, KeyError, TypeError, AttributeError):
        return None


def _map(path: Path) -> np.ndarray:
    try:  # mode "c" writes nothing back to the file, and torch accepts the array as writable
        return np.load(path, mmap_mode="c", allow_pickle=False)
    except ValueError:  # an array without elements cannot be mapped
        return np.load(path, allow_pickle=False)


def _write(folder: Path, fill: Callable[[Writer], None]) -> None:
    """Write a new entry. The caller holds the lock: a killed process left any folder under these names."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        writer = Writer(temporary)
        fill(writer)
        writer.finish()
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
