"""Forecasting: mean squared error of the scaled values, or another loss, measured by R² and absolute error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dl_lab.tasks.inputs import as_tuple, require_same_shape
from dl_lab.tasks.losses import NUMBER_LOSSES, Loss, NumberLoss, choose_loss, move_loss
from dl_lab.types import Batch, LabelledBatch, Metrics, Ratio, Splits, Tally


@dataclass(slots=True)
class Determination:
    """Sums per feature from which R² follows exactly, (features,) float64 each.

    The values are scaled, so that the sums do not cancel.

    Attributes:
        count: Number of values.
        total: Sum of the values.
        squares: Sum of the squared values.
        errors: Sum of the squared errors.
    """

    count: Tensor
    total: Tensor
    squares: Tensor
    errors: Tensor

    @classmethod
    def of(cls, predicted: Tensor, actual: Tensor, observed: Tensor | None = None) -> Determination:
        """Sum up a batch.

        Args:
            predicted: Forecasts (batch, horizon, features).
            actual: What came, the same shape.
            observed: Which entries count, the same shape, bool; None if all count.
        """
        counted = torch.ones_like(actual) if observed is None else observed
        weight = counted.double()
        y = actual.double()
        error = (predicted - actual).double()
        return cls(*[(weight * term).sum(dim=(0, 1)) for term in (torch.ones_like(y), y, y**2, error**2)])

    def __add__(self, other: Determination) -> Determination:
        return Determination(
            self.count + other.count,
            self.total + other.total,
            self.squares + other.squares,
            self.errors + other.errors,
        )

    def spread(self) -> Tensor:
        """Return the sum of squares about the mean, (features,)."""
        return (self.squares - self.total**2 / self.count.clamp(min=1)).clamp(min=0)

    def per_feature(self) -> Tensor:
        """Return R² of each feature, (features,); NaN for a feature that does not vary."""
        spread = self.spread()
        varies = spread > 1e-9 * self.count.clamp(min=1)
        return torch.where(varies, 1 - self.errors / spread, torch.nan)

    def pooled(self) -> float:
        """Return R² weighted by the features' variances (scikit-learn's variance_weighted)."""
        return float(1 - self.errors.sum() / self.spread().sum())

    def uniform(self) -> float:
        """Return the plain mean of R² over the features that vary."""
        return float(self.per_feature().nanmean())

    def values(self, name: str) -> Metrics:
        """Return R² weighted by variance under the name itself, and the plain mean under `<name>_uniform`."""
        return {name: self.pooled(), f"{name}_uniform": self.uniform()}


class Forecasting:
    """Forecasts (batch, horizon, features) against what came, all in scaled units.

    A batch has the columns x and y, and may have `observed` (see `ForecastBatch`). `r2` counts every step, also one
    whose target was filled in. `r2_observed` counts only measured targets.

    Args:
        targets: Positions of the features that count; None counts all.
        loss: "mse", "l1", "huber" or "smooth_l1", or a function of the forecasts and what came, (batch, horizon,
            features) each, that returns the mean over the batch.

    Raises:
        ValueError: The loss cannot be used (see `choose_loss`).
    """

    def __init__(self, targets: Sequence[int] | None = None, loss: NumberLoss | Loss = "mse") -> None:
        self.targets = None if targets is None else list(targets)
        self.criterion = choose_loss(loss, NUMBER_LOSSES)

    def start(self, dataset: Splits, device: torch.device) -> None:
        """Move the loss to the device."""
        move_loss(self.criterion, device)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tally]:
        """Return the loss, and its tally."""
        predicted, actual = self._predict(model, batch)
        loss = self.criterion(predicted, actual)
        return loss, {"loss": Ratio(loss.detach() * len(actual), len(actual))}

    def measure(self, model: nn.Module, batch: Batch) -> Tally:
        """Return the tally of loss, absolute error and R²."""
        predicted, actual = self._predict(model, batch)
        size = len(actual)
        tally: Tally = {
            "loss": Ratio(self.criterion(predicted, actual) * size, size),
            "mae": Ratio((predicted - actual).abs().mean() * size, size),
            "r2": Determination.of(predicted, actual),
        }
        observed = batch.get("observed") if isinstance(batch, Mapping) else getattr(batch, "observed", None)
        if observed is not None:
            tally["r2_observed"] = Determination.of(predicted, actual, self._select(observed))
        return tally

    def _predict(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the forecasts and what came, of the features that count: (batch, horizon, features) each."""
        x, y = as_tuple(batch, LabelledBatch)[:2]
        output = model(x)
        require_same_shape(output, y)
        return self._select(output), self._select(y)

    def _select(self, values: Tensor) -> Tensor:
        """Return the features that count, of values (batch, horizon, features)."""
        return values if self.targets is None else values[..., self.targets]
