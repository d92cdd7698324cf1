"""Forecasts without training by gradient. Any other forecast must beat them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Persistence(nn.Module):
    """Repeat the last step: (batch, length, features) -> (batch, horizon, features).

    Args:
        horizon: Steps to forecast.
    """

    def __init__(self, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon

    def forward(self, x: Tensor) -> Tensor:
        """Forecast from windows x (batch, length, features): (batch, horizon, features)."""
        return x[:, -1:].expand(-1, self.horizon, -1)


class Seasonal(nn.Module):
    """Repeat the values of one period before: (batch, length, features) -> (batch, horizon, features).

    Args:
        horizon: Steps to forecast.
        period: Steps of one period; a window must have at least as many.
    """

    def __init__(self, horizon: int, period: int) -> None:
        super().__init__()
        self.horizon = horizon
        self.period = period

    def forward(self, x: Tensor) -> Tensor:
        """Forecast from windows x (batch, length, features): (batch, horizon, features).

        Raises:
            ValueError: A window is shorter than a period.
        """
        if x.shape[1] < self.period:
            raise ValueError(f"a window of {x.shape[1]} steps does not hold a period of {self.period}")
        steps = torch.arange(self.horizon, device=x.device) % self.period
        return x[:, x.shape[1] - self.period + steps]


class LinearAutoregression(nn.Module):
    """An affine map of the window: (batch, length, features) -> (batch, horizon, features).

    `fit` finds the map in double precision: ridge regression in closed form.

    Args:
        length: Steps of a window.
        n_features: Features of a step.
        horizon: Steps to forecast.
    """

    def __init__(self, length: int, n_features: int, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon
        self.map = nn.Linear(length * n_features, horizon * n_features, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        """Forecast from windows x (batch, length, features): (batch, horizon, features)."""
        return self.map(x.flatten(1).double()).float().unflatten(1, (self.horizon, -1))

    @torch.no_grad()
    def fit(self, x: Tensor, y: Tensor, ridge: float = 1e-3) -> LinearAutoregression:
        """Solve the ridge regression; the penalty does not shrink the mean.

        Args:
            x: Windows (n, length, features).
            y: The steps after them, (n, horizon, features).
            ridge: Factor of the squared weights in the penalty.

        Returns:
            The model itself.
        """
        inputs = x.flatten(1).double()
        targets = y.flatten(1).double()
        center_in = inputs.mean(dim=0)
        center_out = targets.mean(dim=0)
        inputs = inputs - center_in
        targets = targets - center_out
        gram = inputs.T @ inputs
        gram.diagonal().add_(ridge)
        weights = torch.linalg.solve(gram, inputs.T @ targets)  # (length * features, horizon * features)
        self.map.weight.copy_(weights.T)
        self.map.bias.copy_(center_out - center_in @ weights)
        return self


class FromLast(nn.Module):
    """Add the change that a model forecasts to the last step: (batch, length, features) -> (batch, horizon, features).

    Args:
        model: Forecasts the change from the last step, with the same shapes.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Forecast from windows x (batch, length, features): (batch, horizon, features)."""
        return x[:, -1:] + self.model(x)
