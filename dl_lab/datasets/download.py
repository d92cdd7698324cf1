"""Fetch a published file once and whole, and unpack it safely.

    archive = fetch(url, folder / "octmnist.zip", checksum="md5:c68d92d5b585d8d81f7112f81e2d0842")
    images = extract(archive, folder / "octmnist")

A kill, a broken line or a full disk at any instant leaves either the right file or none; what had arrived
waits in `<name>.part` for the next call. The checksum decides what is right, so resuming is safe whatever the
server does.
"""

import errno
import hashlib
import http.client
import io
import itertools
import os
import re
import shutil
import socket
import ssl
import stat
import string
import sys
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from filelock import FileLock

from dl_lab.types import UserError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

BASE_DELAY = 0.5  # seconds before the second try; doubles with every further one
MAX_DELAY = 8.0
CHUNK = 1 << 18

_HEX_DIGITS = {"md5": 32, "sha256": 64}
_PASSING_STATUSES = {408, 425, 429}  # with every 5xx: the server asks us to come back
_UNREACHABLE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN}
_FULL = {errno.ENOSPC, errno.EDQUOT}
_DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, LZMAError, EOFError)


class DownloadError(UserError, OSError):
    """A file could not be fetched or unpacked; the message says why and what to do by hand."""


class _Broken(Exception):
    """This try failed in a way that the next one may not; the message says how."""


class _Offline(_Broken):
    """The server could not be reached at all."""


class _CannotResume(_Broken):
    """The server has nothing at the offset asked for."""


def fetch(
    url: str,
    path: Path,
    *,
    checksum: str,
    size: int | None = None,
    timeout: float = 30.0,
    retries: int = 4,
) -> Path:
    """Download `url` to `path`, unless it is there already, and return `path`.

    `checksum` is "md5:<hex>" or "sha256:<hex>"; `size` is the exact number of bytes, where known. A try is
    given up when nothing arrives for `timeout` seconds; up to `retries` further tries go on where it stopped.
    Processes that want the same file wait for the first and share its result (`<name>.lock` stays: deleting a
    lock file breaks the lock).

    Raises DownloadError when the file cannot be had, or when `path` holds something else, which is left
    untouched; ValueError for a url that is not http(s) or a malformed checksum.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"url {url!r} is neither http nor https")
    _parse(checksum)
    transfer = _Transfer(url, path, checksum, size, timeout, retries)
    try:
        if not transfer.is_done():
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(_beside(path, ".lock")):
                if not transfer.is_done():  # another process may have fetched it while we waited
                    transfer.run()
    except DownloadError:
        raise
    except OSError as error:  # the network's own errors are sorted inside: this is the disk
        raise transfer.failure(_disk_problem(error)) from error
    return path


def verify(path: Path, checksum: str) -> bool:
    """Whether the file has this checksum ("md5:<hex>" or "sha256:<hex>"); ValueError for a malformed one."""
    algorithm, expected = _parse(checksum)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return digest.hexdigest() == expected


def extract(archive: Path, folder: Path) -> Path:
    """Unpack a .zip or a (compressed) .tar as the new `folder`, all of it or nothing, and return `folder`.

    A folder that already has something in it is returned as it is: it only ever appears whole.

    Raises DownloadError for a damaged archive, a member or a link that would leave the folder, a device, and
    a disk that cannot take it.
    """
    try:
        if not _is_filled(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(_beside(folder, ".lock")):
                if not _is_filled(folder):
                    _unpack_whole(archive, folder)
    except (*_DAMAGED, OSError) as error:
        raise _extraction_failure(error, archive, folder) from error
    return folder


def _http_opener() -> urllib.request.OpenerDirector:
    """urllib's own opener would also follow a redirect to ftp."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


