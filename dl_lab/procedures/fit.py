"""Training as a procedure: a learner, a data set, a trainer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from dl_lab.datasets.dataset import Dataset
from dl_lab.procedures.protocol import Procedure, Training
from dl_lab.runs.recorder import Run
from dl_lab.training.devices import choose_device
from dl_lab.training.trainer import Trainer
from dl_lab.types import Learner, Metrics

AnyLearner = TypeVar("AnyLearner", bound=Learner)


@dataclass
class Fit(Procedure, Generic[AnyLearner]):
    """Train a learner on a data set; the result is the metrics of the chosen weights.

    Args:
        dataset: What is learned.
        learner: How a batch changes the model.
        trainer: How many epochs, on which device, with which callbacks.
    """

    dataset: Dataset
    learner: AnyLearner
    trainer: Trainer

    def __call__(self, run: Run) -> Metrics:
        """Train, and return the metrics of the chosen weights."""
        return self.trainer.fit(self.learner, self.dataset, run)

    def rehearse(self) -> Metrics:
        """Run one update and one evaluation on a few items."""
        return self.trainer.rehearse(self.learner, self.dataset)

    def describe(self) -> dict[str, object]:
        """Return the data set, the size of the model and the device."""
        n_parameters, n_trainable = self.learner.n_parameters()
        return {
            "dataset": self.dataset.summary(),
            "parameters": n_parameters,
            "trainable": n_trainable,
            "device": str(choose_device(self.trainer.device)),
        }

    def training(self) -> Training:
        """Return the procedure itself, which has the parts."""
        return self


class WithFit(Procedure, Protocol[AnyLearner]):
    """A procedure that does more before or after a fit, which it runs with `self.fit(run)`."""

    dataset: Dataset
    learner: AnyLearner
    trainer: Trainer

    @property
    def fit(self) -> Fit[AnyLearner]:
        """The fit of the procedure's parts."""
        return Fit(self.dataset, self.learner, self.trainer)

    def rehearse(self) -> Metrics:
        """Rehearse the fit."""
        return self.fit.rehearse()

    def describe(self) -> dict[str, object]:
        """Describe the fit."""
        return self.fit.describe()

    def training(self) -> Training:
        """Return the procedure itself, which has the parts."""
        return self
