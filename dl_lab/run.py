"""The folder of one execution, and its recorder.

A run folder is readable at every instant: files are written under a temporary name and renamed; `metrics.jsonl`,
`timings.jsonl`, `weights.jsonl`, `losses.f64` and the TensorBoard events only grow, and a resumed run first cuts
them back to where they were at the checkpoint (`Run.positions`, `Run.cut_back`). Imports nothing heavy: reading runs
needs no torch.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import math
import os
import platform
import shlex
import socket
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dl_lab import __version__
from dl_lab.types import Interrupted, Metrics, Pruned, UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
DIFF_LIMIT = 1_000_000
PIECE = 1 << 15  # bytes; for a larger write Linux 6.18 looks for larger free pages: 2.3 ms for 0.9 MB, not 0.4 (ext4)
SECRET_FILES = (
    ":(exclude)*.env",
    ":(exclude)*.pem",
    ":(exclude)*.key",
    ":(exclude)*secret*",
    ":(exclude)*credential*",
)


def write_atomic(path: Path, content: str | bytes, durable: bool = False) -> None:
    """Write under a temporary name, rename: readers, and a kill, find the old file or the whole new one.

    durable: also wait for the disk (5 to 10 ms), for what a power cut must not take: plans and checkpoints. The files
    of a finished run are not waited for: unreadable ones are not "finished", and the checkpoint leads to them again.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with open(temporary, "wb") as file:
            for start in range(0, len(data), PIECE):
                file.write(memoryview(data)[start : start + PIECE])
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"Cannot write {path}: {error.strerror}.") from error


def to_json(value: Any) -> str:
    """Strict JSON on one line: a number that is not finite becomes null."""
    try:
        return _STRICT.encode(value)
    except (TypeError, ValueError):  # there is one, or a key that is no plain value
        return json.dumps(_finite(value), allow_nan=False, default=str)


def to_json_lines(facts: Mapping[str, Any], indent: str = "") -> str:
    """The same for people: an entry per line, also of the mappings in it, what is deeper on its line.

    (json's own indentation is a loop in Python, which took a job of a sweep milliseconds.)
    """
    deeper = f"{indent} "
    entries = [
        f"{deeper}{to_json(str(key))}: "
        + (to_json_lines(item, deeper) if isinstance(item, Mapping) and not indent and item else to_json(item))
        for key, item in facts.items()
    ]
    return "{\n" + ",\n".join(entries) + f"\n{indent}}}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, Sequence) and not isinstance(value, bytes) else str(value)


_STRICT = json.JSONEncoder(allow_nan=False, default=_plain)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_finite(item) for item in value]
    return value


class Board(Protocol):
    """Where a run is looked at (TensorBoard)."""

    def start(self, folder: Path, hparams: Mapping[str, Any], config_text: str) -> None:
        """Before any record: where it goes, and what the session is about."""

    def scalars(self, values: Metrics, step: int) -> None:
        """Values by name at a step."""

    def series(self, name: str, values: Sequence[tuple[int, float]]) -> None:
        """A scalar of many steps at once: (step, value)."""

    def image(self, name: str, png: bytes, step: int) -> None:
        """A PNG."""

    def audio(self, name: str, wav: bytes, sample_rate: int, n_samples: int, step: int) -> None:
        """A WAV."""

    def text(self, name: str, markdown: str, step: int = 0) -> None:
        """Markdown."""

    def embedding(self, name: str) -> None:
        """The vectors and labels that `Run.embedding` has written."""

    def flush(self) -> None:
        """Everything so far to the disk."""

    def finish(self, ok: bool) -> None:
        """The end; ok: whether the run is done."""


class NoBoard(Board):
    """`logger=none`: nothing to look at (the methods of `Board` do nothing)."""


