"""Fetch a published file once and whole.

Long because every fault of a network, a server and a disk has an answer of its own.

    archive = fetch(url, folder / "octmnist.zip", checksum="md5:c68d92d5b585d8d81f7112f81e2d0842")

A kill, a broken connection or a full disk leaves either the right file or none. The bytes that have arrived wait in
`<name>.part` for the next call. The checksum decides whether a file is right, so that a resumed download is safe
whatever the server does.
"""

import errno
import hashlib
import http.client
import itertools
import os
import re
import shutil
import socket
import ssl
import string
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from dl_lab.datasets.progress import download_bar
from dl_lab.types import UserError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

BASE_DELAY = 0.5  # seconds before the second try; it doubles with every further try
MAX_DELAY = 8.0  # seconds
CHUNK = 1 << 18  # bytes

_HEX_DIGITS = {"md5": 32, "sha256": 64}
_PASSING_STATUSES = {408, 425, 429}  # these, and every 5xx, may pass: try again
_UNREACHABLE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN}
_FULL = {errno.ENOSPC, errno.EDQUOT}


class DownloadError(UserError, OSError):
    """A file could not be fetched or unpacked; the message says why and what to do by hand."""


class _Broken(Exception):
    """This attempt failed, but the next one may not; the message says how."""


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

    Processes that want the same file wait for the first one and share its result. `<name>.lock` stays, because deleting
    a lock file breaks the lock.

    Args:
        url: The address, http or https.
        path: The path of the file.
        checksum: "md5:<hex>" or "sha256:<hex>".
        size: The exact number of bytes, where known.
        timeout: Seconds without any data after which an attempt ends.
        retries: The number of further attempts, each of which continues where the last one stopped.

    Raises:
        DownloadError: The file cannot be downloaded, or `path` is another file, which is left untouched.
        ValueError: The url is neither http nor https, or the checksum is malformed.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"url {url!r} is neither http nor https")
    parse_checksum(checksum)
    transfer = _Transfer(url, path, checksum, size, timeout, retries)
    try:
        if not transfer.is_done():
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(beside(path, ".lock")):
                if not transfer.is_done():  # another process may have fetched it while we waited
                    transfer.run()
    except DownloadError:
        raise
    except OSError as error:  # the network's own errors are sorted inside: this is the disk
        raise transfer.failure(describe_disk_error(error)) from error
    return path


def verify(path: Path, checksum: str) -> bool:
    """Return whether a file has a checksum.

    Args:
        path: The file.
        checksum: "md5:<hex>" or "sha256:<hex>".

    Raises:
        ValueError: The checksum is malformed.
    """
    algorithm, expected = parse_checksum(checksum)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return digest.hexdigest() == expected


