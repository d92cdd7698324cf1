"""The orders and events that the processes of a sweep send each other.

The sweep's process sends orders to a server, and the server passes most of them on to one of its children. Events come
back. Each is one line of JSON: the fields of the dataclass, and its name as `kind`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from dl_lab.types import Interrupted, Pruned

Config: TypeAlias = Mapping[str, object]  # a resolved config of a job

OUT_OF_MEMORY = 75  # the exit status of a job for which the device had no memory left
NOT_FAILED = (0, Interrupted.exit_code, Pruned.exit_code)


# -- orders -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepare:
    """To a server: import and load what the next jobs need.

    Attributes:
        targets: Dotted paths of the classes and functions that the jobs build.
        modules: Further modules that the jobs import.
        datasets: Configs whose data set the server loads, so that all jobs share it.
    """

    targets: Sequence[str] = ()
    modules: Sequence[str] = ()
    datasets: Sequence[Config] = ()


@dataclass(frozen=True)
class RunJob:
    """To a child: run one job.

    Attributes:
        job: The number of the job.
        folder: Its run folder.
        config: Its resolved config.
        choices: The chosen option of each config group.
        overrides: The words of the command line that repeat this job alone.
        files: Further files of the run folder: name -> text.
        facts: What env.json records.
        threads: CPU threads of the job.
        solo: No other job shares the job's device.
    """

    job: int
    folder: str
    config: Config
    choices: Mapping[str, str]
    overrides: Sequence[str]
    files: Mapping[str, str]
    facts: Mapping[str, object]
    threads: int
    solo: bool = True


@dataclass(frozen=True)
class CheckJobs:
    """To a child: check and rehearse configs, without running them.

    Attributes:
        job: The number of the question, below 0.
        configs: The number of each job, and its config.
    """

    job: int
    configs: Sequence[tuple[int, Config]]


@dataclass(frozen=True)
class Signal:
    """To a server: send a signal to all children that work.

    Attributes:
        number: The number of the signal.
    """

    number: int


Task: TypeAlias = RunJob | CheckJobs
Order: TypeAlias = Prepare | RunJob | CheckJobs | Signal


# -- events -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Started:
    """A job began.

    Attributes:
        job: The number of the job, as in all events.
        lane: The lane that it runs on, as in all events.
        device: What CUDA_VISIBLE_DEVICES is for it; "" on the CPU.
    """

    job: int
    lane: int = 0
    device: str = ""


@dataclass(frozen=True)
class Progress:
    """How far a job is.

    Attributes:
        job: The number of the job.
        epoch: The number of the epoch that runs, from 1.
        max_epochs: The number of the last epoch.
        done: Updates that are done; epochs where the updates are not known.
        total: Updates of the whole run, or epochs.
        samples_per_second: Training samples per second; 0 while it is not known.
        lane: The lane that it runs on.
    """

    job: int
    epoch: int
    max_epochs: int
    done: int
    total: int
    samples_per_second: float = 0.0
    lane: int = 0


@dataclass(frozen=True)
class Memory:
    """How much memory of its device a job takes.

    Attributes:
        job: The number of the job.
        peak: The most bytes that it has taken so far.
        total: The bytes that the device has.
    """

    job: int
    peak: int
    total: int


@dataclass(frozen=True)
class Exited:
    """A job ended.

    Attributes:
        job: The number of the job.
        status: The exit status of its process, or minus the signal that killed it.
        lane: The lane that it ran on.
    """

    job: int
    status: int
    lane: int = 0


@dataclass(frozen=True)
class Lost:
    """The server of a job was killed.

    Attributes:
        job: The number of the job.
        again: The job starts once more on a new server.
        lane: The lane that it ran on.
    """

    job: int
    again: bool
    lane: int = 0


@dataclass(frozen=True)
class OutOfMemory:
    """The device had too little memory for the job beside other jobs; the job starts once more alone."""

    job: int
    lane: int = 0


@dataclass(frozen=True)
class Wrong:
    """The answer to `CheckJobs`: a config is wrong.

    Attributes:
        job: The number of the question.
        number: The number of the job with the wrong config.
        message: What is wrong.
    """

    job: int
    number: int
    message: str


@dataclass(frozen=True)
class Checked:
    """The answer to `CheckJobs`: nothing is wrong.

    Attributes:
        job: The number of the question.
    """

    job: int


@dataclass(frozen=True)
class Stopping:
    """The user asked the sweep to stop."""


@dataclass(frozen=True)
class Trouble:
    """The cluster does not answer, or it answers again.

    Attributes:
        message: Why it does not answer; "" once it answers again.
    """

    message: str


JobEvent: TypeAlias = Started | Progress | Memory | Exited | Lost | OutOfMemory | Wrong | Checked
Answer: TypeAlias = Wrong | Checked | Exited  # to `CheckJobs`; `Exited` where the process that checked died
Event: TypeAlias = JobEvent | Stopping | Trouble

Observe: TypeAlias = Callable[[Event], None]
Send: TypeAlias = Callable[[JobEvent], None]  # a child sends an event to the sweep's process
PrepareServer: TypeAlias = Callable[[Prepare], None]  # a server calls it with an empty order, then with each order
Work: TypeAlias = Callable[[Task, Send], int]  # a child calls it; it returns the exit status
NextJob: TypeAlias = Callable[[], RunJob | None]  # None: there is no further job, or not yet


def no_more() -> None:
    """Give no further job: the `NextJob` of a sweep whose jobs are all known at its start."""


# -- their JSON form ----------------------------------------------------------------------------------------------

TASKS = (RunJob, CheckJobs)
ORDERS = (Prepare, *TASKS, Signal)
JOB_EVENTS = (Started, Progress, Memory, Exited, Lost, OutOfMemory, Wrong, Checked)
_KINDS = {kind.__name__: kind for kind in (*ORDERS, *JOB_EVENTS, Stopping, Trouble)}
Message = TypeVar("Message", bound=Order | Event)


def to_line(message: Order | Event) -> bytes:
    """Write an order or event as one line of JSON."""
    fields = {"kind": type(message).__name__, **vars(message)}
    return (json.dumps(fields) + "\n").encode()


def from_line(line: bytes | str, expected: tuple[type[Message], ...]) -> Message:
    """Read a line that `to_line` wrote.

    Args:
        line: The line.
        expected: The kinds that the reader takes: `ORDERS`, `TASKS` or `JOB_EVENTS`.

    Raises:
        TypeError: The line holds another kind.
    """
    fields = json.loads(line)
    message = _KINDS[fields.pop("kind")](**fields)
    if not isinstance(message, expected):
        raise TypeError(f"A {type(message).__name__} was sent to a process that takes none.")
    return message