@dataclass
class Run:
    """One execution: its folder, and the ways to record into it.

    `Run.create` makes a new folder (never an old one) and writes config and environment before any work;
    `Run.reopen` continues an interrupted one. Use it as `with run.recording(): ...`.
    """

    folder: Path
    config: dict[str, Any]
    board: Board = field(default_factory=NoBoard)
    resuming: bool = False
    summary: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    on_progress: Callable[[dict[str, Any]], None] = lambda progress: None  # told a few times a second
    on_epoch: Callable[[int, Metrics], None] = lambda epoch, metrics: None  # told each epoch; may raise Pruned
    _writing: threading.Lock = field(default_factory=threading.Lock, repr=False)  # the status: work and heartbeat
    _open: dict[str, io.FileIO] = field(default_factory=dict, repr=False)  # files that only grow, while it records
    _recording: bool = field(default=False, repr=False)

    @classmethod
    def create(
        cls,
        folder: Path,
        files: Mapping[str, str],
        config: dict[str, Any],
        board: Board,
        facts: Mapping[str, Any],
        queued: bool = False,
    ) -> Run:
        """`files`: relative path -> text, written first (config.yaml, .hydra/...). `facts`: contents of env.json.

        queued: it will be run later, by another process; its status says so until then.
        """
        try:
            folder.mkdir(parents=True, exist_ok=False)
        except FileExistsError:
            raise UserError(f"{folder} exists already: a run never writes into an older run's folder.") from None
        except OSError as error:
            raise UserError(f"Cannot create the run folder {folder}: {error.strerror}.") from error
        run = cls(folder, config, board)
        if queued:
            run.set_status("queued")
        for name, text in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            write_atomic(folder / name, text)
        write_atomic(folder / "env.json", to_json_lines({k: v for k, v in facts.items() if k != "diff"}))
        if facts.get("diff"):
            write_atomic(folder / "diff.patch", facts["diff"])
        return run

    @classmethod
    def reopen(cls, folder: Path, config: dict[str, Any], board: Board) -> Run:
        return cls(folder, config, board, resuming=True, status=read_json(folder / "status.json") or {})

    # -- life -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Status running, with a heartbeat, until the block ends: done, interrupted, pruned, failed (and why)."""
        for ended_by in ("error", "reason"):  # of an earlier start
            self.status.pop(ended_by, None)
        stop = threading.Event()
        heart = threading.Thread(target=self._beat, args=(stop,), daemon=True)
        state = "failed"
        try:  # from here on: who sees it run may interrupt it at once
            self.set_status("running", started=now(), pid=os.getpid(), host=socket.gethostname())
            self._recording = True
            heart.start()
            yield
            state = "done"
        except (Interrupted, KeyboardInterrupt):
            state = "interrupted"
            raise
        except Pruned as pruned:
            state, self.status["reason"] = "pruned", str(pruned)
            raise
        except BaseException as error:
            self.status["error"] = {
                "type": type(error).__name__,
                "message": str(error),
                "traceback": "".join(traceback.format_exception(error)),
            }
            raise
        finally:
            stop.set()
            if heart.ident is not None:
                heart.join()
            self._recording = False
            self._close_files()
            with contextlib.suppress(UserError):  # the disk is full: the work itself has said so
                self.board.finish(state == "done")
            self.set_status(state, ended=now())

    def _beat(self, stop: threading.Event) -> None:
        while not stop.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(UserError):  # a full disk is reported by the work itself
                self.set_status("running")

    def set_status(self, state: str, **facts: Any) -> None:
        """Write status.json: queued / running / done / failed / interrupted / pruned."""
        with self._writing:
            self.status = {**self.status, **facts, "state": state, "heartbeat": now()}
            write_atomic(self.folder / "status.json", to_json_lines(self.status))

    def note(self, **facts: Any) -> None:
        """Facts for status.json, from its next writing on: within HEARTBEAT_SECONDS, or at the end."""
        with self._writing:
            self.status = {**self.status, **facts}

    def add_facts(self, **facts: Any) -> None:
        """Add to env.json what only the process of the run can know."""
        known = read_json(self.folder / "env.json") or {}
        if not facts.items() <= known.items():
            write_atomic(self.folder / "env.json", to_json_lines({**known, **facts}))

    def finish(self, metrics: Metrics, **facts: Any) -> None:
        """Write summary.json: the final metrics and what they rest on."""
        self.summary = {**self.summary, **facts, "metrics": metrics}
        write_atomic(self.folder / "summary.json", to_json_lines(self.summary))

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[Run]:
        """The recorder of one of several fits: a subfolder with metrics, checkpoints, figures and a board of its own.

        It has no status: that is this run's. A part whose summary is there already is finished.
        """
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        part = Run(folder, self.config, type(self.board)(), self.resuming, on_progress=self.on_progress)
        part.summary = read_json(folder / "summary.json") or {}
        part.board.start(folder, {}, name)
        part._recording, ok = True, False
        try:
            yield part
            ok = True
        finally:
            part._recording = False
            part._close_files()
            part.board.finish(ok)

    # -- records ----------------------------------------------------------------------------------------------

    def log(self, metrics: Metrics, step: int, epoch: int, timings: Metrics | None = None) -> None:
        """Append one record; values go to metrics.jsonl, what depends on the machine's speed to timings.jsonl."""
        self.append("metrics.jsonl", {"epoch": epoch, "step": step, **metrics})
        if timings:
            self.append("timings.jsonl", {"epoch": epoch, "step": step, "time": now(), **timings})
        self.board.scalars({**metrics, **{f"speed/{name}": value for name, value in (timings or {}).items()}}, step)

    def append(self, name: str, record: Mapping[str, Any]) -> None:
        """Append one record to a file that only grows; it ends in .jsonl."""
        self._grow(name, (to_json(record) + "\n").encode())

    def _grow(self, name: str, data: bytes) -> None:
        """Append to a file, which stays open until the recording ends (opening costs more); nothing is held back."""
        try:
            if name not in self._open:
                self._open[name] = io.FileIO(self.folder / name, "a")
            while data:
                data = data[self._open[name].write(data) :]
        except OSError as error:
            raise UserError(f"Cannot write {self.folder / name}: {error.strerror}.") from error
        finally:
            if not self._recording:
                self._close_files()

    def _close_files(self) -> None:
        while self._open:
            self._open.popitem()[1].close()

    def losses(self, values: Sequence[float]) -> None:
        """Append the losses of the next updates to losses.f64 (8 bytes each): what `dl-lab verify` compares with."""
        self._grow("losses.f64", struct.pack(f"<{len(values)}d", *values))

    def fingerprints(self, step: int, weights: Mapping[str, str]) -> None:
        """Append the fingerprint of every weight after `step` updates to weights.jsonl, for `dl-lab verify`."""
        self.append("weights.jsonl", {"step": step, "crc32c": weights})

    def records(self, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
        return read_records(self.folder / name)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> Path:
        """Save rows as tables/<name>.csv."""
        import csv

        (self.folder / "tables").mkdir(exist_ok=True)
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows(rows)
        path = self.folder / "tables" / f"{name}.csv"
        write_atomic(path, text.getvalue())
        return path

    def facts(self, name: str, values: Mapping[str, Any]) -> Path:
        """Save <name>.json in the run folder: plain values that belong to the run."""
        path = self.folder / f"{name}.json"
        write_atomic(path, to_json_lines(values))
        return path

    def figure(self, name: str, figure: Figure, rows: Sequence[Mapping[str, Any]], step: int = 0) -> Path:
        """Save figures/<name>.png with the rows behind it (tables/<name>.csv), and show it on the board."""
        (self.folder / "figures").mkdir(exist_ok=True)
        self.table(name, rows)
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=120)
        path = self.folder / "figures" / f"{name}.png"
        write_atomic(path, image.getvalue())
        self.board.image(name, image.getvalue(), step)
        return path

    def embedding(self, name: str, vectors: Sequence[Sequence[float]], labels: Sequence[str]) -> None:
        """Save vectors with a label each as projector/<name>.tsv and <name>_labels.tsv, and show them on the board."""
        folder, blanks = self.folder / "projector", str.maketrans("\t\r\n", "   ")
        folder.mkdir(exist_ok=True)
        lines = ["\t".join(f"{value:.6g}" for value in vector) for vector in vectors]
        write_atomic(folder / f"{name}.tsv", "\n".join([*lines, ""]))
        write_atomic(folder / f"{name}_labels.tsv", "\n".join([*(label.translate(blanks) for label in labels), ""]))
        self.board.embedding(name)

    def audio(self, name: str, samples: Any, sample_rate: int, step: int = 0) -> Path:
        """Save audio/<name>.wav (16 bit) of samples (n,) in [-1, 1], louder ones clipped, and play it on the board."""
        import soundfile

        (self.folder / "audio").mkdir(exist_ok=True)
        wav = io.BytesIO()
        soundfile.write(wav, samples, sample_rate, format="WAV", subtype="PCM_16")
        path = self.folder / "audio" / f"{name}.wav"
        write_atomic(path, wav.getvalue())
        self.board.audio(name, wav.getvalue(), sample_rate, len(samples), step)
        return path

    # -- exact continuation -----------------------------------------------------------------------------------

    def positions(self) -> dict[str, int]:
        """The sizes of all files that only grow, flushed: a checkpoint keeps them."""
        self.board.flush()
        return {path.name: path.stat().st_size for path in self._growing()}

    def cut_back(self, positions: Mapping[str, int]) -> None:
        """Undo what was recorded after a checkpoint, so that nothing is lost or recorded twice."""
        self._close_files()
        for path in self._growing():
            if path.name not in positions:
                path.unlink()
            elif path.stat().st_size > positions[path.name]:
                os.truncate(path, positions[path.name])

    def _growing(self) -> list[Path]:
        return [*self.folder.glob("*.jsonl"), *self.folder.glob("*.f64"), *self.folder.glob("events.out.tfevents.*")]


