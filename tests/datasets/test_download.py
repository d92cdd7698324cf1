"""Downloads against a real HTTP server on the loopback that misbehaves as the test tells it to."""

import hashlib
import io
import os
import random
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dl_lab.datasets import download
from dl_lab.datasets.archives import extract
from dl_lab.datasets.download import DownloadError, fetch, verify

ROOT = Path(__file__).parents[2]
CONTENT = random.Random(0).randbytes(300_000)
HALF = len(CONTENT) // 2
SHA256 = "sha256:" + hashlib.sha256(CONTENT).hexdigest()
MD5 = "md5:" + hashlib.md5(CONTENT).hexdigest()
WAIT = 20.0  # seconds; a bound on every wait, never reached when the code is right


@pytest.fixture(autouse=True)
def short_delays_and_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "BASE_DELAY", 0.01)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


# ---- a server that plays a script: the n-th request gets the n-th act, the last act repeats


@dataclass
class Seen:
    """One request, and how many bytes of the file it was given."""

    range: str | None
    if_range: str | None
    sent: int = 0


class Handler(BaseHTTPRequestHandler):
    @property
    def script(self) -> "Server":
        assert isinstance(self.server, Server)
        return self.server

    def do_GET(self) -> None:
        seen = self.script.seen
        with self.script.lock:
            number = len(seen)
            seen.append(Seen(self.headers["Range"], self.headers["If-Range"]))
        self.script.acts[min(number, len(self.script.acts) - 1)](self, seen[number])

    def head(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def body(self, content: bytes, seen: Seen) -> None:
        self.wfile.write(content)
        seen.sent += len(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


Act = Callable[[Handler, Seen], None]


class Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close() waits for every handler: nothing is left open after a test

    def __init__(self, acts: tuple[Act, ...]) -> None:
        self.acts, self.seen = acts, list[Seen]()
        self.lock, self.released = threading.Lock(), threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/digits.bin"

    @property
    def ranges(self) -> list[str | None]:
        return [seen.range for seen in self.seen]

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # the client may hang up; anything else is a bug here
            super().handle_error(request, client_address)  # pyright: ignore[reportArgumentType]


@contextmanager
def serving(*acts: Act) -> Generator[Server, None, None]:
    with Server(acts) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()


def serve(handler: Handler, seen: Seen) -> None:
    """The whole file, or the range asked for."""
    start = int(seen.range.removeprefix("bytes=").removesuffix("-")) if seen.range else 0
    if start >= len(CONTENT):
        handler.head(416, Content_Range=f"bytes */{len(CONTENT)}", Content_Length=0)
        return
    headers: dict[str, object] = {"Content_Length": len(CONTENT) - start, "ETag": '"v1"'}
    if start:
        headers["Content_Range"] = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
    handler.head(206 if start else 200, **headers)
    handler.body(CONTENT[start:], seen)


def ignore_range(handler: Handler, seen: Seen) -> None:
    handler.head(200, Content_Length=len(CONTENT))
    handler.body(CONTENT, seen)


def without_length(handler: Handler, seen: Seen) -> None:
    handler.head(200)
    handler.body(CONTENT, seen)


def truncate(handler: Handler, seen: Seen) -> None:
    handler.head(200, Content_Length=len(CONTENT), ETag='"v1"')
    handler.body(CONTENT[:HALF], seen)


def stall(handler: Handler, seen: Seen) -> None:
    truncate(handler, seen)
    handler.script.released.wait(WAIT)


def hold_back(handler: Handler, seen: Seen) -> None:
    handler.script.released.wait(WAIT)
    serve(handler, seen)


def corrupt(handler: Handler, seen: Seen) -> None:
    handler.head(200, Content_Length=len(CONTENT))
    handler.body(bytes([CONTENT[0] ^ 1]) + CONTENT[1:], seen)


def another_range(handler: Handler, seen: Seen) -> None:
    handler.head(206, Content_Length=10, Content_Range=f"bytes 0-9/{len(CONTENT)}")
    handler.body(CONTENT[:10], seen)


def status(code: int, **headers: object) -> Act:
    def act(handler: Handler, seen: Seen) -> None:
        handler.head(code, Content_Length=0, **headers)

    return act


def assert_fetched(path: Path) -> None:
    """The right bytes, and nothing beside them but the lock."""
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == {path.name, f"{path.name}.lock"}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# ---- fetch


@pytest.mark.parametrize("checksum", [SHA256, MD5, SHA256.upper().replace("SHA", "sha")])
def test_a_file_is_fetched_once(tmp_path: Path, checksum: str) -> None:
    path = tmp_path / "new" / "digits.bin"
    with serving(serve) as server:
        assert fetch(server.url, path, checksum=checksum, size=len(CONTENT)) == path
        assert_fetched(path)
        assert fetch(server.url, path, checksum=checksum) == path
    assert server.seen == [Seen(None, None, len(CONTENT))]


def test_the_bytes_are_on_the_disk_before_the_file_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real_fsync, seen = tmp_path / "digits.bin", os.fsync, list[tuple[bytes, bool]]()

    def fsync(file: int) -> None:
        seen.append((path.with_name("digits.bin.part").read_bytes(), path.exists()))
        real_fsync(file)

    monkeypatch.setattr(os, "fsync", fsync)
    with serving(serve) as server:
        assert_fetched(fetch(server.url, path, checksum=SHA256))
    assert seen == [(CONTENT, False)]


def test_an_existing_file_needs_no_server_and_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "digits.bin"
    path.write_bytes(CONTENT)
    fetch(closed_address(), path, checksum=SHA256)
    assert names(tmp_path) == {"digits.bin"}


def test_another_file_in_its_place_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "digits.bin"
    path.write_bytes(b"my own notes")
    with serving(serve) as server, pytest.raises(DownloadError, match="not the expected file") as failure:
        fetch(server.url, path, checksum=SHA256)
    assert str(path) in str(failure.value) and server.url in str(failure.value)
    assert path.read_bytes() == b"my own notes"
    assert names(tmp_path) == {"digits.bin"} and server.seen == []


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="not the expected file"):
        fetch(closed_address(), tmp_path, checksum=SHA256)


def test_a_file_of_unknown_length_is_fetched(tmp_path: Path) -> None:
    with serving(without_length) as server:
        assert_fetched(fetch(server.url, tmp_path / "digits.bin", checksum=SHA256))


def test_a_truncated_body_is_continued(tmp_path: Path) -> None:
    with serving(truncate, serve) as server:
        assert_fetched(fetch(server.url, tmp_path / "digits.bin", checksum=SHA256))
    assert server.seen == [Seen(None, None, HALF), Seen(f"bytes={HALF}-", '"v1"', len(CONTENT) - HALF)]


def test_a_stalled_body_is_continued(tmp_path: Path) -> None:
    with serving(stall, serve) as server:
        assert_fetched(fetch(server.url, tmp_path / "digits.bin", checksum=SHA256, timeout=0.3))
    assert server.ranges == [None, f"bytes={HALF}-"]


def test_a_silent_server_is_given_up(tmp_path: Path) -> None:
    with (
        serving(hold_back) as server,
        pytest.raises(DownloadError, match=r"nothing arrived .* after 2 tries"),
    ):
        fetch(server.url, tmp_path / "digits.bin", checksum=SHA256, timeout=0.1, retries=1)
    assert len(server.seen) == 2


@pytest.mark.parametrize("second", [ignore_range, another_range, status(416)])
def test_a_server_that_will_not_resume_starts_over(tmp_path: Path, second: Act) -> None:
    with serving(truncate, second, ignore_range) as server:
        assert_fetched(fetch(server.url, tmp_path / "digits.bin", checksum=SHA256))
    assert server.ranges == [None, f"bytes={HALF}-", None][: 2 if second is ignore_range else 3]


def test_bytes_are_kept_when_all_tries_have_failed(tmp_path: Path) -> None:
    path = tmp_path / "digits.bin"
    reason = r"503 .* after 3 tries .*are kept in digits\.bin\.part"
    with serving(truncate, status(503)) as server, pytest.raises(DownloadError, match=reason) as failure:
        fetch(server.url, path, checksum=SHA256, retries=2)
    assert f"put it at {path}" in str(failure.value)
    assert len(server.seen) == 3
    assert names(tmp_path) == {"digits.bin.part", "digits.bin.lock"}
    assert (tmp_path / "digits.bin.part").read_bytes() == CONTENT[:HALF]
    with serving(serve) as server:
        assert_fetched(fetch(server.url, path, checksum=SHA256))
    assert server.seen == [Seen(f"bytes={HALF}-", None, len(CONTENT) - HALF)]


def test_a_complete_part_needs_no_server(tmp_path: Path) -> None:
    (tmp_path / "digits.bin.part").write_bytes(CONTENT)
    assert_fetched(fetch(closed_address(), tmp_path / "digits.bin", checksum=SHA256))


@pytest.mark.parametrize("stale", [b"x" * HALF, b"x" * len(CONTENT), b"x" * (len(CONTENT) + 1)])
def test_the_part_of_another_file_is_thrown_away(tmp_path: Path, stale: bytes) -> None:
    (tmp_path / "digits.bin.part").write_bytes(stale)
    with serving(serve) as server:
        assert_fetched(fetch(server.url, tmp_path / "digits.bin", checksum=SHA256))
    assert server.ranges == [f"bytes={len(stale)}-", None]


def test_wrong_bytes_are_fetched_once_more(tmp_path: Path) -> None:
    with serving(corrupt, serve) as server:
        assert_fetched(fetch(server.url, tmp_path / "digits.bin", checksum=SHA256))
    assert server.ranges == [None, None]


def test_bytes_that_stay_wrong_are_not_kept(tmp_path: Path) -> None:
    with (
        serving(corrupt) as server,
        pytest.raises(DownloadError, match=f"without the checksum {SHA256}"),
    ):
        fetch(server.url, tmp_path / "digits.bin", checksum=SHA256)
    assert server.ranges == [None, None]
    assert names(tmp_path) == {"digits.bin.lock"}


def test_a_file_of_another_size_is_not_downloaded(tmp_path: Path) -> None:
    with (
        serving(serve) as server,
        pytest.raises(DownloadError, match="offers 300000 bytes where 299999 were expected"),
    ):
        fetch(server.url, tmp_path / "digits.bin", checksum=SHA256, size=len(CONTENT) - 1)
    assert names(tmp_path) == {"digits.bin.lock"} and len(server.seen) == 1


@pytest.mark.parametrize("code", [403, 404, 410])
def test_a_final_answer_is_not_asked_for_again(tmp_path: Path, code: int) -> None:
    path = tmp_path / "digits.bin"
    with serving(status(code)) as server, pytest.raises(DownloadError, match=f"answered {code} ") as failure:
        fetch(server.url, path, checksum=SHA256)
    assert f"download it by hand and put it at {path}" in str(failure.value)
    assert len(server.seen) == 1 and names(tmp_path) == {"digits.bin.lock"}


@pytest.mark.parametrize("code", [429, 503])
def test_a_busy_server_is_asked_again(tmp_path: Path, code: int) -> None:
    with serving(status(code), status(code), serve) as server:
        assert_fetched(fetch(server.url, tmp_path / "digits.bin", checksum=SHA256))
    assert len(server.seen) == 3


def test_a_redirect_is_followed_with_its_range(tmp_path: Path) -> None:
    (tmp_path / "digits.bin.part").write_bytes(CONTENT[:HALF])
    with serving(serve) as mirror, serving(status(302, Location=mirror.url)) as server:
        assert_fetched(fetch(server.url, tmp_path / "digits.bin", checksum=SHA256))
    assert mirror.ranges == [f"bytes={HALF}-"]


def test_a_redirect_to_ftp_is_not_followed(tmp_path: Path) -> None:
    act = status(302, Location="ftp://127.0.0.1/digits.bin")
    with serving(act) as server, pytest.raises(DownloadError, match="unknown url type: ftp"):
        fetch(server.url, tmp_path / "digits.bin", checksum=SHA256, retries=0)
    assert len(server.seen) == 1


def test_a_refused_connection_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"127\.0\.0\.1 cannot be reached .*offline\? Run") as failure:
        fetch(closed_address(), tmp_path / "digits.bin", checksum=SHA256)
    assert "\n" not in str(failure.value)
    assert names(tmp_path) == {"digits.bin.lock"}


