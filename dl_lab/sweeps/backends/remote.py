"""Run jobs of a sweep on a cluster: what the engines (SLURM, Ray) have in common.

The sweep's process makes each job's run folder and gives its path to the engine. On a node, `node.supervise` runs the
job in an interpreter of its own. The sweep reads from the run folder how the job ended, so the nodes must share the
folders.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from dl_lab.runs.files import read_json, read_records, to_json, write_atomic
from dl_lab.runs.find import state_of
from dl_lab.stopping import GRACE_SECONDS, count_stop_signals
from dl_lab.sweeps.backends.layout import THREAD_VARIABLES
from dl_lab.sweeps.backends.node import STATUSES, Task
from dl_lab.sweeps.backends.protocol import (
    NOT_FAILED,
    Exited,
    NextJob,
    Observe,
    Progress,
    RunJob,
    Started,
    Stopping,
    Trouble,
    no_more,
)
from dl_lab.types import Interrupted, UserError

PROGRESS_SECONDS = 1.0  # between two looks at the progress of the jobs
SETTLE_SECONDS = 5.0  # until a shared file system shows the last status of a job that ended


class ClusterAway(UserError):
    """The cluster does not answer now; it may later."""


class Engine(Protocol):
    """A cluster's queue.

    Attributes:
        cpus: CPU cores of each job.
        trouble: Why the cluster does not answer; "" while it answers.
    """

    cpus: int
    trouble: str

    def open(self, folder: Path, name: str) -> str:
        """Connect, and cancel the jobs that an earlier start of this sweep left in the queue.

        Args:
            folder: The sweep's folder.
            name: The sweep's key.

        Returns:
            A sentence about the cancelled jobs; "" where there were none.

        Raises:
            UserError: There is no cluster.
        """
        ...

    def submit(self, tasks: Sequence[Task]) -> None:
        """Queue jobs.

        Raises:
            UserError: The cluster refuses them.
            ClusterAway: It does not answer.
        """
        ...

    def find_ended(self) -> dict[int, str]:
        """Find the jobs that are no longer queued or running, and where to read more about each.

        It waits a moment, so that a busy cluster is not asked too often.

        Raises:
            UserError: The cluster is gone.
        """
        ...

    def stop(self, kill: bool) -> None:
        """Cancel the queued jobs. Ask the running ones to save and end, or kill them."""
        ...

    def close(self) -> None:
        """Cancel all jobs and disconnect."""
        ...


@dataclass
class Cluster:
    """Runs jobs on a cluster. It is used like `schedule.Schedule`.

    Args:
        engine: The cluster's queue.
        width: How many jobs are queued or run at a time.
        make_folder: Makes the run folder of a job, ready to be run.
        observe: Is told every event of the jobs.
        stop_on_failure: Start no further job after one failed.
        next_job: Is asked for a further job when fewer than `width` are there.
    """

    engine: Engine
    width: int
    make_folder: Callable[[RunJob], Path]
    observe: Observe = lambda event: None
    stop_on_failure: bool = False
    next_job: NextJob = no_more
    # All by the number of a job: the run folders of the jobs that the engine has, how many epochs each has, the lanes
    # of the jobs that were seen running, and the jobs that the engine no longer has.
    _folders: dict[int, Path] = field(default_factory=dict)
    _epochs: dict[int, int] = field(default_factory=dict)
    _lanes: dict[int, int] = field(default_factory=dict)
    _gone: dict[int, _Gone] = field(default_factory=dict)

    @property
    def threads(self) -> int:
        """CPU threads of each job whose config names no number."""
        return self.engine.cpus

    def run(self, jobs: Sequence[RunJob]) -> dict[int, int]:
        """Run jobs.

        Args:
            jobs: The jobs that are known at the start; `next_job` gives the others.

        Returns:
            The exit status of every job that ended, by its number. Jobs that never started are left out.

        Raises:
            UserError: The cluster refuses the jobs, or it is lost.
        """
        waiting = deque(jobs)
        statuses: dict[int, int] = {}
        interrupts = 0
        stopping_since = 0.0
        shown = 0.0
        try:
            with count_stop_signals() as asked:
                while True:
                    if asked.count > interrupts:
                        interrupts = asked.count
                        self.engine.stop(kill=interrupts > 1)
                        stopping_since = stopping_since or time.monotonic()
                        self.observe(Stopping())
                    if stopping_since and time.monotonic() - stopping_since > GRACE_SECONDS:
                        self.engine.stop(kill=True)
                    if not stopping_since:
                        self._fill(waiting)
                    if not self._folders and (stopping_since or not waiting):
                        return statuses
                    self._look()
                    for job in list(self._gone):
                        status = self._find_status(job, cancelled=bool(stopping_since))
                        if status is None:  # perhaps at the next look
                            continue
                        statuses[job] = status
                        self._end(job, status)
                        if status not in NOT_FAILED and self.stop_on_failure:
                            waiting.clear()
                            self.next_job = no_more
                    if time.monotonic() - shown > PROGRESS_SECONDS:
                        shown = time.monotonic()
                        self._show_progress()
        finally:
            self.close()

    def close(self) -> None:
        """Cancel all jobs and leave the cluster."""
        self.engine.close()

    def _fill(self, waiting: deque[RunJob]) -> None:
        """Queue jobs until the engine has `width` of them."""
        from dl_lab.configs.parts import trainer_of  # nodes import this file: they start faster without the configs

        free = max(self.width - len(self._folders), 0)
        while len(waiting) < free:
            job = self.next_job()
            if job is None:
                break
            waiting.append(job)
        chosen = [waiting.popleft() for _ in range(min(free, len(waiting)))]
        if not chosen:
            return
        folders = {job.job: self.make_folder(job).resolve() for job in chosen}
        tasks = [Task(job.job, str(folders[job.job]), os.getcwd(), _make_environment(job)) for job in chosen]
        try:
            self.engine.submit(tasks)
        except UserError as error:
            for folder in folders.values():
                if state_of(folder) == "queued":  # made for this attempt; a folder with a checkpoint stays
                    shutil.rmtree(folder)
            if not isinstance(error, ClusterAway):
                raise
            waiting.extendleft(reversed(chosen))  # in their old order, in front: they are tried again at the next look
            return
        self._folders |= folders
        for job in chosen:
            self._epochs[job.job] = trainer_of(job.config).get("max_epochs", 0)

    def _look(self) -> None:
        """Note the jobs that left the queue, and tell when the cluster stops answering or answers again."""
        before = self.engine.trouble
        now = time.monotonic()
        self._gone |= {job: _Gone(where, now) for job, where in self.engine.find_ended().items()}
        if bool(self.engine.trouble) != bool(before):
            self.observe(Trouble(self.engine.trouble))

    def _end(self, job: int, status: int) -> None:
        """Tell that a job ended, and forget it."""
        if job not in self._lanes:  # it ended before anyone saw it run
            self._start(job)
        self.observe(Exited(job, status, self._lanes.pop(job)))
        del self._folders[job]
        del self._gone[job]

    def _find_status(self, job: int, cancelled: bool) -> int | None:
        """Find the exit status of a job that the engine no longer has; None while it is not certain.

        A shared file system may show the job's last status only after some seconds.
        """
        folder = self._folders[job]
        gone = self._gone[job]
        state = state_of(folder)
        settled = time.monotonic() - gone.since > SETTLE_SECONDS
        if state in STATUSES:
            return STATUSES[state]
        if state == "running" and not (cancelled and settled):  # the engine forgot a job that still runs
            return None
        if cancelled and state == "queued":
            return Interrupted.exit_code
        if not settled and not cancelled:
            return None
        if state in ("running", "killed", "queued"):  # the job could not record how it ended: this process does it
            message = f"it did not start ({gone.where})" if state == "queued" else f"killed on its node ({gone.where})"
            status = read_json(folder / "status.json") or {}
            status["error"] = {"type": "Killed", "message": message, "traceback": ""}
            write_atomic(folder / "status.json", to_json(status, indent=1))
        return -signal.SIGKILL

    def _show_progress(self) -> None:
        """Tell which jobs began, and how far each is, from what its run folder says."""
        for job, folder in self._folders.items():
            if job not in self._lanes:
                if state_of(folder) == "queued":
                    continue
                self._start(job)
            with contextlib.suppress(ValueError):  # a line of metrics.jsonl that is being written
                records = read_records(folder / "metrics.jsonl")
                epochs = self._epochs[job]
                if records and epochs:
                    done = min(records[-1]["epoch"], epochs)
                    epoch = min(done + 1, epochs)
                    self.observe(Progress(job, epoch, epochs, done, epochs, lane=self._lanes[job]))

    def _start(self, job: int) -> None:
        free = set(range(len(self._lanes) + 1)) - set(self._lanes.values())
        self._lanes[job] = min(free)
        self.observe(Started(job, self._lanes[job]))


@dataclass(frozen=True)
class _Gone:
    """A job that the engine no longer has.

    Attributes:
        where: Where to read more about it.
        since: When this process noticed it (`time.monotonic`).
    """

    where: str
    since: float


def _make_environment(job: RunJob) -> dict[str, str]:
    """Make the environment variables of a job on its node."""
    threads = str(job.config.get("threads") or job.threads)
    own = {name: value for name, value in os.environ.items() if name.startswith("DL_LAB_")}
    # PASSIVE: threads that wait sleep, because other jobs of the node need the cores.
    return {**own, **dict.fromkeys(THREAD_VARIABLES, threads), "OMP_WAIT_POLICY": "PASSIVE"}
