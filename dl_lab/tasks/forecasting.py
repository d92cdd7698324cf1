"""Forecasting: mean squared error of the scaled values, measured by R² and absolute error."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl_lab.types import ForecastBatch, Metrics, Ratio, Tally


@dataclass(slots=True)
class Determination:
    """Sums per feature from which R² follows exactly: of n, y, y² and squared errors, each (features,)
    float64
    (scaled values, so that the sums do not cancel)."""

    count: Tensor
    total: Tensor
    squares: Tensor
    errors: Tensor

    @classmethod
    def of(cls, predicted: Tensor, actual: Tensor, observed: Tensor | None = None) -> Determination:
        """From (batch, horizon, features); where `observed` is False an entry does not count."""
        weight = torch.ones_like(actual) if observed is None else observed
        weight, y, error = weight.double(), actual.double(), (predicted - actual).double()
        return cls(*[(weight * term).sum(dim=(0, 1)) for term in (torch.ones_like(y), y, y**2, error**2)])

    def __add__(self, other: Determination) -> Determination:
        return Determination(
            self.count + other.count,
            self.total + other.total,
            self.squares + other.squares,
            self.errors + other.errors,
        )

    def spread(self) -> Tensor:
        """Total sum of squares about the mean, per feature."""
        return (self.squares - self.total**2 / self.count.clamp(min=1)).clamp(min=0)

    def per_feature(self) -> Tensor:
        """R² (features,); NaN for a feature that does not vary, for which R² is not defined."""
        spread = self.spread()
        varies = spread > 1e-9 * self.count.clamp(min=1)
        return torch.where(varies, 1 - self.errors / spread, torch.nan)

    def pooled(self) -> float:
        """Weighted by the features' variances (scikit-learn's variance_weighted)."""
        return float(1 - self.errors.sum() / self.spread().sum())

    def uniform(self) -> float:
        """The plain mean over the features that vary."""
        return float(self.per_feature().nanmean())

    def values(self, name: str) -> Metrics:
        """r2 (pooled by variance) and r2_uniform."""
        return {name: self.pooled(), f"{name}_uniform": self.uniform()}


class Forecasting:
    """Predictions (batch, horizon, features) against what came, all in scaled units.

    r2 counts every step, also those whose target was filled in; r2_observed only what was measured.
    """

    def loss(self, model: nn.Module, batch: ForecastBatch) -> tuple[Tensor, Tally]:
        predicted = model(batch.x)
        loss, size = F.mse_loss(predicted, batch.y), len(batch.y)
        return loss, {"loss": Ratio(loss.detach() * size, size)}

    def measure(self, model: nn.Module, batch: ForecastBatch) -> Tally:
        predicted, size = model(batch.x), len(batch.y)
        return {
            "loss": Ratio(F.mse_loss(predicted, batch.y) * size, size),
            "mae": Ratio((predicted - batch.y).abs().mean() * size, size),
            "r2": Determination.of(predicted, batch.y),
            "r2_observed": Determination.of(predicted, batch.y, batch.observed),
        }
