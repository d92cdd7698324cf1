"""Contestants of `rounds` that are more than one trial: the lanes of a sweep, and a size of the evaluation batch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from dl_lab.jobs.tuning.trial import Judged, Trial, Updated


@dataclass
class Together:
    """Several trials that work at the same time: the lanes of a sweep."""

    trials: list[Trial]

    def work(self, n_updates: int) -> tuple[float, float]:
        """See `rounds.Contestant`: the samples of all, and the seconds until the last one is done."""
        began = time.monotonic()
        for trial in self.trials:
            trial.ask("update", n_updates)
        n_samples = sum(trial.answer(Updated).n_samples for trial in self.trials)
        return n_samples, time.monotonic() - began

    def memory(self) -> int:
        """The memory of all, in bytes."""
        return sum(trial.memory() for trial in self.trials)

    def close(self) -> None:
        """End all of them."""
        for trial in self.trials:
            trial.close()


@dataclass
class Judging:
    """A trial that judges val in batches of one size."""

    trial: Trial
    batch_size: int
    n_items: int

    def work(self, n_updates: int) -> tuple[float, float]:
        """See `rounds.Contestant`; an update counts as one pass over the items."""
        self.trial.ask("judge", self.batch_size, self.n_items, n_updates)
        judged = self.trial.answer(Judged)
        return judged.n_samples, judged.seconds

    def metrics(self) -> Mapping[str, float]:
        """The metrics of the items."""
        self.trial.ask("judge", self.batch_size, self.n_items, 1)
        return self.trial.answer(Judged).metrics
