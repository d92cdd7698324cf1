"""Unpack an archive safely: all of it, inside its own folder, or nothing.

images = extract(folder / "octmnist.zip", folder / "octmnist")
"""

from __future__ import annotations

import io
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from lzma import LZMAError
from pathlib import Path, PurePosixPath

from filelock import FileLock

from dl_lab.datasets.download import CHUNK, DownloadError, beside, describe_disk_error
from dl_lab.types import UserError

DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, LZMAError, EOFError)


def extract(archive: Path, folder: Path) -> Path:
    """Unpack a .zip or a (compressed) .tar as the new `folder`, all of it or nothing, and return `folder`.

    A folder that is not empty is returned as it is, because it only ever appears whole. The archive stays.

    Raises:
        DownloadError: The archive is damaged, a member or a link would leave the folder, a member is a device, or the
            disk cannot take the files.
    """
    try:
        if not _is_filled(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(beside(folder, ".lock")):
                if not _is_filled(folder):
                    _unpack_whole(archive, folder)
    except (*DAMAGED, OSError) as error:
        raise _extraction_failure(error, archive, folder) from error
    return folder


def read_members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of every file in a (compressed) .tar, in the order of the archive.

    Raises:
        UserError: The archive is damaged or ends early, or a member's name would leave the archive's folder.
    """
    try:
        with tarfile.open(archive) as packed:
            for member in packed:
                name = PurePosixPath(member.name)
                if name.is_absolute() or ".." in name.parts:
                    raise UserError(f"{archive}: its member {member.name!r} would leave the archive's folder.")
                file = packed.extractfile(member) if member.isfile() else None
                if file is not None:
                    content = file.read()
                    if len(content) != member.size:
                        raise EOFError
                    yield member.name, content
            require_end(packed)
    except (*DAMAGED, OSError) as error:
        raise UserError(f"{archive} cannot be read: {_find_reason(error)}. Replace it with a good copy.") from error


def _unpack_whole(archive: Path, folder: Path) -> None:
    temporary = beside(folder, ".part")
    shutil.rmtree(temporary, ignore_errors=True)  # we hold the lock: a killed process left this folder
    temporary.mkdir()
    try:
        unpack = _unpack_zip if archive.suffix.lower() == ".zip" else _unpack_tar
        unpack(archive, temporary)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unpack_zip(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as file:
            for member in file.infolist():
                _require_harmless(member)
            file.extractall(folder)
    except RuntimeError as error:  # zipfile raises this for an encrypted member or an unknown format
        raise zipfile.BadZipFile(str(error)) from error


def _require_harmless(member: zipfile.ZipInfo) -> None:
    """Refuse a member that leaves the folder, and a link.

    The module zipfile would rename the first without a word, and write the second as a plain file.
    """
    name = PurePosixPath(member.filename)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if name.is_absolute() or ".." in name.parts:
        raise zipfile.BadZipFile(f"its member {member.filename!r} would leave the folder")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):  # 0: packed where files have no mode
        raise zipfile.BadZipFile(f"its member {member.filename!r} is neither a file nor a folder")


def _unpack_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
        require_end(file)


def require_end(file: tarfile.TarFile) -> None:
    """Check that an archive has been read to its true end.

    The module tarfile takes a truncated or damaged header for the end of the archive.

    Raises:
        ReadError: The end of the archive is missing.
    """
    stream = file.fileobj
    if isinstance(stream, io.BufferedReader):  # not compressed: no checksum would tell
        stream.seek(file.offset)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("its end is missing")
    while stream.read(CHUNK):  # the decompressor checks its own sum at the end only
        pass


def _extraction_failure(error: Exception, archive: Path, folder: Path) -> DownloadError:
    if isinstance(error, OSError) and error.errno is not None:  # gzip and bz2 raise an OSError without a number
        return DownloadError(f"{archive} could not be unpacked into {folder}: {describe_disk_error(error)}.")
    return DownloadError(
        f"{archive} could not be unpacked: {_find_reason(error)}. Delete it and run again, or replace it with a good "
        "copy by hand."
    )


def _find_reason(error: BaseException) -> str:
    """Say on one line what is wrong with an archive."""
    text = str(error).strip()
    if text.startswith("file could not be opened"):  # tarfile lists every compression that it tried
        return "it is no readable archive"
    return text.partition("\n")[0].rstrip(".") or "it ends early"


def _is_filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())