# -- reading ------------------------------------------------------------------------------------------------------


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where it is missing or unreadable."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a .jsonl file; a last line cut short by a kill is left out."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def read_losses(folder: Path) -> list[float]:
    """The loss of every update, in order; [] where none were recorded."""
    try:
        data = (folder / "losses.f64").read_bytes()
    except OSError:
        return []
    return [value for (value,) in struct.iter_unpack("<d", data[: len(data) // 8 * 8])]


def state_of(folder: Path) -> str:
    """The state in status.json, where a run that says "running" but whose process is gone is "killed"."""
    status = read_json(folder / "status.json")
    if status is None:
        return "unreadable"
    state = status.get("state", "unreadable")
    if state in ("running", "queued") and "pid" in status and not is_alive(status):
        return "killed"
    return state


def is_alive(status: Mapping[str, Any]) -> bool:
    """Whether the process of a status beats: by its pid on this machine, elsewhere by the heartbeat's age."""
    if status.get("host") == socket.gethostname():
        return _process_exists(int(status["pid"]))
    age = datetime.now(UTC) - datetime.fromisoformat(status["heartbeat"])
    return age.total_seconds() < STALE_SECONDS


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError):  # a killed process that nobody waited for is gone all the same
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return True


def find_runs(outputs: Path) -> list[Path]:
    """All run folders under `outputs`, oldest first."""
    found = [path.parent for path in outputs.glob("**/status.json")] if outputs.exists() else []
    return sorted(found, key=lambda folder: (folder / "status.json").parent.stat().st_ctime)


def find_run(text: str, outputs: Path) -> Path:
    """The run that `text` names: a folder, or the (start of the) id at the end of a folder's name, or "last"."""
    if (Path(text) / "status.json").exists():
        return Path(text)
    if Path(text).is_dir():
        raise UserError(f"{text} is not a run's folder: it has no status.json.")
    runs = find_runs(outputs)
    if text == "last" and runs:
        return runs[-1]
    found = [folder for folder in runs if folder.name.rpartition("_")[2].startswith(text)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{text!r} fits {len(found)} runs: {', '.join(map(str, found[:4]))} ...")
    raise UserError(
        f"No run {text!r} under {outputs}: give its folder or the id at the end of its name (see `dl-lab runs`)."
    )


# -- environment --------------------------------------------------------------------------------------------------


def describe_environment(command: Sequence[str]) -> dict[str, Any]:
    """What a result rests on beside its config: the command, code state, packages and machine."""
    return {
        "dl_lab": __version__,
        "command": shlex.join(command),
        "folder": str(Path.cwd()),
        "time": now(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "packages": _packages(),
        **_git_state(),
    }


def describe_devices() -> dict[str, Any]:
    """Torch, CUDA and the GPUs; only what has imported torch may ask."""
    import torch

    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "gpus": _gpus(),
        "tf32": _tf32(),
        "threads": torch.get_num_threads(),
    }


@functools.cache  # asking takes milliseconds
def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def _tf32() -> str:
    """Which float32 operations a GPU may round to TF32 (10 bits of mantissa), by torch's settings and the driver's."""
    import torch

    if os.environ.get("NVIDIA_TF32_OVERRIDE") == "0":
        return "off (NVIDIA_TF32_OVERRIDE=0)"
    allowed = {
        "matrix products": torch.backends.cuda.matmul.fp32_precision,
        "convolutions": torch.backends.cudnn.conv.fp32_precision,  # pyright: ignore[reportAttributeAccessIssue]
    }
    return ", ".join(name for name, precision in allowed.items() if precision == "tf32") or "off"


def _packages() -> dict[str, str]:
    """Installed packages by the names of their metadata folders (reading each one's metadata is slow)."""
    folders = [path for entry in sys.path if entry for path in Path(entry).glob("*.dist-info")]
    return dict(sorted(folder.name.removesuffix(".dist-info").rsplit("-", 1) for folder in folders))  # type: ignore[misc]


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _git_state() -> dict[str, Any]:
    """SHA and uncommitted difference of the repository the command was typed in, if it is one."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=20, check=False)
        return done.stdout if done.returncode == 0 else ""

    try:
        sha = git("rev-parse", "HEAD").strip()
        if not sha:
            return {"git": None}
        diff = git("diff", "HEAD", "--", ".", *SECRET_FILES)
    except (OSError, subprocess.TimeoutExpired):
        return {"git": None}
    if len(diff) > DIFF_LIMIT:
        diff = diff[:DIFF_LIMIT] + f"\n# cut after {DIFF_LIMIT} of {len(diff)} characters\n"
    return {"git": {"sha": sha, "dirty": bool(diff)}, "diff": diff}
