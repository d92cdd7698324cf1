"""A sweep as it is seen: the plan as a table, one bar for the sweep and one line per lane, failures at once."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from dl_lab.run import read_json
from dl_lab.sweeps.grid import as_mapping
from dl_lab.sweeps.plan import Job, Sweep
from dl_lab.types import Pruned

ACTIONS = {"run": "green", "resume": "cyan", "retry": "yellow", "skip": "dim", "leave": "dim"}


def show_plan(console: Console, sweep: Sweep, keys: Sequence[str]) -> None:
    """Job, the keys that differ, what will happen and why, how long it should take."""
    table = Table(
        title=f"{len(sweep.jobs)} jobs  ({counts(sweep.jobs)})",
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
        action = f"[{ACTIONS[job.action]}]{job.action}[/]{': ' + job.reason if job.reason not in ('', 'new') else ''}"
        about = (
            duration(job.estimate)
            if job.estimate is not None
            else ("?" if job.action in ("run", "resume", "retry") else "")
        )
        table.add_row(str(job.number), *[values.get(key, "") for key in keys], action, about)
    console.print(table)
    known = [job.estimate for job in sweep.jobs if job.estimate is not None]
    if known:
        console.print(f"About {duration(sum(known))} of work, from the throughput of earlier runs.", highlight=False)


def show_failures(console: Console, sweep: Sweep, failed: Sequence[Job], keys: Sequence[str]) -> None:
    """Job, error, where its traceback is."""
    if not failed:
        return
    table = Table(title=f"{len(failed)} failed", title_justify="left", title_style="bold red", box=None)
    for name in ("job", "", "error", "traceback in"):
        table.add_column(name, overflow="fold")
    for job in failed:
        folder = sweep.folder / job.name
        error = (read_json(folder / "status.json") or {}).get("error", {})
        last = str(error.get("message", "")).partition("\n")[0] or error.get("type", "killed")
        table.add_row(str(job.number), label(job, keys), last, f"{job.name}/status.json")
    console.print(table)


def counts(jobs: Sequence[Job]) -> str:
    """ "12 run, 3 skip"."""
    actions = [job.action for job in jobs]
    return ", ".join(f"{actions.count(a)} {a}" for a in ACTIONS if a in actions)


def short(key: str, keys: Sequence[str]) -> str:
    """The last part of a dotted key, where that tells it from the others."""
    last = key.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in keys) == 1 else key


def label(job: Job, keys: Sequence[str]) -> str:
    """ "lr=0.1 seed=2"."""
    return " ".join(f"{short(key, keys)}={rounded(value)}" for key, value in as_mapping(job.overrides).items())


def rounded(value: str) -> str:
    """Four digits of a number that a search has drawn; anything else as it is."""
    if len(value) < 9:
        return value
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return value


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"


class View:
    """Prints a line for each job that ends, and keeps the lanes below it where the output is a terminal."""

    def __init__(self, console: Console, jobs: Sequence[Job], keys: Sequence[str], metric: str) -> None:
        self.console, self.jobs, self.keys, self.metric = (
            console,
            {job.number: job for job in jobs},
            keys,
            metric,
        )
        self.started, self.ended, self.lanes = dict[int, float](), 0, dict[int, dict[str, Any]]()
        self.total = sum(job.action in ("run", "resume", "retry") for job in jobs)
        self.began = time.monotonic()
        self._live: Any = None

    def __enter__(self) -> View:
        if sys.stdout.isatty():
            from rich.live import Live

            self._live = Live(console=self.console, get_renderable=self.render, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._live is not None:
            self.lanes.clear()
            self._live.stop()

    def observe(self, event: Mapping[str, Any], error: str = "", metrics: Mapping[str, float] | None = None) -> None:
        """Take an event of the schedule in."""
        job, kind = self.jobs.get(event.get("job", -1)), event["event"]
        if job is None:
            if kind == "stopping":
                self.console.print("Stopping: every job finishes its step and saves. Ctrl-C again kills them.")
            elif kind == "trouble" and event["message"]:
                self.console.print(f"{event['message']} The jobs run on; this waits for it.", highlight=False)
            elif kind == "trouble":
                self.console.print("It answers again.")
            return
        if kind == "start":
            self.started[job.number] = time.monotonic()
            self.lanes[event["lane"]] = {"job": job, "device": event.get("device", "")}
        elif kind == "progress":
            self.lanes.setdefault(event["lane"], {"job": job}).update(event, job=job)
        elif kind in ("exit", "lost", "alone"):
            if self.lanes.get(event["lane"], {}).get("job") is job:  # else the next one has begun there
                self.lanes.pop(event["lane"])
            self._line(job, event, error, metrics or {})

    def _line(self, job: Job, event: Mapping[str, Any], error: str, metrics: Mapping[str, float]) -> None:
        if event["event"] == "alone":
            self.console.print(
                f"  {job.number:>4} {label(job, self.keys)}: out of GPU memory beside others, again alone"
            )
            return
        if event["event"] == "lost" and event["again"]:
            self.console.print(f"  {job.number:>4} {label(job, self.keys)}: its lane was killed, again on a new one")
            return
        self.ended += 1
        took = duration(time.monotonic() - self.started.get(job.number, time.monotonic()))
        status = event.get("status", -9)
        mark = {0: "[green]✓[/]", 130: "[cyan]‖[/]", Pruned.exit_code: "[yellow]✂[/]"}.get(status, "[red]✗[/]")
        value = f"{self.metric} {metrics[self.metric]:.4f}" if self.metric in metrics else ""
        what = {0: value, 130: f"interrupted: {error}" if error else "interrupted", Pruned.exit_code: error}.get(
            status, f"[red]{error or f'killed by signal {-status}'}[/]"
        )
        self.console.print(
            f"{mark} {self.ended:>3}/{self.total} {label(job, self.keys)}  {what}  {took}", highlight=False
        )

    def render(self) -> Any:
        """One bar for the sweep, one line per lane."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar

        def bar(done: float, total: float) -> ProgressBar:
            return ProgressBar(total=max(total, 1e-9), completed=done, width=24)

        grid = Table.grid(padding=(0, 1))
        for _ in range(5):
            grid.add_column(no_wrap=True, overflow="ellipsis")
        shares = [lane.get("done", 0.0) / max(lane.get("total", 1.0), 1e-9) for lane in self.lanes.values()]
        finished, passed = self.ended + sum(shares), time.monotonic() - self.began
        left = duration(passed / finished * (self.total - finished)) if finished > 0.05 else "?"
        grid.add_row("sweep", bar(finished, self.total), f"{self.ended}/{self.total}", duration(passed), f"left {left}")
        for number, lane in sorted(self.lanes.items()):
            rate = f"{lane['samples_per_second']:,.0f}/s" if lane.get("samples_per_second") else ""
            epoch = f"epoch {lane['epoch']}/{lane['max_epochs']}" if "epoch" in lane else "starting"
            name = f"lane {number}" + (f" gpu {lane['device']}" if lane.get("device") else "")
            grid.add_row(
                name,
                bar(lane.get("done", 0), lane.get("total", 1)),
                epoch,
                rate,
                label(lane["job"], self.keys),
            )
        return Group(grid)