@dataclass
class _Transfer:
    """One call of `fetch`. Methods raise DownloadError, _Broken, or a plain OSError where the disk fails."""

    url: str
    path: Path
    checksum: str
    size: int | None
    timeout: float
    retries: int
    opener: urllib.request.OpenerDirector = field(default_factory=_http_opener)
    validator: str | None = None  # names the version on the server that .part belongs to

    @property
    def part(self) -> Path:
        return _beside(self.path, ".part")

    @property
    def host(self) -> str | None:
        return urllib.parse.urlsplit(self.url).hostname

    def is_done(self) -> bool:
        if not self.path.exists():
            return False
        if not self.path.is_file() or not verify(self.path, self.checksum):
            raise DownloadError(
                f"{self.path} exists but is not the expected file (its checksum is not {self.checksum}). "
                f"Move it away and run again, or download {self.url} by hand and put it there."
            )
        return True

    def run(self) -> None:
        # A kill between the last byte and the rename leaves a complete .part.
        if not (self.held() and verify(self.part, self.checksum)):
            self.require_space(self.size)
            self.fill_part()
        with self.part.open("rb+") as file:
            os.fsync(file.fileno())
        self.part.replace(self.path)

    def fill_part(self) -> None:
        """Leave the right bytes in .part. Wrong ones are fetched once more, from the first byte on."""
        with _progress() as progress:
            task = progress.add_task(self.path.name, total=self.size)
            for _ in range(2):
                self.receive_all(progress, task)
                if verify(self.part, self.checksum):
                    return
                self.part.unlink()
        raise self.failure(f"twice, what arrived did not have the checksum {self.checksum}")

    def receive_all(self, progress: "Progress", task: "TaskID") -> None:
        for attempt in itertools.count():
            try:
                self.receive(progress, task)
                return
            except _Broken as problem:
                hopeless = attempt == 0 and isinstance(problem, _Offline)
                if hopeless or attempt >= self.retries:
                    tries = "" if attempt == 0 else f", after {attempt + 1} tries"
                    raise self.failure(f"{problem}{tries}{self.kept()}") from problem
            time.sleep(min(BASE_DELAY * 2**attempt, MAX_DELAY))

    def receive(self, progress: "Progress", task: "TaskID") -> None:
        """One try: append to .part whatever is missing."""
        response, start = self.open_where_held()
        with response:
            self.validator = _validator(response.headers)
            total = self.total(response, start)
            self.require_space(total)
            progress.reset(task, completed=start, total=total)
            with self.part.open("ab" if start else "wb") as file:
                for chunk in self.body(response, None if total is None else total - start):
                    file.write(chunk)
                    progress.advance(task, len(chunk))

    def open_where_held(self) -> tuple[http.client.HTTPResponse, int]:
        """The answer and the offset of its first byte: where .part ends, or 0 if the server cannot resume."""
        held = self.held()
        try:
            response = self.open(held)
        except _CannotResume:
            return self.open(0), 0
        if response.status != http.client.PARTIAL_CONTENT:
            return response, 0
        if re.match(rf"bytes {held}-", response.headers.get("Content-Range", "")):
            return response, held
        response.close()  # another range than the one asked for
        return self.open(0), 0

    def open(self, start: int) -> http.client.HTTPResponse:
        request = urllib.request.Request(
            urllib.parse.quote(self.url, safe=string.punctuation), headers={"User-Agent": "dl-lab"}
        )
        if start:
            request.add_header("Range", f"bytes={start}-")
            if self.validator:
                request.add_header("If-Range", self.validator)
        with self.network():
            return self.opener.open(request, timeout=self.timeout)

    def body(self, response: http.client.HTTPResponse, missing: int | None) -> Iterator[bytes]:
        """The bytes as they arrive, until `missing` have (None: until the server is done)."""
        while missing is None or missing > 0:
            with self.network():
                # read1, as read(n) would lose what it has gathered when the line stalls before n bytes.
                chunk = response.read1(CHUNK if missing is None else min(CHUNK, missing))
            if not chunk:
                break
            yield chunk
            missing = None if missing is None else missing - len(chunk)
        if missing:
            raise _Broken(f"the connection closed with {_megabytes(missing)} still to come")

    @contextmanager
    def network(self) -> Generator[None, None, None]:
        """Sorts what goes wrong on the line into _Broken, worth another try, and DownloadError, final."""
        try:
            yield
        except urllib.error.HTTPError as answer:
            answer.close()
            raise self.judge_status(answer.code, answer.reason) from answer
        except (OSError, http.client.HTTPException) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            raise self.judge(cause) from error

    def judge_status(self, code: int, reason: object) -> _Broken | DownloadError:
        answer = f"{self.host} answered {code} {reason}"
        if code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return _CannotResume(answer)
        if code in _PASSING_STATUSES or code >= http.client.INTERNAL_SERVER_ERROR:
            return _Broken(answer)
        return self.failure(answer)

    def judge(self, cause: object) -> _Broken | DownloadError:
        match cause:
            case ssl.SSLCertVerificationError():
                return self.failure(f"the certificate of {self.host} is not trusted ({cause.verify_message})")
            case http.client.InvalidURL():
                return self.failure(f"the url is not valid ({cause})")
            case TimeoutError():
                return _Broken(f"nothing arrived from {self.host} for {self.timeout:g} s")
            case socket.gaierror() | ConnectionRefusedError():
                return _Offline(f"{self.host} cannot be reached ({cause.strerror}); is this machine offline?")
            case OSError(errno=number) if number in _UNREACHABLE:
                return _Offline(f"{self.host} cannot be reached ({cause.strerror}); is this machine offline?")
        return _Broken(f"the connection to {self.host} broke ({cause})")

    def total(self, response: http.client.HTTPResponse, start: int) -> int | None:
        """Bytes of the whole file; None where nobody says."""
        announced = _announced_total(response.headers, start)
        if None not in (announced, self.size) and announced != self.size:
            raise self.failure(f"{self.host} offers {announced} bytes where {self.size} were expected")
        return self.size if announced is None else announced

    def require_space(self, total: int | None) -> None:
        missing = 0 if total is None else total - self.held()
        free = shutil.disk_usage(self.path.parent).free
        if missing > free:
            raise self.failure(f"{_megabytes(missing)} are still to come and the disk has {_megabytes(free)} free")

    def held(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def kept(self) -> str:
        held = self.held()
        return f" ({_megabytes(held)} are kept in {self.part.name}, the next run continues there)" if held else ""

    def failure(self, reason: str) -> DownloadError:
        return DownloadError(
            f"{self.url} could not be downloaded: {reason}{'' if reason.endswith('?') else '.'} "
            f"Run again later, or download it by hand and put it at {self.path}."
        )


def _parse(checksum: str) -> tuple[str, str]:
    """(algorithm, hex digest in lower case)."""
    algorithm, _, digest = checksum.lower().partition(":")
    if len(digest) != _HEX_DIGITS.get(algorithm) or not set(digest) <= set(string.hexdigits):
        raise ValueError(f"checksum {checksum!r} is neither md5:<32 hex digits> nor sha256:<64 hex digits>")
    return algorithm, digest


def _validator(headers: Message) -> str | None:
    """What If-Range may carry: a strong ETag, else the date of the last change."""
    tag = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def _announced_total(headers: Message, start: int) -> int | None:
    whole = headers.get("Content-Range", "").rpartition("/")[2] if start else ""
    length = headers.get("Content-Length", "")
    if whole.isdecimal():
        return int(whole)
    return start + int(length) if length.isdecimal() else None


def _progress() -> "Progress":
    """A bar on a terminal, silence elsewhere."""
    from rich import progress  # here, as most calls find the file in place and need no bar
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
    )


