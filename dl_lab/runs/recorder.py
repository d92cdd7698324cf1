"""The folder of one execution, and its recorder.

A run folder is readable at every instant. Most files are written under a temporary name and renamed. `metrics.jsonl`,
`timings.jsonl`, `weights.jsonl`, `losses.f64` and the TensorBoard events only grow: a resumed run first cuts them back
to their lengths at the checkpoint (`Run.positions`, `Run.cut_back`). This module imports no torch.

Long because a run has one recorder, with a short method for each kind of record.
"""

from __future__ import annotations

import contextlib
import io
import math
import operator
import os
import shlex
import socket
import struct
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dl_lab.runs.board import Board, NoBoard
from dl_lab.runs.figures import render
from dl_lab.runs.files import as_numbers, check_name, now, read_json, read_records, to_json, write_atomic
from dl_lab.runs.formats import FORMAT, refuse_newer
from dl_lab.types import Interrupted, Metrics, Progress, Pruned, UserError, as_metrics

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


HEARTBEAT_SECONDS = 10.0
OWN_RECORDS = ("metrics.jsonl", "timings.jsonl", "weights.jsonl")
OWN_FACTS = ("env", "plan", "status", "summary")  # .json files in run and sweep folders that are dl-lab's own


@dataclass
class Run:
    """One execution: its folder, and the ways to record into it.

    `Run.create` makes a new folder and writes config and environment before any work. `Run.reopen` continues an
    interrupted run. The work happens in a block `with run.recording(): ...`.

    Attributes:
        folder: The folder.
        config: The resolved config.
        board: The logger.
        resuming: Whether the run continues an interrupted one.
        summary: The content of summary.json.
        status: The content of status.json.
        on_progress: Called a few times a second.
        on_epoch: Called with the metrics of each epoch. It may raise `Pruned`.
        whole: The run that this one is a part of.
        begun: Whether the work itself has begun (see `begin`).
        read_epoch: Returns the number of epochs so far, where a trainer counts them.
    """

    folder: Path
    config: dict[str, Any]
    board: Board = field(default_factory=NoBoard)
    resuming: bool = False
    summary: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    on_progress: Callable[[Progress], None] = lambda progress: None
    on_epoch: Callable[[int, Metrics], None] = lambda epoch, metrics: None
    whole: Run | None = None
    begun: bool = False
    read_epoch: Callable[[], float] | None = None
    # Held while status.json is written: the work and the heartbeat both write it.
    _status_lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    # The files that only grow. They stay open while the run records.
    _open: dict[str, io.FileIO] = field(default_factory=dict, repr=False)
    _recording: bool = field(default=False, repr=False)

    @classmethod
    def create(
        cls,
        folder: Path,
        files: Mapping[str, str],
        config: dict[str, Any],
        board: Board,
        facts: Mapping[str, object],
        queued: bool = False,
    ) -> Run:
        """Make the folder of a new run.

        Args:
            folder: The folder. It must not exist.
            files: Relative path -> text, written first (config.yaml, .hydra/...).
            config: The resolved config.
            board: The logger.
            facts: The content of env.json; "diff" becomes diff.patch.
            queued: Another process will execute the run later. Until then its status is "queued".

        Raises:
            UserError: The folder exists, or it cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=False)
        except FileExistsError:
            message = f"{folder} exists already: a run never writes into an older run's folder."
            if (folder / "status.json").exists():
                message += f" To continue that run: dl-lab resume {shlex.quote(str(folder))}"
            raise UserError(message) from None
        except OSError as error:
            raise UserError(f"Cannot create the run folder {folder}: {error.strerror}.") from error
        run = cls(folder, config, board)
        if queued:
            run.set_status("queued")
        for name, text in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            write_atomic(folder / name, text)
        environment = dict(facts)
        diff = environment.pop("diff", None)
        write_atomic(folder / "env.json", to_json(environment, indent=1))
        if isinstance(diff, str) and diff:
            write_atomic(folder / "diff.patch", diff)
        return run

    @classmethod
    def reopen(cls, folder: Path, config: dict[str, Any], board: Board) -> Run:
        """Continue in the folder of an interrupted run. This removes half-written files of its killed process.

        Raises:
            UserError: A newer dl-lab wrote the folder.
        """
        status = read_json(folder / "status.json") or {}
        refuse_newer(folder, status)
        for leftover in folder.rglob(".*.tmp"):
            leftover.unlink(missing_ok=True)
        return cls(folder, config, board, resuming=True, status=status)

    # -- life -------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Keep the status "running", with a heartbeat, while the block runs; then write how the run ended.

        The final state is done, interrupted, pruned or failed. A resumed run that ends before its work begins (`begin`)
        gets its old status back.
        """
        before = dict(self.status)
        for old in ("error", "reason"):  # of an earlier start
            self.status.pop(old, None)
        stop = threading.Event()
        heart = threading.Thread(target=self._beat, args=(stop,), daemon=True)
        state = "failed"
        try:  # the status goes inside: whoever sees the run may interrupt it at once
            self.set_status("running", started=now(), pid=os.getpid(), host=socket.gethostname())
            self._recording = True
            heart.start()
            yield
            state = "done"
        except (Interrupted, KeyboardInterrupt):
            state = "interrupted"
            raise
        except Pruned as pruned:
            state = "pruned"
            self.status["reason"] = str(pruned)
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
            with contextlib.suppress(UserError):  # the disk is full: the work itself has reported it
                self.board.finish(state == "done")
            if self.resuming and not self.begun and state != "done":
                self.status = before
                write_atomic(self.folder / "status.json", to_json(before, indent=1))
            else:
                self.set_status(state, ended=now())

    def begin(self) -> None:
        """Note that the work itself begins: all parts are built, and a checkpoint is restored where there is one."""
        self.begun = True
        if self.whole is not None:
            self.whole.begin()

    def _beat(self, stop: threading.Event) -> None:
        while not stop.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(UserError):  # the disk is full: the work itself reports it
                self.set_status("running")

    def set_status(self, state: str, **facts: object) -> None:
        """Write status.json.

        Args:
            state: "queued", "running", "done", "failed", "interrupted" or "pruned".
            facts: Other entries of the file.
        """
        with self._status_lock:
            self.status = {**self.status, **facts, "format": FORMAT, "state": state, "heartbeat": now()}
            write_atomic(self.folder / "status.json", to_json(self.status, indent=1))

    def note(self, **facts: object) -> None:
        """Add facts to status.json when it is next written: within HEARTBEAT_SECONDS, or at the end."""
        with self._status_lock:
            self.status = {**self.status, **facts}

    def add_facts(self, **facts: object) -> None:
        """Add facts to env.json that only the process of the run can know."""
        known = read_json(self.folder / "env.json") or {}
        if not facts.items() <= known.items():
            write_atomic(self.folder / "env.json", to_json({**known, **facts}, indent=1))

    def finish(self, metrics: Metrics, **facts: object) -> None:
        """Write summary.json: the final metrics, and the facts that they depend on.

        JSON has no number that is not finite. Such a metric is null there, and "not_finite" says what it was.

        Raises:
            UserError: A metric has no text as its name, or is no number.
        """
        metrics = as_metrics(metrics)
        self.summary = {**self.summary, **facts, "metrics": metrics}
        self.summary.pop("not_finite", None)
        if not_finite := not_finite_metrics(metrics):
            self.summary["not_finite"] = not_finite
        write_atomic(self.folder / "summary.json", to_json(self.summary, indent=1))

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[Run]:
        """Record one of several fits: a subfolder with metrics, checkpoints, figures and a logger of its own.

        A part has no status of its own. A part that has a summary is finished.

        Args:
            name: The name of the subfolder.

        Yields:
            The recorder of the part.

        Raises:
            UserError: The name leads out of the run's folder. The other methods refuse such names, too.
        """
        check_name(name)
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        part = Run(folder, self.config, self.board.another(), self.resuming, on_progress=self.on_progress, whole=self)
        part.summary = read_json(folder / "summary.json") or {}
        part.board.start(folder, {}, name)
        part._recording = True
        ok = False
        try:
            yield part
            ok = True
        finally:
            part._recording = False
            part._close_files()
            part.board.finish(ok)

    # -- records ----------------------------------------------------------------------------------------------

    def log(self, metrics: Metrics, step: int, epoch: float | None = None, timings: Metrics | None = None) -> None:
        """Append one record.

        Args:
            metrics: The values, for metrics.jsonl. They do not depend on the machine's speed.
            step: The number of updates so far.
            epoch: The number of epochs so far; by default that of the trainer. A loop without a trainer and without
                epochs leaves it out, too: each step counts as one.
            timings: Seconds and rates, for timings.jsonl.

        Raises:
            UserError: A metric has no text as its name, or is no number, or is called step or epoch. The step is no
                whole number.
        """
        metrics = as_metrics(metrics)
        for name in ("step", "epoch"):
            if name in metrics:
                raise UserError(f"A metric cannot be called {name}. Give it beside them: run.log(metrics, {name}=...).")
        try:
            step = operator.index(step)
        except TypeError:
            raise UserError(f"The step of run.log must be a whole number, not {step!r:.60}.") from None
        if epoch is None:
            epoch = self.read_epoch() if self.read_epoch else step
        self._append("metrics.jsonl", {"epoch": epoch, "step": step, **metrics})
        shown = dict(metrics)
        if timings:
            self._append("timings.jsonl", {"epoch": epoch, "step": step, "time": now(), **timings})
            shown |= {f"speed/{name}": value for name, value in timings.items()}
        self.board.scalars(shown, step)

    def append(self, name: str, *records: Mapping[str, object]) -> None:
        """Append records to a file that only grows, all in one piece. Its name ends in .jsonl.

        Raises:
            UserError: The name ends otherwise: a resumed run would not cut such a file back to its checkpoint. Or it is
                the name of a file that dl-lab itself writes.
        """
        check_name(name)
        others = [record for record in records if not isinstance(record, Mapping)]
        if not name.endswith(".jsonl") or others or not records:
            given = [*others, *records, None][0]
            raise UserError(
                f"run.append takes the name of a .jsonl file and a dictionary, not {name!r} and {given!r:.40}."
            )
        if name in OWN_RECORDS:
            raise UserError(f"dl-lab itself writes {name}: give your records another name, or use run.log.")
        self._append(name, *records)

    def _append(self, name: str, *records: Mapping[str, object]) -> None:
        self._grow(name, "".join(to_json(record) + "\n" for record in records).encode())

    def _grow(self, name: str, data: bytes) -> None:
        """Append to a file without buffering. It stays open while the run records, because opening costs more."""
        self.begin()
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
        """Append the losses of the next updates to losses.f64 (8 bytes each), for `dl-lab verify`."""
        self._grow("losses.f64", struct.pack(f"<{len(values)}d", *values))

    def fingerprints(self, step: int, weights: Mapping[str, str]) -> None:
        """Append the fingerprint of every weight after `step` updates to weights.jsonl, for `dl-lab verify`."""
        self._append("weights.jsonl", {"step": step, "crc32c": weights})

    def records(self, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
        """Read the records of a file that only grows."""
        return read_records(self.folder / name)

    def table(self, name: str, rows: Iterable[Mapping[str, object]]) -> Path:
        """Save rows as tables/<name>.csv.

        Raises:
            UserError: The rows are no list of dictionaries.
        """
        import csv

        check_name(name)
        found = list(rows)  # a generator can be read only once
        if hasattr(rows, "to_dict") or not all(isinstance(row, Mapping) for row in found):
            hint = ": of a data frame, table.to_dict('records')" if hasattr(rows, "to_dict") else ""
            raise UserError(f"The rows of the table {name} must be a list of dictionaries, one for each row{hint}.")
        (self.folder / "tables").mkdir(exist_ok=True)
        columns = list(dict.fromkeys(key for row in found for key in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows({key: as_numbers(value) for key, value in row.items()} for row in found)
        path = self.folder / "tables" / f"{name}.csv"
        write_atomic(path, text.getvalue())
        return path

    def facts(self, name: str, values: Mapping[str, object]) -> Path:
        """Save plain values as <name>.json in the run folder.

        Raises:
            UserError: dl-lab itself writes a file of that name.
        """
        check_name(name)
        if name in OWN_FACTS:
            raise UserError(f"dl-lab itself writes {name}.json: give your facts another name.")
        path = self.folder / f"{name}.json"
        write_atomic(path, to_json(values, indent=1))
        return path

    def figure(self, name: str, figure: Figure, rows: Iterable[Mapping[str, object]], step: int = 0) -> Path:
        """Save a figure as figures/<name>.png and .svg and its rows as tables/<name>.csv, and show it on the board.

        Raises:
            UserError: It is no figure of matplotlib, or the rows are no list of dictionaries.
        """
        check_name(name)
        if not hasattr(figure, "savefig"):
            raise UserError(f"The figure {name} must be a matplotlib Figure, not {type(figure).__name__}.")
        (self.folder / "figures").mkdir(exist_ok=True)
        self.table(name, rows)
        png, svg = render(figure)
        path = self.folder / "figures" / f"{name}.png"
        write_atomic(path, png)
        write_atomic(path.with_suffix(".svg"), svg)
        self.board.image(name, png, step)
        return path

    def embedding(self, name: str, vectors: Sequence[Sequence[float]], labels: Sequence[str]) -> None:
        """Save vectors with a label each as projector/<name>.tsv and <name>_labels.tsv, and show them on the board.

        Raises:
            UserError: There are not as many labels as vectors.
        """
        check_name(name)
        if len(vectors) != len(labels):
            raise UserError(f"The embedding {name} has {len(vectors)} vectors and {len(labels)} labels.")
        folder = self.folder / "projector"
        folder.mkdir(exist_ok=True)
        lines = ["\t".join(f"{value:.6g}" for value in vector) for vector in vectors]
        write_atomic(folder / f"{name}.tsv", "\n".join([*lines, ""]))
        blanks = str.maketrans("\t\r\n", "   ")
        names = [str(label).translate(blanks) for label in labels]
        write_atomic(folder / f"{name}_labels.tsv", "\n".join([*names, ""]))
        self.board.embedding(name)

    def audio(self, name: str, samples: NDArray[np.floating], sample_rate: int, step: int = 0) -> Path:
        """Save a sound as audio/<name>.wav (16 bit), and play it on the board.

        Args:
            name: The name of the file.
            samples: The sound (n,) in [-1, 1]. Louder samples are clipped.
            sample_rate: Samples a second.
            step: The number of updates so far.

        Raises:
            UserError: The sound has more than one channel.
        """
        import numpy as np
        import soundfile

        check_name(name)
        samples = np.asarray(samples)
        if samples.ndim != 1:
            raise UserError(f"The sound {name} must have the shape (n,), one channel, not {tuple(samples.shape)}.")
        (self.folder / "audio").mkdir(exist_ok=True)
        wav = io.BytesIO()
        soundfile.write(wav, samples, sample_rate, format="WAV", subtype="PCM_16")
        path = self.folder / "audio" / f"{name}.wav"
        write_atomic(path, wav.getvalue())
        self.board.audio(name, wav.getvalue(), sample_rate, len(samples), step)
        return path

    # -- exact continuation -----------------------------------------------------------------------------------

    def positions(self) -> dict[str, int]:
        """Flush the files that only grow, and return their sizes. A checkpoint keeps them."""
        self.board.flush()
        return {path.name: path.stat().st_size for path in self._growing_files()}

    def checkpoint(self, state: Mapping[str, object]) -> None:
        """Write a checkpoint of a user's own loop, with the random states and the lengths of all records.

        Args:
            state: What the loop needs to continue: tensors and plain values, in dictionaries and lists.

        Raises:
            UserError: The state is no dictionary, or a checkpoint cannot hold a part of it.
        """
        from dl_lab.runs import checkpoints

        if not isinstance(state, Mapping):
            kind = type(state).__name__
            raise UserError(f"run.checkpoint takes a dictionary, such as {{'model': model.state_dict()}}, not {kind}.")
        checkpoints.save_own(self.folder / "checkpoints", state, self.positions())

    def restore(self) -> dict[str, Any] | None:
        """Return the state of the last checkpoint of a resumed run; None where the loop begins.

        This removes the records after the checkpoint, and sets the random generators to their states at the checkpoint.
        """
        from dl_lab.runs import checkpoints

        if not self.resuming:
            return None
        state, positions = checkpoints.load_own(self.folder / "checkpoints")
        self.cut_back(positions)
        return state

    def cut_back(self, positions: Mapping[str, int]) -> None:
        """Remove the records after a checkpoint, so that nothing is lost or recorded twice.

        Args:
            positions: The lengths of the files at the checkpoint, by name.
        """
        self._close_files()
        for path in self._growing_files():
            if path.name not in positions:
                path.unlink()
            elif path.stat().st_size > positions[path.name]:
                os.truncate(path, positions[path.name])

    def _growing_files(self) -> list[Path]:
        patterns = ("*.jsonl", "*.f64", "events.out.tfevents.*", "scalars.csv")
        return [path for pattern in patterns for path in self.folder.glob(pattern)]


def not_finite_metrics(metrics: Mapping[str, object]) -> dict[str, str]:
    """Return the metrics that are not finite, each as "nan", "inf" or "-inf": {"val/loss": "nan"}."""
    found = {}
    for name, value in metrics.items():
        if isinstance(value, float) and not math.isfinite(value):
            found[name] = str(value)
    return found
