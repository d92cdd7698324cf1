"""Show a sweep: its plan as a table, one bar for the sweep and one line for each lane, failures at once."""

from __future__ import annotations

import math
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dl_lab.runs.files import error_line, read_json, read_newest
from dl_lab.runs.find import state_of
from dl_lab.show import tables
from dl_lab.sweeps.backends.protocol import (
    Event,
    Exited,
    Lost,
    OutOfMemory,
    Progress,
    Started,
    Stopping,
    Trouble,
)
from dl_lab.sweeps.endings import Ending, read_ending
from dl_lab.sweeps.lanes import Lane, describe_position, make_row
from dl_lab.sweeps.plan import RUNS, Job, Sweep
from dl_lab.sweeps.values import as_mapping
from dl_lab.types import Interrupted, Pruned

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live
    from rich.progress_bar import ProgressBar

ACTIONS = {"run": "green", "resume": "cyan", "retry": "yellow", "skip": "dim", "leave": "dim", "take": "cyan"}
SHORT = 9  # characters: a shorter value is shown in full


def make_console() -> Console:
    """Return the console of a sweep. It shows values such as `[a,b]` as they are, and folds no line of a log file."""
    return Console(highlight=False, markup=False, soft_wrap=not sys.stdout.isatty())


def show_plan(console: Console, sweep: Sweep, keys: Sequence[str]) -> None:
    """Show the plan as a table: the keys that vary, what will happen to each job and why, how long it should take.

    Args:
        console: Where it is shown.
        sweep: The sweep.
        keys: The keys that vary.
    """
    table = Table(
        title=f"{len(sweep.jobs)} job{'s' * (len(sweep.jobs) != 1)}  ({counts(sweep.jobs)})",
        title_justify="left",
        title_style="bold",
        box=None,
    )
    table.add_column("job", justify="right")
    for key in keys:
        table.add_column(short(key, keys), overflow="fold")
    table.add_column("what happens")
    table.add_column("about", justify="right")
    for job in sweep.jobs:
        values = as_mapping(job.overrides)
        action = Text(job.action, ACTIONS[job.action])
        if job.reason not in ("", "new"):
            action.append(f": {job.reason}", "dim")
        about = "?" if job.action in RUNS else ""
        if job.estimate is not None:
            about = duration(job.estimate)
        table.add_row(str(job.number), *[values.get(key, "") for key in keys], action, about)
    console.print(table)
    known = [job.estimate for job in sweep.jobs if job.estimate is not None]
    if known:
        n_unknown = sum(job.action in RUNS for job in sweep.jobs) - len(known)
        one = n_unknown == 1
        unknown = f" {n_unknown} job{'s' * (not one)} of unknown length {'is' if one else 'are'} not counted."
        console.print(
            f"About {duration(sum(known))} of work, from the throughput of earlier runs.{unknown if n_unknown else ''}",
            soft_wrap=True,
        )


def show_remarks(console: Console, remarks: Sequence[str]) -> None:
    """Show what the plan does differently from what the words alone say, one sentence each."""
    for remark in remarks:
        console.print(remark, soft_wrap=True)


def show_failures(console: Console, sweep: Sweep, failed: Sequence[Job], keys: Sequence[str]) -> None:
    """Show the failed jobs as a table: what varies, the error, and where its traceback is.

    Args:
        console: Where it is shown.
        sweep: The sweep.
        failed: The failed jobs.
        keys: The keys that vary.
    """
    if not failed:
        return
    table = Table(title=f"{len(failed)} failed", title_justify="left", title_style="bold red", box=None)
    for name in ("job", "", "error"):
        table.add_column(name, overflow="fold")
    table.add_column("traceback in", no_wrap=True)
    for job in failed:
        folder = sweep.folder / job.name
        error = error_line(read_json(folder / "status.json") or {})
        if not error:
            error = "another process is running it" if state_of(folder) == "running" else "killed"
        table.add_row(str(job.number), label(job, keys), error, f"{job.name}/status.json")
    console.print(table)


def counts(jobs: Sequence[Job]) -> str:
    """Count what happens to the jobs, in words: "12 run, 3 skip"."""
    actions = [job.action for job in jobs]
    return ", ".join(f"{actions.count(a)} {a}" for a in ACTIONS if a in actions)


