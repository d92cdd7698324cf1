"""Jobs of a sweep on a cluster: what its engines (SLURM, Ray) have in common.

The sweep's process makes each job's run folder and hands its path to the engine; on a node, `supervise` runs it in an
interpreter of its own. What became of a job is read from its run folder, so the folders must be shared with the nodes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from dl_lab.run import read_json, read_records, state_of, to_json_lines, write_atomic
from dl_lab.sweeps.lanes import (
    GRACE_SECONDS,
    NOT_FAILED,
    THREAD_VARIABLES,
    Event,
    NextJob,
    die_with_parent,
    no_more,
    stop_signals,
)
from dl_lab.types import Interrupted, Pruned, UserError

PROGRESS_SECONDS = 1.0
SETTLE_SECONDS = 5.0  # until a shared file system shows the last status of a job that has ended
STATUSES = {"done": 0, "failed": 1, "interrupted": Interrupted.exit_code, "pruned": Pruned.exit_code}
OVER = ("done", "failed", "pruned")  # states that a job reaches by itself


class ClusterAway(UserError):
    """The cluster does not answer now; it may later."""


@dataclass(frozen=True)
class Task:
    """What a node needs to run a job: plain values only."""

    job: int
    folder: str  # absolute
    working_folder: str
    environment: Mapping[str, str]


class Engine(Protocol):
    """A cluster's queue."""

    cpus: int
    trouble: str  # why the cluster does not answer; "" while it does

    def open(self, folder: Path, name: str) -> str:
        """Connect, and end what an earlier start of this sweep left in the queue; returns a line about it, or "".

        Raises UserError where there is no cluster.
        """
        ...

    def submit(self, tasks: Sequence[Task]) -> None:
        """Queue jobs. Raises UserError where the cluster refuses them, ClusterAway where it does not answer."""
        ...

    def ended(self) -> dict[int, str]:
        """Jobs that are no longer queued or running, and where to read more; waits up to a second."""
        ...

    def stop(self, kill: bool) -> None:
        """Take away what is queued; ask what is running to save and end, or kill it."""
        ...

    def close(self) -> None:
        """Leave nothing behind."""
        ...