def test_an_unknown_host_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    with pytest.raises(DownloadError, match=r"data\.invalid cannot be reached"):
        fetch("http://data.invalid/digits.bin", tmp_path / "digits.bin", checksum=SHA256)


def test_a_file_larger_than_the_disk_is_not_asked_for(tmp_path: Path) -> None:
    with (
        serving(serve) as server,
        pytest.raises(DownloadError, match=r"1,000,000,000,000\.0 MB are still to come"),
    ):
        fetch(server.url, tmp_path / "digits.bin", checksum=SHA256, size=10**18)
    assert server.seen == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux' device that is always full")
def test_a_full_disk(tmp_path: Path) -> None:
    (tmp_path / "digits.bin.part").symlink_to("/dev/full")
    with serving(serve) as server, pytest.raises(DownloadError, match="the disk is full"):
        fetch(server.url, tmp_path / "digits.bin", checksum=SHA256)
    assert not (tmp_path / "digits.bin").exists() and len(server.seen) == 1


def test_an_impossible_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(DownloadError, match="data"):
        fetch(closed_address(), tmp_path / "data" / "digits.bin", checksum=SHA256)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "file:///etc/hostname", "digits.bin"])
def test_other_urls_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match="neither http nor https"):
        fetch(url, tmp_path / "x", checksum=SHA256)


