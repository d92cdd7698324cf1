"""Training as an experiment: a learner, a data set, a trainer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from dl_lab.run import Run
from dl_lab.training.trainer import Trainer, choose_device
from dl_lab.types import Dataset, Learner, Metrics

AnyLearner = TypeVar("AnyLearner", bound=Learner)


@dataclass
class Fit(Generic[AnyLearner]):
    """Train the learner on the data set; the metrics of the chosen weights are the result."""

    dataset: Dataset
    learner: AnyLearner
    trainer: Trainer

    def __call__(self, run: Run) -> Metrics:
        return self.trainer.fit(self.learner, self.dataset, run)

    def rehearse(self) -> Metrics:
        """A forward pass and loss on two items: what `dl-lab check` runs on generated data."""
        return self.trainer.rehearse(self.learner, self.dataset)

    def describe(self) -> dict[str, Any]:
        """What is known before the first step: the data, the size of the model, the device."""
        n_parameters, n_trainable = self.learner.n_parameters()
        return {
            "dataset": self.dataset.summary(),
            "parameters": n_parameters,
            "trainable": n_trainable,
            "device": str(choose_device(self.trainer.device)),
        }

    def n_parameters(self) -> tuple[int, int]:
        """(all, trainable)."""
        return self.learner.n_parameters()
