"""The plan of a sweep: its jobs and its folder. It is written before the first job starts.

A sweep's folder holds sweep.yaml (the command, the grid, every job), configs.jsonl (each job's frozen config),
results.csv, and one run folder for each job, `<number>_<id>`.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

import yaml
from filelock import BaseFileLock, FileLock, Timeout

from dl_lab import keys
from dl_lab.runs.files import now, read_json, to_json, write_atomic
from dl_lab.runs.find import state_of
from dl_lab.sweeps.plan_file import Entry
from dl_lab.sweeps.values import as_mapping
from dl_lab.types import UserError

Action = Literal["run", "skip", "resume", "retry", "leave", "take"]
LOCK = ".lock"  # of a sweep's folder, and of the folder of all sweeps
RUNS = ("run", "resume", "retry")  # the actions of jobs that will run
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass
class Job:
    """One job: what varies, its frozen config, and what is to happen to it.

    Attributes:
        number: Its number in the sweep, from 0.
        id: Equal for jobs that give the same result.
        overrides: The words that vary.
        config: Its resolved config.
        choices: The chosen option of each config group.
        data: The digest of its data files.
        own: The digest of the user's own code that it runs.
        facts: Further facts for env.json: its own code and its data, file by file.
        action: What is to happen to it.
        reason: Why.
        taken: The finished run of the same job from which it is taken.
        estimate: How long it should take, in seconds; None where no earlier run tells.
        files: Further files of its run folder: name -> text.
        added: Another terminal added it while the sweep ran.
    """

    number: int
    id: str
    overrides: list[str]
    config: dict[str, object]
    choices: dict[str, str]
    data: str = ""
    own: str = ""
    facts: dict[str, dict[str, str]] = field(default_factory=dict)
    action: Action = "run"
    reason: str = ""
    taken: Path | None = None
    estimate: float | None = None
    files: dict[str, str] = field(default_factory=dict)
    added: bool = False

    @property
    def name(self) -> str:
        """The name of its run folder."""
        return f"{self.number}_{self.id}"

    def entry(self) -> Entry:
        """Return what sweep.yaml says about the job."""
        entry: Entry = {"number": self.number, "id": self.id, "overrides": self.overrides, "data": self.data}
        if self.own:
            entry["own"] = self.own
        if self.added:
            entry["added"] = True
        return entry


@dataclass
class Sweep:
    """A sweep and its folder.

    Attributes:
        folder: The sweep's folder.
        key: See `sweep_key`.
        command: What the user typed.
        code: The digest of dl-lab's code at the sweep's start.
        jobs: The jobs.
        fixed: The overrides of every job.
        notes: What happened to the sweep, for sweep.yaml, one sentence each.
        remarks: What the plan on the screen says about this start, one sentence each.
        respelt: Jobs that do not run because they are other spellings of jobs that do.
        replicates: Keys that repeat a setting, as seeds do.
        search: For a search: space, sampler, pruner and objective.
        held: The lock of the folder; None while this process does not hold it.
    """

    folder: Path
    key: str
    command: str
    code: str
    jobs: list[Job]
    fixed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    respelt: list[Job] = field(default_factory=list)
    replicates: list[str] = field(default_factory=list)
    search: dict[str, object] = field(default_factory=dict)
    held: BaseFileLock | None = None
    _written_at: float = 0.0  # when results.csv was last written
    _rows: dict[int, dict[str, object]] = field(default_factory=dict)  # of results.csv, by the job's number

    def try_lock(self) -> bool:
        """Hold the folder until the process ends; False where another process holds it."""
        if self.held is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.held = hold(self.folder)
        return self.held is not None

    def lock(self, advice: str = "") -> None:
        """Hold the folder until the process ends.

        Args:
            advice: What the message adds where another process holds it.

        Raises:
            UserError: Another process holds it.
        """
        if not self.try_lock():
            raise UserError(f"Another process is running this sweep now, in {self.folder}.{advice}")

    @contextlib.contextmanager
    def clean_up_after_failure(self) -> Iterator[None]:
        """Remove the locked folder again where the block raises before the plan is written."""
        try:
            yield
        except BaseException:
            if self.held is not None and not (self.folder / "sweep.yaml").exists():
                (self.folder / LOCK).unlink(missing_ok=True)
                self.held.release()
                self.held = None
                with contextlib.suppress(OSError):  # other files in it are not ours
                    self.folder.rmdir()
            raise

    def write(self) -> None:
        """Write the whole plan (configs.jsonl and sweep.yaml) before anything starts."""
        lines = [_freeze(job) for job in self.jobs]
        write_atomic(self.folder / "configs.jsonl", "".join(lines), durable=True)
        self._write_plan()

    def add(self, *jobs: Job) -> None:
        """Write further jobs into the plan, before they start."""
        self.jobs.extend(jobs)
        with open(self.folder / "configs.jsonl", "a", encoding="utf-8") as file:
            file.writelines(_freeze(job) for job in jobs)
        self._write_plan()

    def _write_plan(self) -> None:
        plan: dict[str, object] = {
            "key": self.key,
            "command": self.command,
            "written": now(),
            "code": self.code,
            "fixed": self.fixed,
            "notes": self.notes,
        }
        if self.replicates:
            plan["replicates"] = self.replicates
        if self.search:
            plan["search"] = self.search
        plan["jobs"] = [job.entry() for job in self.jobs]
        write_atomic(self.folder / "sweep.yaml", yaml.dump(plan, Dumper=DUMPER, sort_keys=False), durable=True)

    def note_result(self) -> None:
        """Write results.csv again, at most once a second."""
        if time.monotonic() - self._written_at > 1:
            self.write_results()
            self._written_at = time.monotonic()

    def write_results(self) -> Path:
        """Write results.csv: one row for each finished job, the keys that vary first.

        Returns:
            The file.
        """
        for job in self.jobs:
            if job.number in self._rows:
                continue
            summary = read_json(self.folder / job.name / "summary.json")
            if summary is not None and state_of(self.folder / job.name) == "done":
                varying = as_mapping(job.overrides)
                self._rows[job.number] = {"job": job.number, "id": job.id, **varying, **summary.get("metrics", {})}
        rows = [self._rows[job.number] for job in self.jobs if job.number in self._rows]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows(rows)
        path = self.folder / "results.csv"
        write_atomic(path, text.getvalue())
        return path


def _freeze(job: Job) -> str:
    """Write a job as a line of configs.jsonl."""
    return to_json({"number": job.number, "choices": job.choices, "config": job.config}) + "\n"


def sweep_key(fixed: Sequence[str], varying: Sequence[str]) -> str:
    """Compute the key of a sweep, which is the same when the command is typed again.

    Args:
        fixed: The overrides that all jobs share. Those that say where or how the sweep runs do not count.
        varying: The names of the keys that vary.
    """
    kept = sorted(word for word in fixed if keys.counts(keys.of_word(word)).same_sweep)
    return hashlib.sha256(json.dumps([kept, sorted(varying)]).encode()).hexdigest()[:8]


def of_jobs(fixed: Sequence[str]) -> list[str]:
    """Return the fixed overrides that a job needs when it is repeated alone: not those that say how the sweep runs."""
    return [word for word in fixed if not keys.counts(keys.of_word(word)).sweep_only]


# -- its folder -----------------------------------------------------------------------------------------------------


def hold(folder: Path) -> BaseFileLock | None:
    """Lock a sweep's folder until the process ends. Return None where another process holds it."""
    lock = FileLock(folder / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        return None
    return lock


@contextlib.contextmanager
def look_alone(root: Path) -> Iterator[None]:
    """Let one process at a time look for the folder of its sweep, and make one.

    Otherwise two terminals that start the same new sweep at the same moment would make a folder each.

    Args:
        root: The folder of all sweeps.

    Raises:
        UserError: Nothing can be written there.
    """
    lock = FileLock(root / LOCK)
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise UserError(f"Cannot write into the folder of sweeps, {root}: {error.strerror}.") from error
    try:
        yield
    finally:
        lock.release()


def new_folder(root: Path, key: str) -> Path:
    """Make a new folder, root/<date>/<time>_<key>, with a number behind it where that one exists.

    Args:
        root: The folder of all sweeps.
        key: The sweep's key.

    Raises:
        UserError: The folder cannot be made.
    """
    at = datetime.now()
    base = root / f"{at:%Y-%m-%d}" / f"{at:%H-%M-%S}_{key}"
    for i in range(1000):
        folder = base.with_name(f"{base.name}-{i}") if i else base
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"Cannot create the sweep folder {folder}: {error.strerror}.") from error
        return folder
    raise UserError(f"{base} exists a thousand times.")


def link_taken(folder: Path, jobs: Sequence[Job]) -> None:
    """Link the folder of each taken job to the run from which it is taken.

    Links are relative, so that a folder of outputs can be moved as a whole. A link whose run is gone is removed.

    Args:
        folder: The sweep's folder.
        jobs: Jobs of the sweep.
    """
    for job in jobs:
        link = folder / job.name
        if link.is_symlink() and not link.exists():
            link.unlink()
        if job.taken is not None:
            link.symlink_to(os.path.relpath(job.taken.resolve(), folder.resolve()), target_is_directory=True)


def set_aside(folder: Path) -> None:
    """Move the folder of an earlier try out of the way: nothing is ever overwritten.

    Args:
        folder: The folder. It moves into the folder `set_aside` beside it.
    """
    for i in range(1, 1000):
        target = folder.parent / "set_aside" / f"{folder.name}-{i}"
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            os.replace(folder, target)
            return