def _unpack_whole(archive: Path, folder: Path) -> None:
    temporary = _beside(folder, ".part")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed: we hold the lock
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
    except RuntimeError as error:  # zipfile's word for an encrypted member or a format it does not know
        raise zipfile.BadZipFile(str(error)) from error


def _require_harmless(member: zipfile.ZipInfo) -> None:
    """zipfile would quietly rename a member that leaves the folder, and write a link as a plain file."""
    name, kind = PurePosixPath(member.filename), stat.S_IFMT(member.external_attr >> 16)
    if name.is_absolute() or ".." in name.parts:
        raise zipfile.BadZipFile(f"its member {member.filename!r} would leave the folder")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):  # 0: packed where files have no mode
        raise zipfile.BadZipFile(f"its member {member.filename!r} is neither a file nor a folder")


def _unpack_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
        _require_end(file)


def _require_end(file: tarfile.TarFile) -> None:
    """tarfile takes a truncated header for the end of the archive, and so a part of it for all of it."""
    stream = file.fileobj
    if isinstance(stream, io.BufferedReader):  # not compressed: nothing else would notice
        stream.seek(file.offset)
        if stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError("its end is missing")
    while stream.read(CHUNK):  # the decompressor checks its own sum at the end only
        pass


def _extraction_failure(error: Exception, archive: Path, folder: Path) -> DownloadError:
    if isinstance(error, OSError) and error.errno is not None:  # gzip and bz2 raise an OSError without a number
        return DownloadError(f"{archive} could not be unpacked into {folder}: {_disk_problem(error)}.")
    return DownloadError(
        f"{archive} could not be unpacked: {error or 'it is truncated'}. "
        "Delete it and run again, or put a good copy there by hand."
    )


def _is_filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _disk_problem(error: OSError) -> str:
    if error.errno in _FULL:
        return "the disk is full"
    return f"{error.filename or 'the disk'}: {error.strerror or error}"


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.1f} MB"
