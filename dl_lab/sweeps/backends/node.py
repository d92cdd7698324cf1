"""Run one job on a node of a cluster. This file imports little, because each job imports it anew."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dl_lab.runs.find import state_of
from dl_lab.stopping import GRACE_SECONDS
from dl_lab.sweeps.backends.server import die_with_parent
from dl_lab.types import Interrupted, Pruned

STATUSES = {"done": 0, "failed": 1, "interrupted": Interrupted.exit_code, "pruned": Pruned.exit_code}
OVER = ("done", "failed", "pruned")  # states that a job reaches by itself: it needs no further start


@dataclass(frozen=True)
class Task:
    """What a node needs to run a job: plain values only, which any engine can send.

    Attributes:
        job: The number of the job.
        folder: The absolute path of its run folder.
        working_folder: The folder that relative paths of its config start from.
        environment: Environment variables of the job.
    """

    job: int
    folder: str
    working_folder: str
    environment: Mapping[str, str]


def supervise(task: Task) -> int:
    """Run a prepared run folder in a new interpreter, on a node of the cluster.

    A KeyboardInterrupt asks the job to save and end; it is killed where it takes longer than `GRACE_SECONDS`.

    Args:
        task: The job.

    Returns:
        The exit status of the job.
    """
    with open(Path(task.folder) / "job.log", "ab") as log:
        _wait_for_turn(Path(task.folder), log.fileno())
        state = state_of(Path(task.folder))
        if state in ("done", "failed"):  # an earlier process of this job came to its end while this one waited
            return STATUSES[state]
        child = subprocess.Popen(
            [sys.executable, "-m", "dl_lab.sweeps.fresh", task.folder, "1"],
            cwd=task.working_folder,
            env={**os.environ, **task.environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=_prepare_child,  # noqa: PLW1509  (safe: the parent has one thread of Python here)
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
    """Wait until no other process runs the job of a folder.

    A cluster that forgot that a job runs, or lost its node, starts the job once more. The processes of a job share the
    open file of its log, and the lock belongs to that file: the kernel releases it when the last of them is gone.
    """
    while True:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if state_of(folder) not in ("queued", "running"):
                return  # the job itself ended: a process that it left behind holds the log
            time.sleep(0.5)
        except OSError:
            return  # the file system has no locks


def _prepare_child() -> None:
    """Let the job die with its supervisor, and ignore SLURM's warning, which is for the supervisor alone."""
    die_with_parent()
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
