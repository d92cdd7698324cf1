"""Find a learning rate to start with, by one short training whose rate grows from update to update."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

from torch.optim import Optimizer

from dl_lab.datasets.dataset import Dataset
from dl_lab.procedures.fit import WithFit
from dl_lab.procedures.steps import steps
from dl_lab.runs.recorder import Run
from dl_lab.show import plots
from dl_lab.training.devices import choose_device
from dl_lab.training.learners import GradientLearner
from dl_lab.training.trainer import Trainer
from dl_lab.types import Batch, Metrics, UserError, read_tally

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Rate(TypedDict):
    """A row about an update: its learning rate, its loss and the smoothed loss."""

    lr: float
    loss: float
    smoothed: float


@dataclass
class LearningRateFinder(WithFit[GradientLearner]):
    """The range test of L. Smith (arXiv 1506.01186, section 3.3): train while the rate grows exponentially.

    The losses are smoothed. The suggested rate is where the smoothed loss falls fastest over the logarithm of the rate.
    The greatest useful rate is where the smoothed loss is least. The test ends early if the smoothed loss exceeds four
    times its least value. Nothing is validated or tested, and no weights are kept.

    Args:
        dataset: What is learned.
        learner: How a batch changes the model.
        trainer: Gives the batch size, the seed and the device.
        least: The first rate.
        greatest: The last rate.
        n_updates: Updates from the first rate to the last.
        smoothing: Weight of the old value in the smoothed loss.
    """

    dataset: Dataset
    learner: GradientLearner
    trainer: Trainer
    least: float = 1e-6
    greatest: float = 1.0
    n_updates: int = 100
    smoothing: float = 0.9

    def __post_init__(self) -> None:
        """Raise ValueError for an empty range, or too few updates."""
        if not 0 < self.least < self.greatest or self.n_updates < 10:
            raise ValueError(f"least {self.least} must lie below greatest {self.greatest}, with 10 updates or more")

    def __call__(self, run: Run) -> Metrics:
        """Train at growing rates; return the suggested rate and the rate of the least loss.

        Raises:
            UserError: The loss grew too large after fewer than 10 updates.
        """
        device = choose_device(self.trainer.device)
        self.learner.to(device)
        dataset = self.dataset.to(device)
        self.learner.initialise()
        self.learner.start(dataset)
        rows = self._train(dataset, run)
        if len(rows) < 10:
            raise UserError(
                f"The loss grew out of bounds after {len(rows)} updates: start at a smaller procedure.least."
            )
        metrics = suggest(rows)
        run.figure("lr_finder", draw(rows, metrics["suggested_lr"]), rows)
        run.finish(metrics, dataset=self.dataset.summary())
        return metrics

    def _train(self, dataset: Dataset, run: Run) -> list[Rate]:
        """Return a row for each update."""
        rows: list[Rate] = []
        average = 0.0
        growth = (self.greatest / self.least) ** (1 / (self.n_updates - 1))
        batches = self._repeat_epochs(dataset)
        for i in steps(run, range(self.n_updates), "updates at growing rates"):
            batch = next(batches)
            rate = self.least * growth**i
            self._set_rate(rate)
            loss = read_tally({"loss": self.learner.update(batch)["loss"]})["loss"]
            average = self.smoothing * average + (1 - self.smoothing) * loss
            smoothed = average / (1 - self.smoothing ** (i + 1))
            if not math.isfinite(loss) or (rows and smoothed > 4 * min(row["smoothed"] for row in rows)):
                break
            rows.append({"lr": rate, "loss": loss, "smoothed": smoothed})
            run.log({"train/loss": loss, "lr": rate}, i + 1, 0)
        return rows

    def _repeat_epochs(self, dataset: Dataset) -> Iterator[Batch]:
        """Yield the batches of one epoch after the other, without an end."""
        for epoch in itertools.count():
            yield from dataset.train.epoch(self.trainer.batch_size, self.trainer.seed, epoch)

    def _set_rate(self, rate: float) -> None:
        for optimizer in self.learner.held(Optimizer).values():
            for group in optimizer.param_groups:
                group["lr"] = rate * group.get("lr_factor", 1)


def suggest(rows: list[Rate]) -> Metrics:
    """Return the rate of the steepest fall, and the rate of the least smoothed loss."""
    slopes: dict[float, float] = {}
    for before, row, after in zip(rows, rows[1:], rows[2:], strict=False):
        rise = after["smoothed"] - before["smoothed"]
        slopes[row["lr"]] = rise / (math.log(after["lr"]) - math.log(before["lr"]))
    steepest = min(slopes, key=slopes.__getitem__)
    least = min(rows, key=lambda row: row["smoothed"])
    return {"suggested_lr": steepest, "lr_of_least_loss": least["lr"]}


def draw(rows: list[Rate], suggested: float) -> Figure:
    """Draw the loss over the logarithm of the rate, with the suggested rate."""
    figure, axis = plots.axes(f"Learning rate: {suggested:.2g} suggested", "learning rate", "training loss")
    rates = [row["lr"] for row in rows]
    axis.plot(rates, [row["loss"] for row in rows], color="#bbbbbb", lw=0.8, label="loss")
    axis.plot(rates, [row["smoothed"] for row in rows], color=plots.COLOURS[0], label="smoothed")
    axis.axvline(suggested, color=plots.COLOURS[1], lw=1, ls="--", label="suggested")
    axis.set_xscale("log")
    axis.legend(frameon=False)
    return figure
