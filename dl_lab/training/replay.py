"""The first updates of a training, executed again."""

from __future__ import annotations

from typing import Any

from dl_lab.types import Batch, Learner, Tally


class Enough(Exception):
    """The asked number of updates is done."""


class FirstUpdates:
    """A learner that does what another does, and raises Enough instead of one update more than `n_updates`.

    losses(): those of the updates so far, exactly as a run records them.
    """

    def __init__(self, learner: Learner, n_updates: int) -> None:
        self._learner, self._left = learner, n_updates
        self._tallies: list[Any] = []

    def update(self, batch: Batch) -> Tally:
        if self._left == 0:
            raise Enough
        self._left -= 1
        tally = self._learner.update(batch)
        self._tallies.append(tally["loss"])
        return tally

    def losses(self) -> list[float]:
        return [ratio.values("")[""] for ratio in self._tallies]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._learner, name)