@pytest.mark.parametrize("checksum", ["", SHA256[7:], "sha1:" + "0" * 40, SHA256[:-1], MD5[:-1] + "g"])
def test_malformed_checksums_are_refused(tmp_path: Path, checksum: str) -> None:
    with pytest.raises(ValueError, match="checksum"):
        fetch(closed_address(), tmp_path / "x", checksum=checksum)


def test_verify(tmp_path: Path) -> None:
    path = tmp_path / "digits.bin"
    path.write_bytes(CONTENT)
    assert verify(path, SHA256) and verify(path, MD5)
    path.write_bytes(CONTENT[:-1])
    assert not verify(path, SHA256) and not verify(path, MD5)


def test_a_bar_on_a_terminal_and_silence_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    for stream, shown in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        with serving(serve) as server:
            fetch(server.url, tmp_path / f"{shown}.bin", checksum=SHA256)
        assert ("300.0/300.0 kB" in stream.getvalue()) == shown == bool(stream.getvalue())


# ---- fetch, in processes of their own


def start_fetch(url: str, path: Path) -> subprocess.Popen[str]:
    """A process that says "ready" and fetches."""
    program = (
        "import sys; from pathlib import Path; from dl_lab.datasets.download import fetch;"
        "print('ready', flush=True); fetch(sys.argv[1], Path(sys.argv[2]), checksum=sys.argv[3])"
    )
    command = [sys.executable, "-W", "error", "-c", program, url, str(path), SHA256]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_two_processes_download_once(tmp_path: Path) -> None:
    path = tmp_path / "digits.bin"
    with serving(hold_back) as server:
        with start_fetch(server.url, path) as first, start_fetch(server.url, path) as second:
            for process in (first, second):
                assert process.stdout is not None and process.stdout.readline() == "ready\n"
            wait_until(lambda: len(server.seen) > 0)
            time.sleep(0.2)  # long enough for the other one to send its request, did it not wait
            server.released.set()
            assert [process.communicate(timeout=WAIT)[0] for process in (first, second)] == ["", ""]
        assert (first.returncode, second.returncode) == (0, 0)
    assert server.seen == [Seen(None, None, len(CONTENT))]
    assert_fetched(path)


