"""A repetition of the first updates of a training."""

from __future__ import annotations

from typing import Any

from dl_lab.types import Batch, Learner, Measure, Tally


class Enough(Exception):
    """The wanted number of updates is done."""


class FirstUpdates:
    """A learner that passes everything on to another learner, and raises `Enough` after a number of updates.

    Args:
        learner: The other learner.
        n_updates: The number of updates.
    """

    def __init__(self, learner: Learner, n_updates: int) -> None:
        self._learner = learner
        self._n_left = n_updates
        self._losses: list[Measure] = []

    def update(self, batch: Batch) -> Tally:
        """Learn from one batch.

        Raises:
            Enough: All updates are done.
        """
        if self._n_left == 0:
            raise Enough
        self._n_left -= 1
        tally = self._learner.update(batch)
        self._losses.append(tally["loss"])
        return tally

    def losses(self) -> list[float]:
        """Return the losses of the updates so far, exactly as a run records them."""
        return [loss.values("")[""] for loss in self._losses]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._learner, name)