def supervise(task: Task) -> int:
    """On a node: run a prepared run folder in a new interpreter; its exit status. KeyboardInterrupt asks it to stop."""
    with open(Path(task.folder) / "job.log", "ab") as log:
        _wait_for_turn(Path(task.folder), log.fileno())
        if (state := state_of(Path(task.folder))) in ("done", "failed"):
            return STATUSES[state]
        child = subprocess.Popen(
            [sys.executable, "-m", "dl_lab.commands._start", task.folder, "1"],
            cwd=task.working_folder,
            env={**os.environ, **task.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=_as_child,  # noqa: PLW1509  (the parent has one thread of Python here)
        )
    deadline = 0.0
    while True:
        try:
            return child.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
            if deadline and time.monotonic() > deadline:
                child.kill()
        except KeyboardInterrupt:
            child.terminate()
            deadline = deadline or time.monotonic() + GRACE_SECONDS


def _wait_for_turn(folder: Path, log: int) -> None:
    """Be the only one in the run folder: a cluster that forgot that a job runs, or lost its node, starts it once more.

    The processes of a job hold the lock with their log, and the kernel lets go of it when they are gone.
    """
    while True:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if state_of(folder) not in ("queued", "running"):
                return  # the job itself has ended: what holds its log is something that it left behind
            time.sleep(0.5)
        except OSError:
            return  # a file system without locks


def _as_child() -> None:
    """Die with the supervisor; SLURM's warning is for the supervisor alone."""
    die_with_parent()
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


@dataclass
class Cluster:
    """Runs jobs on a cluster; used like `lanes.Schedule`."""

    engine: Engine
    width: int  # jobs queued or running at a time
    make_folder: Callable[[Mapping[str, Any]], Path]  # orders -> the run folder, ready to be run
    observe: Callable[[Event], None] = lambda event: None
    stop_on_failure: bool = False
    next_job: NextJob = no_more
    servers: tuple[()] = ()
    _flying: dict[int, Path] = field(default_factory=dict)
    _epochs: dict[int, int] = field(default_factory=dict)
    _lanes: dict[int, int] = field(default_factory=dict)  # of the jobs that were seen running
    _gone: dict[int, tuple[str, float]] = field(default_factory=dict)  # what the engine no longer has: where, since

    def run(self, jobs: Sequence[int], orders: Mapping[int, Mapping[str, Any]]) -> dict[int, int]:
        """Job -> exit status, for every job that ended; those never started are left out."""
        waiting, known, statuses = list(jobs), dict(orders), dict[int, int]()
        interrupts, stopping_since, shown = 0, 0.0, 0.0
        try:
            with stop_signals() as asked:
                while True:
                    if asked.count > interrupts:
                        interrupts = asked.count
                        self.engine.stop(kill=interrupts > 1)
                        stopping_since = stopping_since or time.monotonic()
                        self.observe({"event": "stopping"})
                    if stopping_since and time.monotonic() - stopping_since > GRACE_SECONDS:
                        self.engine.stop(kill=True)
                    if not stopping_since:
                        self._fill(waiting, known)
                    if not self._flying and (stopping_since or not waiting):
                        return statuses
                    self._look()
                    for job in list(self._gone):
                        status = self._status(job, cancelled=bool(stopping_since))
                        if status is None:
                            continue
                        self._end(job, status, statuses)
                        if status not in NOT_FAILED and self.stop_on_failure:
                            waiting.clear()
                            self.next_job = no_more
                    if time.monotonic() - shown > PROGRESS_SECONDS:
                        shown = time.monotonic()
                        self._show_progress()
        finally:
            self.close()

    def close(self) -> None:
        self.engine.close()

    def _fill(self, waiting: list[int], orders: dict[int, Mapping[str, Any]]) -> None:
        while len(waiting) < self.width - len(self._flying):
            new = self.next_job()
            if new is None:
                break
            waiting.append(new[0])
            orders[new[0]] = new[1]
        chosen = waiting[: max(self.width - len(self._flying), 0)]
        if not chosen:
            return
        del waiting[: len(chosen)]
        folders = {job: self.make_folder(orders[job]).resolve() for job in chosen}
        tasks = [Task(job, str(folder), os.getcwd(), self._environment(orders[job])) for job, folder in folders.items()]
        try:
            self.engine.submit(tasks)
        except UserError as error:
            for folder in folders.values():
                if state_of(folder) == "queued":  # made for this; what has a checkpoint stays
                    shutil.rmtree(folder)
            if isinstance(error, ClusterAway):
                waiting[:0] = chosen
                return
            raise
        self._flying |= folders
        for job in chosen:
            trainer = orders[job]["config"]["procedure"].get("trainer") or {}
            self._epochs[job] = trainer.get("max_epochs", 0)

    @property
    def threads(self) -> int:
        """CPU threads of each job, where its config does not say."""
        return self.engine.cpus

    def _environment(self, orders: Mapping[str, Any]) -> dict[str, str]:
        threads = str(orders["config"].get("threads") or orders["threads"])
        own = {name: value for name, value in os.environ.items() if name.startswith("DL_LAB_")}
        return {**own, **dict.fromkeys(THREAD_VARIABLES, threads), "OMP_WAIT_POLICY": "PASSIVE"}

    def _look(self) -> None:
        """Take in what has left the queue, and say when the cluster stops answering or answers again."""
        before = self.engine.trouble
        now = time.monotonic()
        self._gone |= {job: (where, now) for job, where in self.engine.ended().items()}
        if bool(self.engine.trouble) != bool(before):
            self.observe({"event": "trouble", "message": self.engine.trouble})

    def _end(self, job: int, status: int, statuses: dict[int, int]) -> None:
        statuses[job] = status
        if job not in self._lanes:
            self._start(job)
        self.observe({"event": "exit", "job": job, "status": status, "lane": self._lanes.pop(job)})
        del self._flying[job], self._gone[job]

    def _status(self, job: int, cancelled: bool) -> int | None:
        """What became of a job that the engine no longer has; None while that is not certain."""
        folder, (where, since) = self._flying[job], self._gone[job]
        state, settled = state_of(folder), time.monotonic() - since > SETTLE_SECONDS
        if state in STATUSES:
            return STATUSES[state]
        if state == "running" and not (cancelled and settled):  # it beats: the engine has forgotten it, or is ahead
            return None
        if cancelled and state == "queued":
            return 130
        if not settled and not cancelled:
            return None
        if state in ("running", "killed", "queued"):  # what is missing in its record is said by the one who knows it
            message = f"it did not start ({where})" if state == "queued" else f"killed on its node ({where})"
            status = read_json(folder / "status.json") or {}
            status["error"] = {"type": "Killed", "message": message, "traceback": ""}
            write_atomic(folder / "status.json", to_json_lines(status))
        return -signal.SIGKILL

    def _show_progress(self) -> None:
        for job, folder in self._flying.items():
            if job not in self._lanes:
                if state_of(folder) == "queued":
                    continue
                self._start(job)
            with contextlib.suppress(ValueError):
                records, epochs = read_records(folder / "metrics.jsonl"), self._epochs[job]
                if records and epochs:
                    done = min(records[-1]["epoch"], epochs)
                    event = {"epoch": min(done + 1, epochs), "max_epochs": epochs, "done": done, "total": epochs}
                    self.observe({"event": "progress", "job": job, "lane": self._lanes[job], **event})

    def _start(self, job: int) -> None:
        self._lanes[job] = min(set(range(len(self._lanes) + 1)) - set(self._lanes.values()))
        self.observe({"event": "start", "job": job, "lane": self._lanes[job]})