def test_a_killed_download_is_continued(tmp_path: Path) -> None:
    path, part = tmp_path / "digits.bin", tmp_path / "digits.bin.part"
    with serving(stall, serve) as server:
        with start_fetch(server.url, path) as process:
            wait_until(lambda: part.exists() and part.stat().st_size > 0)
            process.send_signal(signal.SIGKILL)
            process.communicate(timeout=WAIT)
        assert process.returncode == -signal.SIGKILL and not path.exists()
        held = part.stat().st_size
        assert 0 < held <= HALF
        assert_fetched(fetch(server.url, path, checksum=SHA256))
    assert server.seen[1:] == [Seen(f"bytes={held}-", None, len(CONTENT) - held)]


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def closed_address() -> str:
    """Where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"http://127.0.0.1:{port}/digits.bin"


# ---- extract

FILES = {"train/a.bin": CONTENT[:1000], "train/b.bin": CONTENT[1000:70_000], "labels.txt": b"0 1\n"}


def pack_zip(path: Path, files: dict[str, bytes], kind: int = 0o100644) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = kind << 16
            archive.writestr(member, content)
    return path


def pack_tar(path: Path, files: dict[str, bytes], *links: tarfile.TarInfo) -> Path:
    mode = "w:" + path.suffix[1:].replace("tar", "")
    with tarfile.open(path, mode) as archive:  # pyright: ignore[reportArgumentType, reportCallIssue]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for link in links:
            archive.addfile(link)
    return path


def pack(path: Path, files: dict[str, bytes]) -> Path:
    return pack_zip(path, files) if path.suffix == ".zip" else pack_tar(path, files)


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


ARCHIVES = ["data.zip", "data.tar", "data.tar.gz", "data.tar.bz2", "data.tar.xz"]


def assert_refused(archive: Path, reason: str) -> None:
    """An error that names the archive, and not a trace of what was in it."""
    before = names(archive.parent)
    with pytest.raises(DownloadError, match=reason) as failure:
        extract(archive, archive.parent / "data")
    assert str(archive) in str(failure.value)
    assert names(archive.parent) - before <= {"data.lock"}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_is_unpacked_once(tmp_path: Path, name: str) -> None:
    archive = pack(tmp_path / name, FILES)
    folder = extract(archive, tmp_path / "new" / "data")
    assert {path: (folder / path).read_bytes() for path in FILES} == FILES
    assert names(folder) == {"train", "labels.txt"} and names(folder.parent) == {"data", "data.lock"}
    archive.write_bytes(b"nothing to unpack any more")
    assert extract(archive, folder) == folder


def test_files_of_a_killed_process_are_not_mixed_in(tmp_path: Path) -> None:
    (tmp_path / "data.part").mkdir()
    (tmp_path / "data.part" / "half.bin").write_bytes(b"half")
    (tmp_path / "data").mkdir()  # empty: not yet unpacked
    folder = extract(pack(tmp_path / "data.zip", FILES), tmp_path / "data")
    assert names(folder) == {"train", "labels.txt"} and names(tmp_path) == {"data", "data.lock", "data.zip"}


@pytest.mark.parametrize("name", ARCHIVES)
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_truncated_archive_is_refused(tmp_path: Path, name: str, keep: float) -> None:
    archive = pack(tmp_path / name, FILES)
    content = archive.read_bytes().rstrip(b"\0")  # a .tar ends with zeros: cut into what it holds
    archive.write_bytes(content[: int(keep * len(content))])
    assert_refused(archive, "could not be unpacked")


def test_a_tar_cut_between_two_members_is_refused(tmp_path: Path) -> None:
    archive = pack(tmp_path / "data.tar", FILES)
    archive.write_bytes(archive.read_bytes()[: 512 + 1024])  # the header and the content of the first
    assert_refused(archive, "its end is missing")


@pytest.mark.parametrize("name", ["data.zip", "data.tar.gz", "data.tar.bz2", "data.tar.xz"])
def test_a_flipped_bit_is_noticed(tmp_path: Path, name: str) -> None:
    archive = pack(tmp_path / name, FILES)
    content = bytearray(archive.read_bytes())
    content[len(content) // 2] ^= 1
    archive.write_bytes(content)
    assert_refused(archive, "could not be unpacked")


@pytest.mark.parametrize("name", ["../evil.txt", "train/../../evil.txt", "/evil.txt"])
def test_zip_members_that_leave_are_refused(tmp_path: Path, name: str) -> None:
    assert_refused(pack_zip(tmp_path / "data.zip", FILES | {name: b"evil"}), "would leave the folder")


@pytest.mark.parametrize("kind", [0o120777, 0o020644, 0o010644], ids=["link", "device", "pipe"])
def test_zip_members_of_other_kinds_are_refused(tmp_path: Path, kind: int) -> None:
    assert_refused(pack_zip(tmp_path / "data.zip", {"train": b"/etc"}, kind), "neither a file nor a folder")


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    archive = pack_zip(tmp_path / "data.zip", FILES)
    content = bytearray(archive.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1  # the flag in the directory of the archive
    archive.write_bytes(content.replace(b"PK\3\4\x14\0\0", b"PK\3\4\x14\0\1"))
    assert_refused(archive, "encrypted")


@pytest.mark.parametrize("name", ["../evil.txt", "train/../../evil.txt"])
def test_tar_members_that_leave_are_refused(tmp_path: Path, name: str) -> None:
    assert_refused(pack_tar(tmp_path / "data.tar.gz", FILES | {name: b"evil"}), "outside the destination")


@pytest.mark.parametrize(
    "member",
    [
        special("link", tarfile.SYMTYPE, "/etc"),
        special("link", tarfile.SYMTYPE, "../.."),
        special("link", tarfile.LNKTYPE, "../data.tar"),
        special("zero", tarfile.CHRTYPE),
        special("pipe", tarfile.FIFOTYPE),
    ],
    ids=["absolute link", "link", "hard link", "device", "pipe"],
)
def test_tar_links_that_leave_and_devices_are_refused(tmp_path: Path, member: tarfile.TarInfo) -> None:
    assert_refused(pack_tar(tmp_path / "data.tar", FILES, member), "outside|absolute|special")


def test_a_tar_link_that_stays_is_kept(tmp_path: Path) -> None:
    archive = pack_tar(tmp_path / "data.tar", FILES, special("link", tarfile.SYMTYPE, "labels.txt"))
    assert (extract(archive, tmp_path / "data") / "link").read_bytes() == FILES["labels.txt"]


def test_a_missing_archive_is_one_sentence(tmp_path: Path) -> None:
    for name in ("data.zip", "data.tar"):
        assert_refused(tmp_path / name, "No such file")


def test_a_file_where_the_folder_should_be_is_untouched(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("my own notes")
    assert_refused(pack(tmp_path / "data.zip", FILES), "data")
    assert (tmp_path / "data").read_text() == "my own notes"
