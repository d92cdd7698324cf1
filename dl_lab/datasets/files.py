"""The files a data set is made of: where they lie, where they come from, whether they are the official ones.

A data set's YAML names its files once; building it, `dl-lab data fetch` and `dl-lab data verify` all read that.
Imports no torch.
"""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dl_lab.datasets.download import extract, fetch, verify
from dl_lab.types import UserError

State = Literal["official", "differs", "unchecked", "missing"]


@dataclass(frozen=True)
class DataFile:
    """One file under the data folder.

    path: relative to the data folder, never outside it. checksum: of the official file ("md5:..." or
    "sha256:..."), "" where none is published. url and size (bytes): of the download, "" where there is none.
    packed_checksum: of the download itself where that is a .gz of the file. unpacks: the one folder that an archive
    holds, where the data set reads that folder; the archive need not be there where the folder is.
    """

    path: str
    checksum: str = ""
    url: str = ""
    size: int | None = None
    packed_checksum: str = ""
    unpacks: str = ""

    def locate(self, data_dir: Path) -> Path:
        return _inside(data_dir, self.path)

    def folder(self, data_dir: Path) -> Path | None:
        """Where the archive's folder lies, or would; None for what is no such archive."""
        return _inside(data_dir, self.unpacks) if self.unpacks else None

    def state(self, data_dir: Path) -> State:
        path = self.locate(data_dir)
        if not path.exists():
            folder = self.folder(data_dir)
            return "unchecked" if folder is not None and folder.is_dir() else "missing"
        if not self.checksum:
            return "unchecked"
        return "official" if verify(path, self.checksum) else "differs"


def _inside(data_dir: Path, name: str) -> Path:
    root = data_dir.expanduser().resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise UserError(f"The file {name!r} would lie outside the data folder {data_dir}.")
    return path


def data_files(entries: Sequence[Mapping[str, Any]]) -> list[DataFile]:
    """The `files:` of a data set's YAML."""
    return [DataFile(**entry) for entry in entries]


def ensure(file: DataFile, data_dir: Path) -> Path:
    """The file's path (of an archive its folder's), downloaded and unpacked first where it is missing.

    An existing file is left as it is, whatever its checksum: a part of a data set has its use, and is labelled.
    Raises UserError (with the manual steps) where it is missing and cannot be fetched.
    """
    path, folder = file.locate(data_dir), file.folder(data_dir)
    if folder is not None:
        return folder if folder.is_dir() else _unpack_folder(_ensure_file(file, path), folder)
    return _ensure_file(file, path)


def _ensure_file(file: DataFile, path: Path) -> Path:
    if path.exists():
        return path
    if not file.url:
        raise UserError(
            f"{path} does not exist, and there is no public download for it: put the file there, set DL_LAB_DATA"
            " to the folder that holds it, or use dataset.source=generated."
        )
    if not file.packed_checksum:
        return fetch(file.url, path, checksum=file.checksum, size=file.size)
    packed = fetch(file.url, path.with_name(path.name + ".gz"), checksum=file.packed_checksum, size=file.size)
    _unpack(packed, path)
    packed.unlink()
    return path


def _unpack_folder(archive: Path, folder: Path) -> Path:
    """The folder of this name inside the archive becomes `folder`: whole, or not at all."""
    unpacked = extract(archive, folder.with_name(f".{folder.name}.unpacked"))
    inner = unpacked / folder.name
    if not inner.is_dir():
        shutil.rmtree(unpacked, ignore_errors=True)
        raise UserError(f"{archive} has no folder {folder.name}: it is not the archive that was expected.")
    try:
        inner.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # another process was first
            raise UserError(f"Cannot write {folder}: {error.strerror}.") from error
    shutil.rmtree(unpacked, ignore_errors=True)
    return folder


def _unpack(packed: Path, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with gzip.open(packed, "rb") as source, open(temporary, "wb") as target:
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())
        os.replace(temporary, path)
    except (OSError, EOFError) as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{packed} cannot be unpacked: {error}. Delete it and fetch it again.") from error
