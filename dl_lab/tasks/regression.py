"""Regression: a number for each item, with any loss; measured in the number's own unit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dl_lab.tasks.inputs import predict, require_same_shape
from dl_lab.tasks.losses import NUMBER_LOSSES, Loss, NumberLoss, choose_loss, move_loss
from dl_lab.types import Batch, Metrics, Ratio, Splits, Tally


@dataclass(slots=True)
class RootMean:
    """The root of a mean, kept as a ratio of sums."""

    sum: Tensor | float
    count: Tensor | int

    def __add__(self, other: RootMean) -> RootMean:
        return RootMean(self.sum + other.sum, self.count + other.count)

    def values(self, name: str) -> Metrics:
        """Return the root of the mean under the name itself."""
        return {name: (float(self.sum) / float(self.count)) ** 0.5}


@dataclass(slots=True)
class Determined:
    """The sums from which R² follows exactly.

    Attributes:
        sums: The number of values, and the sums of y, y² and the squared errors, (4,) float64.
    """

    sums: Tensor

    @classmethod
    def of(cls, predicted: Tensor, actual: Tensor) -> Determined:
        """Sum up predictions (batch,) against numbers (batch,)."""
        y = actual.double()
        errors = (predicted.double() - y).square()
        return cls(torch.stack([torch.ones_like(y).sum(), y.sum(), y.square().sum(), errors.sum()]))

    def __add__(self, other: Determined) -> Determined:
        return Determined(self.sums + other.sums)

    def values(self, name: str) -> Metrics:
        """Return R²; nothing if the numbers do not vary."""
        n, total, squares, errors = self.sums.tolist()
        spread = squares - total**2 / n
        if spread <= 1e-12 * max(squares, 1.0):
            return {}
        return {name: 1 - errors / spread}


class Regression:
    """Outputs (batch, 1) against numbers (batch,), the batch's last column or its column "y".

    The loss compares scaled numbers. `mae` and `rmse` are in the number's own unit for any loss.

    Args:
        scale: Factor that turns a scaled number back into its own unit (the deviation of the training rows).
        loss: "mse", "l1", "huber" or "smooth_l1" (torch's, with their defaults), or a function of the predicted and the
            actual numbers (batch,) that returns the mean over the batch, such as `torch.nn.HuberLoss(delta=0.5)`.

    Raises:
        ValueError: The loss cannot be used (see `choose_loss`).
    """

    def __init__(self, scale: float = 1.0, loss: NumberLoss | Loss = "mse") -> None:
        self.scale = scale
        self.criterion = choose_loss(loss, NUMBER_LOSSES)

    def start(self, dataset: Splits, device: torch.device) -> None:
        """Move the tensors of the loss to the device."""
        move_loss(self.criterion, device)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tally]:
        """Return the mean loss of the scaled numbers, and its tally."""
        predicted, y = self._predict(model, batch)
        loss = self.criterion(predicted, y)
        return loss, {"loss": Ratio(loss.detach() * len(y), len(y))}

    def measure(self, model: nn.Module, batch: Batch) -> Tally:
        """Return the tally of loss, absolute error, root mean squared error and R²."""
        predicted, y = self._predict(model, batch)
        errors = predicted - y
        size = len(y)
        return {
            "loss": Ratio(self.criterion(predicted, y) * size, size),
            "mae": Ratio(errors.abs().sum() * self.scale, size),
            "rmse": RootMean(errors.double().square().sum() * self.scale**2, size),
            "r2": Determined.of(predicted, y),
        }

    def _predict(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the predicted and the actual numbers, (batch,) each."""
        output, y = predict(model, batch)
        if output.shape != (len(y), 1):
            raise ValueError(f"a regression needs one output for each item, not {tuple(output.shape)}")
        require_same_shape(output[:, 0], y)
        return output[:, 0], y
