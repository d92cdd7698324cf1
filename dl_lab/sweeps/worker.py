"""What the processes of a sweep do: a server prepares, its children check and run jobs."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType

import torch

from dl_lab import configs, preload
from dl_lab.configs import targets
from dl_lab.jobs import one
from dl_lab.jobs.rehearsal import rehearse
from dl_lab.runs.claims import claimed
from dl_lab.runs.environment import describe_devices
from dl_lab.runs.recorder import Run
from dl_lab.sweeps import journal
from dl_lab.sweeps.backends import protocol
from dl_lab.sweeps.backends.layout import set_threads
from dl_lab.sweeps.backends.protocol import Checked, CheckJobs, Prepare, RunJob, Send, Task, Wrong
from dl_lab.sweeps.folder import make_folder
from dl_lab.training.seeding import seed_everything
from dl_lab.types import Interrupted, OutOfMemory, Progress, Pruned, UserError

PROGRESS_SECONDS = 0.2  # between two reports of a job: an epoch may take a few milliseconds
MOST_OF_A_MESSAGE = 1000  # characters: an event longer than 4 KiB would not be written in one piece


def prepare(order: Prepare) -> None:
    """Import what the jobs build, and load their data. It runs in a server.

    torch must not start threads here: a fork would not have them.

    Args:
        order: What the jobs need; an empty one at the start of the server.
    """
    torch.set_num_threads(1)
    if order == Prepare():
        seed_everything(0)  # numpy loads its generators at the first use
    with preload.without_collections():
        modules = list(order.modules)
        for target in order.targets:
            modules += _locate(target)
        for name in dict.fromkeys(modules):
            importlib.import_module(name)
    for config in order.datasets:
        with contextlib.suppress(UserError, ValueError, OSError):  # the job that needs it says what is wrong
            configs.load_dataset(config)
    # A job's garbage collector would write into every object, and so copy the memory that all jobs share.
    gc.freeze()


def _locate(target: str) -> Sequence[str]:
    """Import a target now: a file that is edited while the sweep runs then changes no job.

    Returns:
        The further modules that the target imports when it runs (`imports` of a procedure).
    """
    try:
        return getattr(targets.locate("", target), "imports", ())
    except UserError:  # the check of the job that names it says what is wrong
        return ()


def work(task: Task, send: Send) -> int:
    """Check jobs, or run one. It runs in a child of a server.

    Args:
        task: The jobs to check, or the job to run: here, or with job_process=fresh in a new interpreter.
        send: Sends an event to the sweep's process.

    Returns:
        The exit status of the task.
    """
    if isinstance(task, CheckJobs):
        return _check(task, send)
    signal.signal(signal.SIGTERM, _interrupt)
    set_threads(task.threads)
    if task.config["job_process"] == "fresh":
        return guard(lambda: _become_fresh(task))
    torch.set_num_threads(task.threads)

    def run_job() -> int:
        with _claimed_if_there(Path(task.folder)):
            run = make_run(task)
            run.on_progress = _Reporter(task.job, send)
            return perform(run, task.choices, beside_others=not task.solo)

    return guard(run_job)


def _claimed_if_there(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Keep the folder of an earlier try to this process: a user may continue that job by hand."""
    return claimed(folder) if folder.exists() else contextlib.nullcontext()


def _become_fresh(job: RunJob) -> int:
    """Make the run's folder, then turn this process into a new interpreter that runs the job in it."""
    with _claimed_if_there(Path(job.folder)):
        folder = str(make_run(job).folder)
    os.execv(sys.executable, [sys.executable, "-m", "dl_lab.sweeps.fresh", folder, str(int(job.solo))])


def _check(question: CheckJobs, send: Send) -> int:
    """Check and rehearse configs, and send the answer. The status 2 of a wrong config ends this child."""
    for number, config in question.configs:
        try:
            configs.check(config)
            rehearse(config)
        except UserError as error:
            send(Wrong(question.job, number, str(error)[:MOST_OF_A_MESSAGE]))
            return 2
    send(Checked(question.job))
    return 0


def make_run(job: RunJob) -> Run:
    """Make the run of a job, or reopen it where it has a checkpoint. From now on this process prints into job.log.

    Args:
        job: The job.
    """
    devices = describe_devices()
    folder = make_folder(job, queued=False, devices=devices)
    run = open_run(folder, dict(job.config))
    if run.resuming:  # it may be on another device than before
        run.add_facts(devices=devices)
    log = os.open(folder / "job.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    return run


def open_run(folder: Path, config: dict[str, object]) -> Run:
    """Return the run of a prepared folder. It is resumed where the folder has a checkpoint.

    Args:
        folder: The run folder.
        config: The resolved config.
    """
    board = configs.build_logger(config)
    if any(folder.glob("checkpoints/*.pt")):
        return Run.reopen(folder, config, board)
    return Run(folder, config, board)


def perform(run: Run, choices: Mapping[str, str], beside_others: bool) -> int:
    """Perform a run as a job of a sweep. A search may end it after any epoch.

    Args:
        run: The run.
        choices: The chosen option of each config group.
        beside_others: Other jobs share the GPU.

    Returns:
        The exit status 0.

    Raises:
        UserError: The job failed, or was interrupted or pruned.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    report = journal.make_reporter(run.folder, lambda node: configs.build_checked(node, "pruner"))
    if report is not None:
        run.on_epoch = report
    one.perform(run, choices, quiet=True, beside_others=beside_others)
    return 0


def _interrupt(signum: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


class _Reporter:
    """Sends how far a job is, a few times a second, and after its first epoch how much memory it takes.

    Args:
        job: The number of the job.
        send: Sends an event to the sweep's process.
    """

    def __init__(self, job: int, send: Send) -> None:
        self.job = job
        self.send = send
        self.sent_at = time.monotonic()
        self.sent_memory = not torch.cuda.is_available()

    def __call__(self, progress: Progress) -> None:
        if time.monotonic() - self.sent_at >= PROGRESS_SECONDS:
            self.sent_at = time.monotonic()
            self.send(protocol.Progress(self.job, **vars(progress)))
        if not self.sent_memory and progress.epoch > 1 and torch.cuda.is_initialized():
            self.sent_memory = True
            free, total = torch.cuda.mem_get_info()
            context = max(total - free - torch.cuda.memory_reserved(), 0)  # what CUDA itself takes
            self.send(protocol.Memory(self.job, torch.cuda.max_memory_reserved() + context, total))


def guard(work: Callable[[], int]) -> int:
    """Run the work of a job, and return its exit status. Errors are printed into the job's log.

    Args:
        work: Does the work, and returns an exit status.
    """
    try:
        return work()
    except (Interrupted, Pruned) as stop:
        return stop.exit_code
    except KeyboardInterrupt:  # it came before the run began to record
        return Interrupted.exit_code
    except OutOfMemory as error:
        print(error, file=sys.stderr)
        return protocol.OUT_OF_MEMORY
    except UserError as error:
        print(error, file=sys.stderr)
        return UserError.exit_code
    except BaseException:  # nobody above would print it: this process ends now
        traceback.print_exc()
        return 1
