"""A grid that grows: its own jobs, and those that other terminals add while it runs (`session.More`)."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from dl_lab.configs.parts import trainer_of
from dl_lab.sweeps import plan, queue
from dl_lab.sweeps.pruned_grid import PrunedGrid

MOST_NAMED = 5  # jobs in a message


class GrowingGrid:
    """Looks into the queue of its sweep when it is asked for a further job.

    Args:
        sweep: The sweep.
        todo: The jobs of the sweep that run now.
        pruned: The study to which the jobs report, of a grid with `pruner=`.
    """

    def __init__(self, sweep: plan.Sweep, todo: Sequence[plan.Job], pruned: PrunedGrid | None) -> None:
        self.sweep = sweep
        self.pruned = pruned
        self._waiting: deque[plan.Job] = deque()
        self._unfinished = {job.number for job in todo}
        self._total = len(todo)
        self._news: list[str] = []
        queue.drop(sweep.folder, self._ids())
        queue.reopen(sweep.folder)

    @property
    def metric(self) -> str:
        """The metric that the screen shows for a job that ended."""
        if self.pruned:
            return self.pruned.metric
        return trainer_of(self.sweep.jobs[0].config).get("monitor", "")

    @property
    def mode(self) -> str:
        """Whether a larger metric is better: "max" or "min"."""
        if self.pruned:
            return self.pruned.mode
        return trainer_of(self.sweep.jobs[0].config).get("mode", "min")

    def total(self) -> int:
        """Return how many jobs this session runs in all, as far as it knows."""
        return self._total

    def ask(self, sweep: plan.Sweep) -> plan.Job | None:
        """Return the next job that another terminal added. When all jobs have ended, close the queue."""
        if not self._waiting:
            self._take()
        # A job may have come since the look above. Then `close` leaves the queue open.
        if not self._waiting and not self._unfinished and not queue.close(sweep.folder, self._ids()):
            self._take()
        return self._waiting.popleft() if self._waiting else None

    def note_end(self, job: plan.Job) -> None:
        """Note that a job ended, and tell the study of a pruned grid how."""
        self._unfinished.discard(job.number)
        if self.pruned:
            self.pruned.note_end(job)

    def news(self) -> list[str]:
        """Return what the screen must say since the last call, one sentence each."""
        news = self._news
        self._news = []
        return news

    def close(self) -> None:
        """Take no more jobs. After an interruption, the jobs of the queue wait for the next start."""
        queue.close(self.sweep.folder, self._ids(), even_with_jobs=True)
        left = queue.read(self.sweep.folder, self._ids())
        if left:
            self._news.append(f"Added, but not started: {_name(left)}. The same command runs them.")

    def _take(self) -> None:
        """Put the jobs of the queue into the plan. Link those that are done elsewhere; the others wait for a lane."""
        jobs = queue.read(self.sweep.folder, self._ids())
        if not jobs:
            return
        number = max(job.number for job in self.sweep.jobs)
        for job in jobs:
            number += 1
            job.number = number
        self.sweep.add(*jobs)
        plan.link_taken(self.sweep.folder, jobs)
        queue.drop(self.sweep.folder, [job.id for job in jobs])
        to_run = [job for job in jobs if job.action == "run"]
        self._waiting.extend(to_run)
        self._total += len(to_run)
        self._unfinished |= {job.number for job in to_run}
        if self.pruned:
            for job in to_run:
                self.pruned.enter(job)
        self._news.append(f"Added from another terminal: {_name(jobs)}.")

    def _ids(self) -> set[str]:
        return {job.id for job in self.sweep.jobs}


def _name(jobs: Sequence[plan.Job]) -> str:
    """Name what varies in each job: "lr=0.1 seed=2; lr=0.1 seed=3"."""
    words = [" ".join(job.overrides) for job in jobs[:MOST_NAMED]]
    if len(jobs) > MOST_NAMED:
        words.append(f"and {len(jobs) - MOST_NAMED} more")
    return "; ".join(words)
