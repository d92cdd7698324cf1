"""Run the jobs of a planned sweep, show their progress, and report."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Protocol

from rich.console import Console
from rich.text import Text

from dl_lab.runs.find import state_of
from dl_lab.sweeps import plan, view
from dl_lab.sweeps.backends import remote
from dl_lab.sweeps.backends.protocol import NOT_FAILED, Event, Exited, Lost, RunJob
from dl_lab.sweeps.backends.schedule import Schedule
from dl_lab.sweeps.endings import Ending, read_ending
from dl_lab.sweeps.results.headline import summarise
from dl_lab.types import Interrupted, UserError


def run(
    console: Console,
    schedule: Schedule | remote.Cluster,
    sweep: plan.Sweep,
    todo: Sequence[plan.Job],
    keys: Sequence[str],
    facts: Mapping[str, object],
    more: More,
) -> int:
    """Run jobs and report.

    Args:
        console: Where everything is shown.
        schedule: Runs the jobs.
        sweep: The sweep, already written.
        todo: Its jobs that are to run.
        keys: The keys that vary.
        facts: What `describe_environment` says, for env.json.
        more: Gives further jobs.

    Returns:
        The exit status of the sweep: 1 where a job failed.

    Raises:
        Interrupted: The user asked the sweep to stop.
    """
    begun = list(todo)
    facts = {**facts, "code": sweep.code}
    for job in begun:
        if job.action == "retry":
            plan.set_aside(sweep.folder / job.name)
    metric = more.metric
    with view.View(console, sweep.folder, sweep.jobs, keys, metric, more.mode) as screen:
        screen.to_run = more.total()
        schedule.next_job = lambda: _ask_next(more, screen, sweep, begun, facts, schedule.threads)
        schedule.observe = lambda event: _observe(screen, sweep, event, more)
        try:
            statuses = schedule.run([_order(sweep, job, facts, schedule.threads) for job in todo])
        finally:
            more.close()
            _show_news(more, screen)
    failed = _find_failed(sweep, begun, statuses)
    view.show_failures(console, sweep, failed, keys)
    if screen.not_finite:
        numbers = ", ".join(map(str, screen.not_finite))
        console.print(f"{metric} is not finite in job {numbers}: compare ranks such jobs last.", soft_wrap=True)
    _report(console, sweep, metric)
    # A job without a status never started, because the user interrupted the sweep.
    is_cut_short = any(statuses.get(job.number, Interrupted.exit_code) == Interrupted.exit_code for job in begun)
    if is_cut_short and not failed:
        raise Interrupted("Interrupted. Type the same command again to run what is left.")
    return 1 if failed else 0


def _find_failed(sweep: plan.Sweep, begun: Sequence[plan.Job], statuses: Mapping[int, int]) -> list[plan.Job]:
    """Find the jobs that failed, now or in an earlier start of the sweep."""
    failed = [job for job in sweep.jobs if job.action != "leave" and state_of(sweep.folder / job.name) == "failed"]
    killed = [job for job in begun if statuses.get(job.number, 0) not in NOT_FAILED]
    return failed + [job for job in killed if job not in failed]


def _report(console: Console, sweep: plan.Sweep, metric: str) -> None:
    """Say which setting is the best, what is not done, and which commands go on."""
    results = sweep.write_results()
    sentence = " ".join(summarise(sweep.folder, metric))
    console.print(sentence, soft_wrap=not console.is_terminal, style="bold")
    folder = shlex.quote(str(sweep.folder))
    names = ("Compare", "Report", "TensorBoard")
    lines = {name: f"dl-lab {name.lower()} {folder}" for name in names}
    for name, line in {**lines, "Table": str(results)}.items():
        console.print(Text.assemble((f"{name:<12} ", "dim"), line), soft_wrap=True)


def _order(sweep: plan.Sweep, job: plan.Job, facts: Mapping[str, object], threads: int) -> RunJob:
    """Make the order to run a job."""
    return RunJob(
        job=job.number,
        folder=str(sweep.folder / job.name),
        config=job.config,
        choices=job.choices,
        overrides=[*sweep.fixed, *job.overrides],
        files=job.files,
        facts={**facts, **job.facts},
        threads=threads,
    )


class More(Protocol):
    """Gives further jobs, one at a time: `trials` those of a search, `growing_grid` those that users add to a grid."""

    @property
    def metric(self) -> str:
        """The metric that the screen shows for a job."""
        ...

    @property
    def mode(self) -> str:
        """Whether a larger metric is better: "max" or "min"."""
        ...

    def total(self) -> int:
        """Return how many jobs this session runs in all, as far as it knows."""
        ...

    def ask(self, sweep: plan.Sweep) -> plan.Job | None:
        """Return a new job, after writing it into the plan; None where there is none now."""
        ...

    def note_end(self, job: plan.Job) -> None:
        """Note that a job ended. Its run folder tells how."""
        ...

    def news(self) -> list[str]:
        """Return what the screen must say since the last call, one sentence each."""
        ...

    def close(self) -> None:
        """Give no further job."""
        ...


def _ask_next(
    more: More, screen: view.View, sweep: plan.Sweep, begun: list[plan.Job], facts: Mapping[str, object], threads: int
) -> RunJob | None:
    """Ask for a further job, and show it."""
    job = more.ask(sweep)
    screen.to_run = more.total()
    _show_news(more, screen)
    if job is None:
        return None
    begun.append(job)
    screen.jobs[job.number] = job
    return _order(sweep, job, facts, threads)


def _show_news(more: More, screen: view.View) -> None:
    for line in more.news():
        screen.say(line)


def _observe(screen: view.View, sweep: plan.Sweep, event: Event, more: More) -> None:
    """Show an event, and note the end of a job."""
    ending = Ending()
    if isinstance(event, Exited) or (isinstance(event, Lost) and not event.again):
        more.note_end(screen.jobs[event.job])
    if isinstance(event, Exited):
        job = screen.jobs[event.job]
        ending = read_ending(sweep.folder / job.name, event.status)
        try:
            sweep.note_result()
        except UserError as error:  # a full disk must not end the jobs that run
            screen.warn(str(error))
    screen.observe(event, ending)
