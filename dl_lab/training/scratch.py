"""Learning without autograd: a NumPy model of `from_scratch` behind the Learner protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dl_lab.types import Confusion, LabelledBatch, Metrics, Ratio, Tally, Total, UserError

Arrays = Mapping[str, np.ndarray]


class NumpyModel(Protocol):
    """(n, n_features) -> (n,) classes, learning sample by sample in the order given."""

    n_classes: int

    def update(self, x: np.ndarray, y: np.ndarray, /) -> float:
        """The sum of the samples' losses, each one before its own step."""
        ...

    def predict(self, x: np.ndarray, /) -> np.ndarray: ...

    def state_dict(self) -> Mapping[str, np.ndarray]: ...

    def load_state_dict(self, state: Arrays, /) -> None: ...


class ScratchLearner:
    """A NumPy model as a learner: each sample of a batch is one update, so the batch size changes no result.

    Training tallies what `model.update` returns, as mean ("loss") and as sum ("loss_sum"): for the perceptron the
    mistakes, else the losses before each sample's own step. Judging tallies accuracy and, of a model that gives
    probabilities, "cross_entropy". Images are flattened; the models compute in float64, to which float32 pixels
    divided by 256 convert exactly.
    """

    def __init__(self, model: NumpyModel) -> None:
        self.model = model

    def to(self, device: torch.device) -> None:
        if device.type != "cpu":
            raise UserError(f"A NumPy model runs on the processor, not on {device}: use trainer.device=cpu.")

    def update(self, batch: LabelledBatch) -> Tally:
        loss = self.model.update(*_arrays(batch))
        return {"loss": Ratio(loss, len(batch.y)), "loss_sum": Total(loss)}

    def evaluate(self, batch: LabelledBatch) -> Tally:
        x, y = _arrays(batch)
        probabilities = getattr(self.model, "probabilities", None)
        if probabilities is None:
            return _counts(self.model.predict(x), y, self.model.n_classes)
        p = probabilities(x)  # (n, n_classes)
        of_truth = np.maximum(p[np.arange(len(y)), y], np.finfo(p.dtype).tiny)  # log 0 would end the sum
        tally = {"cross_entropy": Ratio(-float(np.log(of_truth).sum()), len(y))}
        return tally | _counts(p.argmax(axis=1), y, self.model.n_classes)

    def plan(self, n_updates: int) -> None:
        """Nothing here is scheduled."""

    def end_epoch(self, metrics: Metrics) -> None:
        """There is no schedule."""

    def rates(self) -> Metrics:
        lr = getattr(self.model, "lr", None)  # the perceptron has none
        return {} if lr is None else {"lr": float(lr)}

    def notes(self) -> dict[str, Any]:
        return {}

    def weights(self) -> dict[str, Tensor]:
        return {name: torch.from_numpy(array) for name, array in self.model.state_dict().items()}

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        self.model.load_state_dict({name: tensor.numpy() for name, tensor in weights.items()})

    def n_parameters(self) -> tuple[int, int]:
        size = sum(array.size for array in self.model.state_dict().values())
        return size, size

    def state_dict(self) -> dict[str, Any]:
        return self.weights()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.load_weights(state)


def _arrays(batch: LabelledBatch) -> tuple[np.ndarray, np.ndarray]:
    return batch.x.flatten(1).numpy(), batch.y.numpy()


def _counts(predicted: np.ndarray, y: np.ndarray, n_classes: int) -> Tally:
    counts = np.bincount(y * n_classes + predicted, minlength=n_classes**2).reshape(n_classes, n_classes)
    return {
        "accuracy": Ratio(float((predicted == y).sum()), len(y)),
        "confusion": Confusion(torch.from_numpy(counts)),
    }
