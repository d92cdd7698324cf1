"""The files of a data set: where they are, where they come from, and whether they are the official ones.

The YAML of a data set names its files once. The data set, `dl-lab data fetch` and `dl-lab data verify` all read that
list. Files are read wherever links lead, but written inside the data folder only. This module imports no torch.
"""

from __future__ import annotations

import dataclasses
import gzip
import os
import shutil
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from dl_lab.datasets.archives import extract
from dl_lab.datasets.download import fetch, parse_checksum, verify
from dl_lab.types import ConfigError, UserError

FileEntry: TypeAlias = Mapping[str, object]  # one entry of `files:` in a YAML: the fields of a DataFile by name
State = Literal["official", "differs", "unchecked", "unpacked", "missing", "unreadable"]


@dataclass(frozen=True)
class DataFile:
    """One file under the data folder.

    Args:
        path: The path relative to the data folder, never outside it.
        checksum: The checksum of the official file ("md5:..." or "sha256:..."); "" where none is published.
        url: The address of the download; "" where there is none.
        size: The size of the download in bytes, where known.
        packed_checksum: The checksum of the download itself, where the download is a .gz of the file.
        unpacks: The one folder that an archive holds, where the data set reads that folder. The archive is unnecessary
            where the folder exists.
        replaced_by: A folder or file that makes this file unnecessary, where the data set unpacks the file itself.
        choice: The name of a choice. Files of one choice belong together; a data set of several choices needs one.
        optional: Whether the data set works without the file.
    """

    path: str
    checksum: str = ""
    url: str = ""
    size: int | None = None
    packed_checksum: str = ""
    unpacks: str = ""
    replaced_by: str = ""
    choice: str = ""
    optional: bool = False

    def locate(self, data_dir: Path) -> Path:
        """Return the path of the file, whether it exists or not."""
        return _resolve(data_dir, self.path)

    def folder(self, data_dir: Path) -> Path | None:
        """Return the path of the archive's folder, whether it exists or not; None for a file that is no archive."""
        return _resolve(data_dir, self.unpacks) if self.unpacks else None

    def replacement(self, data_dir: Path) -> Path | None:
        """Return the existing folder or file that makes the file unnecessary; None where there is none."""
        for name in (self.unpacks, self.replaced_by):
            if name and _resolve(data_dir, name).exists():
                return _resolve(data_dir, name)
        return None

    def state(self, data_dir: Path) -> State:
        """Return whether the file exists, and whether it is the official one."""
        path = self.locate(data_dir)
        try:
            if not path.exists():
                return "missing" if self.replacement(data_dir) is None else "unpacked"
            if not self.checksum or path.is_dir():
                return "unchecked"
            return "official" if verify(path, self.checksum) else "differs"
        except OSError:  # a link that leads to itself, or a file of another user
            return "unreadable"


def data_files(entries: Sequence[FileEntry]) -> list[DataFile]:
    """Return the files that a data set's YAML names under `files:`.

    Raises:
        ConfigError: An entry has an unknown key, no path, a malformed checksum, or a download without a checksum.
    """
    known = [field.name for field in dataclasses.fields(DataFile)]
    files: list[DataFile] = []
    for i, entry in enumerate(entries):
        where = f"files[{i}] ({entry.get('path', 'without path')})"
        unknown = [key for key in entry if key not in known]
        if unknown:
            raise ConfigError(f"{where}: there is no key {str(unknown[0])!r}. The keys are {', '.join(known)}.")
        if not entry.get("path"):
            raise ConfigError(f"{where}: every file needs a path, relative to the data folder.")
        for key in ("checksum", "packed_checksum"):
            if entry.get(key):
                try:
                    parse_checksum(str(entry[key]))
                except ValueError as error:
                    raise ConfigError(f"{where}: {key}: {error}.") from None
        fields: dict[str, Any] = {str(key): value for key, value in entry.items()}
        file = DataFile(**fields)
        if file.url and not (file.checksum or file.packed_checksum):
            raise ConfigError(
                f"{where}: the file has a url but no checksum. A download needs one, md5:... or sha256:..., so that a "
                "damaged or changed file is noticed."
            )
        files.append(file)
    return files