def _build_opener() -> urllib.request.OpenerDirector:
    """Return an opener for http and https only: the usual one of urllib also follows a redirect to ftp."""
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
    """One call of `fetch`.

    Its methods raise DownloadError, _Broken, or a plain OSError if the disk fails.
    """

    url: str
    path: Path
    checksum: str
    size: int | None
    timeout: float
    retries: int
    opener: urllib.request.OpenerDirector = field(default_factory=_build_opener)
    validator: str | None = None  # names the server's version of the file that .part belongs to

    @property
    def part(self) -> Path:
        return beside(self.path, ".part")

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
        if not (self.count_kept() and verify(self.part, self.checksum)):
            self.require_space(self.size)
            self.fill_part()
        with self.part.open("rb+") as file:
            os.fsync(file.fileno())
        self.part.replace(self.path)

    def fill_part(self) -> None:
        """Put the right bytes into .part. Wrong bytes are downloaded once more, from the first one on."""
        with download_bar() as progress:
            task = progress.add_task(self.path.name, total=self.size)
            for _ in range(2):
                self.receive_all(progress, task)
                if verify(self.part, self.checksum):
                    return
                self.part.unlink()
        raise self.failure(f"the file arrived twice without the checksum {self.checksum}")

    def receive_all(self, progress: "Progress", task: "TaskID") -> None:
        for attempt in itertools.count():
            try:
                self.receive(progress, task)
                return
            except _Broken as problem:
                is_hopeless = attempt == 0 and isinstance(problem, _Offline)
                if is_hopeless or attempt >= self.retries:
                    tries = "" if attempt == 0 else f", after {attempt + 1} tries"
                    raise self.failure(f"{problem}{tries}{self.describe_kept()}") from problem
            time.sleep(min(BASE_DELAY * 2**attempt, MAX_DELAY))

    def receive(self, progress: "Progress", task: "TaskID") -> None:
        """Make one attempt: append the missing bytes to .part."""
        response, start = self.open_at_end()
        with response:
            self.validator = _find_validator(response.headers)
            total = self.find_total(response, start)
            self.require_space(total)
            progress.reset(task, completed=start, total=total)
            with self.part.open("ab" if start else "wb") as file:
                for chunk in self.read_body(response, None if total is None else total - start):
                    file.write(chunk)
                    progress.advance(task, len(chunk))

    def open_at_end(self) -> tuple[http.client.HTTPResponse, int]:
        """Return the response and the offset of its first byte: the end of .part, or 0 if the server cannot resume."""
        start = self.count_kept()
        try:
            response = self.open(start)
        except _CannotResume:
            return self.open(0), 0
        if response.status != http.client.PARTIAL_CONTENT:
            return response, 0
        if re.match(rf"bytes {start}-", response.headers.get("Content-Range", "")):
            return response, start
        response.close()  # the server sends another range
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

    def read_body(self, response: http.client.HTTPResponse, missing: int | None) -> Iterator[bytes]:
        """Yield the bytes as they arrive, until `missing` bytes have arrived (None: until the response ends)."""
        while missing is None or missing > 0:
            with self.network():
                # read1, because read(n) loses the bytes it has gathered if the line stalls before n bytes.
                chunk = response.read1(CHUNK if missing is None else min(CHUNK, missing))
            if not chunk:
                break
            yield chunk
            missing = None if missing is None else missing - len(chunk)
        if missing:
            raise _Broken(f"the connection closed with {_format_size(missing)} still to come")

    @contextmanager
    def network(self) -> Generator[None, None, None]:
        """Turn errors of the connection into _Broken (try again) or DownloadError (final)."""
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

    def find_total(self, response: http.client.HTTPResponse, start: int) -> int | None:
        """Return the bytes of the whole file; None where neither the server nor the config says."""
        announced = _read_total(response.headers, start)
        if None not in (announced, self.size) and announced != self.size:
            raise self.failure(f"{self.host} offers {announced} bytes where {self.size} were expected")
        return self.size if announced is None else announced

    def require_space(self, total: int | None) -> None:
        missing = 0 if total is None else total - self.count_kept()
        free = shutil.disk_usage(self.path.parent).free
        if missing > free:
            raise self.failure(f"{_format_size(missing)} are still to come and the disk has {_format_size(free)} free")

    def count_kept(self) -> int:
        """Return the bytes of .part."""
        return self.part.stat().st_size if self.part.exists() else 0

    def describe_kept(self) -> str:
        n_kept = self.count_kept()
        if not n_kept:
            return ""
        return f" ({_format_size(n_kept)} are kept in {self.part.name}, the next run continues there)"

    def failure(self, reason: str) -> DownloadError:
        return DownloadError(
            f"{self.url} could not be downloaded: {reason}{'' if reason.endswith('?') else '.'} "
            f"Run again later, or download it by hand and put it at {self.path}."
        )


def parse_checksum(checksum: str) -> tuple[str, str]:
    """Return the algorithm and the hex digest in lower case.

    Raises:
        ValueError: The checksum is malformed.
    """
    algorithm, _, digest = checksum.lower().partition(":")
    if len(digest) != _HEX_DIGITS.get(algorithm) or not set(digest) <= set(string.hexdigits):
        raise ValueError(f"checksum {checksum!r} is neither md5:<32 hex digits> nor sha256:<64 hex digits>")
    return algorithm, digest


def _find_validator(headers: Message) -> str | None:
    """Return a value for the header If-Range: a strong ETag, else the date of the last change."""
    tag = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def _read_total(headers: Message, start: int) -> int | None:
    whole = headers.get("Content-Range", "").rpartition("/")[2] if start else ""
    length = headers.get("Content-Length", "")
    if whole.isdecimal():
        return int(whole)
    return start + int(length) if length.isdecimal() else None


def describe_disk_error(error: OSError) -> str:
    """Say in words why the disk refused."""
    if error.errno in _FULL:
        return "the disk is full"
    return f"{error.filename or 'the disk'}: {error.strerror or error}"


def beside(path: Path, suffix: str) -> Path:
    """Return the path with a suffix appended to its name."""
    return path.with_name(path.name + suffix)


def _format_size(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:,.1f} MB"