def short(key: str, keys: Sequence[str]) -> str:
    """Shorten a dotted key to its last part, where that tells it from the other keys.

    Args:
        key: The key.
        keys: All keys, also this one.
    """
    last = key.rpartition(".")[2]
    n_alike = sum(other.rpartition(".")[2] == last for other in keys)
    return last if n_alike == 1 else key


def label(job: Job, keys: Sequence[str]) -> str:
    """Name a job by what varies: "lr=0.1 seed=2".

    Args:
        job: The job.
        keys: The keys that vary.
    """
    return " ".join(f"{short(key, keys)}={round_value(value)}" for key, value in as_mapping(job.overrides).items())


def round_value(value: str) -> str:
    """Round a number that a search has drawn to four digits; return any other value as it is."""
    if len(value) < SHORT:
        return value
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return value


def duration(seconds: float) -> str:
    """Write a time: "9.5 s", "12 s", "3:05", "1:02:30"."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02}"
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


class View:
    """Prints a line for each job that ends. On a terminal it shows the lanes below these lines.

    The counter counts the jobs of the plan, also those that were done before.

    Args:
        console: Where everything is printed.
        folder: The sweep's folder.
        jobs: The sweep's jobs.
        keys: The keys that vary.
        metric: What is shown of a job, "val/accuracy"; "" for nothing.
        mode: "max" where a larger metric is better, else "min".
    """

    def __init__(
        self, console: Console, folder: Path, jobs: Sequence[Job], keys: Sequence[str], metric: str, mode: str
    ) -> None:
        self.console = console
        self.folder = folder
        self.jobs = {job.number: job for job in jobs}
        self.keys = keys
        self.metric = metric
        self.sign = -1 if mode == "max" else 1
        self.started: dict[int, float] = {}
        self.ended = 0
        self.lanes: dict[int, Lane] = {}
        self.to_run = sum(job.action in RUNS for job in jobs)
        self.before = sum(job.action in ("skip", "take") for job in jobs)
        self.began = time.monotonic()
        self.best: tuple[float, Job] | None = None
        for job in jobs:
            if job.action in ("skip", "take"):
                self._compare(job, read_ending(folder / job.name, 0).metrics.get(metric))
        self._live: Live | None = None
        self.not_finite: list[int] = []
        self._warned: set[str] = set()

    def __enter__(self) -> View:
        if sys.stdout.isatty():
            from rich.live import Live

            self._live = Live(console=self.console, get_renderable=self.render, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self.lanes.clear()
            self._live.stop()

    @property
    def counter(self) -> str:
        """The jobs that have ended, of all jobs of the plan: "5/12"."""
        total = str(self.before + self.to_run)
        return f"{self.before + self.ended:>{len(total)}}/{total}"

    def _compare(self, job: Job, value: object) -> None:
        """Keep the job as the best where its value is better than the best so far."""
        if not isinstance(value, int | float) or not math.isfinite(value):
            return
        if self.best is None or self.sign * value < self.sign * self.best[0]:
            self.best = (float(value), job)

    def warn(self, message: str) -> None:
        """Print a warning about the sweep itself. The same warning is printed once."""
        if message not in self._warned:
            self._warned.add(message)
            self.say(f"Warning: {message}")

    def say(self, line: str) -> None:
        """Print a line above the lanes."""
        self.console.print(line, soft_wrap=True)

    def observe(self, event: Event, ending: Ending | None = None) -> None:
        """Show an event of the jobs.

        Args:
            event: What happened.
            ending: How the job of an `Exited` ended.
        """
        match event:
            case Stopping():
                self.console.print("Stopping: every job finishes its step and saves. Ctrl-C again kills them.")
            case Trouble(""):
                self.console.print("The cluster is reachable again.")
            case Trouble(message):
                self.say(f"{message} The jobs on the cluster keep running. Waiting.")
            case Started(job=number):
                self.started[number] = time.monotonic()
                self.lanes[event.lane] = Lane(self.jobs[number], event.device)
            case Progress(job=number):
                lane = self.lanes.setdefault(event.lane, Lane(self.jobs[number]))
                lane.progress = event
            case OutOfMemory(job=number):
                self._free(event.lane, number)
                self._print_restart(number, "out of GPU memory beside other jobs; it starts again alone")
            case Lost(job=number, again=True):
                self._free(event.lane, number)
                self._print_restart(number, "its lane was killed; it starts again on a new one")
            case Lost(job=number):
                self._free(event.lane, number)
                self._print_end(self.jobs[number], -signal.SIGKILL, ending or Ending())
            case Exited(job=number):
                self._free(event.lane, number)
                self._print_end(self.jobs[number], event.status, ending or Ending())

    def _free(self, lane: int, number: int) -> None:
        """Remove a job from its lane, unless the next job has begun there."""
        if lane in self.lanes and self.lanes[lane].job.number == number:
            del self.lanes[lane]

    def _print_restart(self, number: int, reason: str) -> None:
        """Say why a job starts again."""
        self.say(f"  {number:>4} {label(self.jobs[number], self.keys)}: {reason}")

    def _print_end(self, job: Job, status: int, ending: Ending) -> None:
        """Print the line of a job that ended."""
        self.ended += 1
        took = duration(time.monotonic() - self.started.get(job.number, time.monotonic()))
        reason = ending.reason
        style = ""
        if status == 0:
            mark = ("✓", "green")
            result = ending.value_of(self.metric)
            self._compare(job, ending.metrics.get(self.metric))
            if self.metric in ending.not_finite:
                mark = ("✓", "yellow")
                self.not_finite.append(job.number)
        elif status == Interrupted.exit_code:
            mark = ("‖", "cyan")
            result = f"interrupted: {reason}" if reason else "interrupted"
        elif status == Pruned.exit_code:
            mark = ("✂", "yellow")
            result = reason
        else:
            mark = ("✗", "red")
            killed = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
            result, style = reason or killed, "red"
        name = label(job, self.keys)
        self.console.print(Text.assemble(mark, f" {self.counter} {name}  ", (result, style), f"  {took}"))

    def render(self) -> RenderableType:
        """Draw one bar for the sweep, the best job so far, and one line for each lane."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar

        is_wide = self.console.width >= 110
        size = 24 if is_wide else 10

        def bar(done: float, total: float) -> ProgressBar:
            return ProgressBar(total=max(total, 1e-9), completed=done, width=size)

        passed = time.monotonic() - self.began
        times = Text(f"{self.counter} jobs  {duration(passed)}{self._estimate_rest(passed)}")
        lines: list[RenderableType] = [
            make_row([(8, Text("sweep")), (size, bar(self.ended + self._share(), self.to_run)), (None, times)])
        ]
        if self.best is not None:
            value, job = self.best
            best = f"best so far  {self.metric} {tables.number(value)}  {label(job, self.keys)}"
            lines.append(Text(best, no_wrap=True, overflow="ellipsis"))
        for number, lane in sorted(self.lanes.items()):
            name = Text(f"lane {number}" + (f" gpu {lane.device}" if lane.device else ""))
            where, rate = describe_position(lane.progress)
            value = read_newest(self.folder / lane.job.name / "metrics.jsonl", self.metric) if self.metric else None
            shown = "" if value is None else f"{self.metric} {tables.number(value)}"
            cells = [(8 + 7 * bool(lane.device), name), (size, bar(lane.share(), 1)), (11, Text(where))]
            cells += [(len(self.metric) + 8, Text(shown))] if self.metric else []
            cells += [(10, Text(rate, justify="right"))] if is_wide else []
            lines.append(make_row([*cells, (None, Text(label(lane.job, self.keys)))]))
        return Group(*lines)

    def _share(self) -> float:
        """The jobs on the lanes, as a number of whole jobs."""
        return sum(lane.share() for lane in self.lanes.values())

    def _estimate_rest(self, passed: float) -> str:
        """How long the sweep still takes; "" while that is not known, and at its end."""
        finished = self.ended + self._share()
        left = passed / finished * (self.to_run - finished) if finished > 0.05 else 0.0
        return f", about {duration(left)} left" if left >= 1 else ""