def needed_files(files: Sequence[DataFile], data_dir: Path) -> list[DataFile]:
    """Return the files that a data set needs: those without a choice, and those of one choice.

    That is the first choice whose files all exist, else the first choice that can be downloaded, else the first one.

    Args:
        files: All files of the data set.
        data_dir: The data folder.
    """
    choices = list(dict.fromkeys(file.choice for file in files if file.choice))
    if not choices:
        return list(files)

    def required(choice: str) -> list[DataFile]:
        return [file for file in files if file.choice == choice and not file.optional]

    present = [c for c in choices if all(_exists(file, data_dir) for file in required(c))]
    available = [c for c in choices if all(file.url or _exists(file, data_dir) for file in required(c))]
    chosen = [*present, *available, *choices][0]
    return [file for file in files if file.choice in ("", chosen)]


def _exists(file: DataFile, data_dir: Path) -> bool:
    return file.locate(data_dir).exists() or file.replacement(data_dir) is not None


def ensure(file: DataFile, data_dir: Path) -> Path:
    """Return the path of a file or of an archive's folder. Download and unpack it first if it is missing.

    An existing file stays as it is, whatever its checksum: a part of a data set is useful too, and is labelled "part".

    Raises:
        UserError: The file is missing and cannot be fetched; the message says what to do by hand.
    """
    path = file.locate(data_dir)
    folder = file.folder(data_dir)
    if folder is None:
        return _ensure_file(file, path, data_dir)
    if folder.is_dir():
        return folder
    return _unpack_folder(_ensure_file(file, path, data_dir), folder, data_dir)


def require_inside(path: Path, data_dir: Path) -> None:
    """Check that no link makes `path` lead outside of the data folder, where nothing may be written.

    Raises:
        UserError: The path leads outside of the data folder.
    """
    real = path.resolve()
    if not real.is_relative_to(data_dir.expanduser().resolve()):
        raise UserError(
            f"{path} leads by a link to {real}, outside of the data folder {data_dir}. Nothing is written there: put "
            "the file there by hand."
        )


def _resolve(data_dir: Path, name: str) -> Path:
    """Return a path below the data folder. Raise a UserError for a name that leads out of it."""
    parts = Path(name).parts
    if Path(name).is_absolute() or ".." in parts or not parts or parts[0].startswith("~"):
        raise UserError(f"The file {name!r} would lie outside the data folder {data_dir}.")
    return data_dir.expanduser().absolute() / name


def _ensure_file(file: DataFile, path: Path, data_dir: Path) -> Path:
    if path.exists():
        return path
    if path.is_symlink():
        raise UserError(f"{path} is a link to {os.readlink(path)}, which does not exist.")
    if not file.url:
        raise UserError(
            f"{path} does not exist, and there is no public download for it: put the file there, set DL_LAB_DATA"
            " to the folder that holds it, or use dataset.source=generated."
        )
    require_inside(path, data_dir)
    if not file.packed_checksum:
        return fetch(file.url, path, checksum=file.checksum, size=file.size)
    packed = path.with_name(path.name + ".gz")
    is_users_own = packed.exists()
    fetch(file.url, packed, checksum=file.packed_checksum, size=file.size)
    _unpack(packed, path)
    if not is_users_own:
        packed.unlink()
    return path


def _unpack_folder(archive: Path, folder: Path, data_dir: Path) -> Path:
    """Unpack the folder of this name inside the archive as `folder`: all of it or nothing."""
    require_inside(folder, data_dir)
    unpacked = extract(archive, folder.with_name(f".{folder.name}.unpacked"))
    inner = unpacked / folder.name
    if not inner.is_dir():
        shutil.rmtree(unpacked, ignore_errors=True)
        raise UserError(f"{archive} has no folder {folder.name}: it is not the expected archive.")
    try:
        inner.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # another process was first
            raise UserError(f"Cannot write {folder}: {error.strerror}.") from error
    shutil.rmtree(unpacked, ignore_errors=True)
    return folder


def _unpack(packed: Path, path: Path) -> None:
    """Unpack a .gz as the file `path`: all of it or nothing."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with gzip.open(packed, "rb") as source, open(temporary, "wb") as target:
            shutil.copyfileobj(source, target)
            target.flush()
            os.fsync(target.fileno())
        os.replace(temporary, path)
    except (OSError, EOFError, zlib.error) as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{packed} cannot be unpacked: {error}. Delete it and fetch it again.") from error
