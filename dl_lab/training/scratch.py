"""Learning without autograd: a NumPy model of `from_scratch` as a learner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from dl_lab.tasks.inputs import as_tuple
from dl_lab.training.base_learner import BaseLearner
from dl_lab.types import Batch, Confusion, LabelledBatch, Metrics, Ratio, Tally, Total, UserError

Arrays = Mapping[str, np.ndarray]


class NumpyModel(Protocol):
    """(n, n_features) -> (n,) classes. It learns in the order of the batch, one sample or mini-batch a step.

    Attributes:
        n_classes: The number of classes.
        n_right: How many samples the last update classified right, each one before its own step.
    """

    n_classes: int
    n_right: int

    def update(self, x: np.ndarray, y: np.ndarray, /) -> float:
        """Learn from x (n, n_features) and y (n,). Return the sum of the losses, each one before its own step."""
        ...

    def predict(self, x: np.ndarray, /) -> np.ndarray:
        """Return the classes (n,) of x (n, n_features)."""
        ...

    def state_dict(self) -> Arrays:
        """Return the weights."""
        ...

    def load_state_dict(self, state: Arrays, /) -> None:
        """Take back what `state_dict` gave."""
        ...


class ScratchLearner(BaseLearner):
    """A NumPy model as a learner. The model cuts each batch into its own steps, of one sample or a mini-batch.

    So trainer.batch_size changes no result if it is a multiple of the model's own batch size.

    Images are flattened. The models compute in float64; float32 pixels that were divided by 256 convert to it exactly.

    The tally of an update has "loss" (mean) and "loss_sum" (sum): the mistakes of a perceptron, or the losses of other
    models before each sample's own step. Its "running_accuracy" counts the samples that were classified right before
    their own step, as many loops print it. The tally of an evaluation has "accuracy", "confusion" and, for a model that
    gives probabilities, "cross_entropy".

    Args:
        model: The model.
    """

    def __init__(self, model: NumpyModel) -> None:
        self.model = model

    def to(self, device: torch.device) -> None:
        """Refuse every device but the processor."""
        if device.type != "cpu":
            raise UserError(f"A NumPy model runs on the processor, not on {device}: use trainer.device=cpu.")

    def update(self, batch: Batch, weight: float = 1.0) -> Tally:
        """Learn from the batch in the model's own steps."""
        x, y = _to_arrays(batch)
        loss = self.model.update(x, y)
        n = len(y)
        return {
            "loss": Ratio(loss, n),
            "loss_sum": Total(loss),
            "running_accuracy": Ratio(float(self.model.n_right), n),
        }

    def probabilities(self) -> Callable[[np.ndarray], np.ndarray] | None:
        """Return the model's function (n, n_features) -> probabilities (n, n_classes); None without one."""
        return getattr(self.model, "probabilities", None)

    def evaluate(self, batch: Batch) -> Tally:
        """Judge one batch."""
        x, y = _to_arrays(batch)
        probabilities = self.probabilities()
        if probabilities is None:
            return _count(self.model.predict(x), y, self.model.n_classes)
        p = probabilities(x)  # (n, n_classes)
        of_truth = np.maximum(p[np.arange(len(y)), y], np.finfo(p.dtype).tiny)  # log 0 would end the sum
        tally = {"cross_entropy": Ratio(-float(np.log(of_truth).sum()), len(y))}
        return tally | _count(p.argmax(axis=1), y, self.model.n_classes)

    def rates(self) -> Metrics:
        """Return the learning rate of the model; {} for a perceptron, which has none."""
        lr = getattr(self.model, "lr", None)
        return {} if lr is None else {"lr": float(lr)}

    def weights(self) -> dict[str, Tensor]:
        """Return the arrays of the model as tensors."""
        return {name: torch.from_numpy(array) for name, array in self.model.state_dict().items()}

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take back what `weights` gave."""
        self.model.load_state_dict({name: tensor.numpy() for name, tensor in weights.items()})

    def n_parameters(self) -> tuple[int, int]:
        """Return the size of the model twice: all its parameters learn."""
        size = sum(array.size for array in self.model.state_dict().values())
        return size, size

    def state_dict(self) -> dict[str, Tensor]:
        """Return the weights: they are the whole state."""
        return self.weights()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state_dict` gave."""
        self.load_weights(state)


def _to_arrays(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    x, y = as_tuple(batch, LabelledBatch)
    return x.flatten(1).numpy(), y.numpy()


def _count(predicted: np.ndarray, y: np.ndarray, n_classes: int) -> Tally:
    counts = np.bincount(y * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)
    return {
        "accuracy": Ratio(float((predicted == y).sum()), len(y)),
        "confusion": Confusion(torch.from_numpy(counts)),
    }
