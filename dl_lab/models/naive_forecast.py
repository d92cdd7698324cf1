"""Forecasts that need no training by gradient: what any other forecast must beat."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Persistence(nn.Module):
    """(batch, length, features) -> (batch, horizon, features): it stays as it is."""

    def __init__(self, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon

    def forward(self, x: Tensor) -> Tensor:
        return x[:, -1:].expand(-1, self.horizon, -1)


class Seasonal(nn.Module):
    """(batch, length, features) -> (batch, horizon, features): as one period before; length at least
    `period`.
    """

    def __init__(self, horizon: int, period: int) -> None:
        super().__init__()
        self.horizon, self.period = horizon, period

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] < self.period:
            raise ValueError(f"a window of {x.shape[1]} steps does not hold a period of {self.period}")
        steps = torch.arange(self.horizon, device=x.device) % self.period
        return x[:, x.shape[1] - self.period + steps]


class LinearAutoregression(nn.Module):
    """(batch, length, features) -> (batch, horizon, features), an affine map of the window.

    `fit` solves the least squares with a ridge in closed form, in double precision.
    """

    def __init__(self, length: int, n_features: int, horizon: int) -> None:
        super().__init__()
        self.horizon = horizon
        self.map = nn.Linear(length * n_features, horizon * n_features, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.map(x.flatten(1).double()).float().unflatten(1, (self.horizon, -1))

    @torch.no_grad()
    def fit(self, x: Tensor, y: Tensor, ridge: float = 1e-3) -> LinearAutoregression:
        """x (n, length, features), y (n, horizon, features); the mean is not shrunk."""
        inputs, targets = x.flatten(1).double(), y.flatten(1).double()
        center_in, center_out = inputs.mean(dim=0), targets.mean(dim=0)
        inputs, targets = inputs - center_in, targets - center_out
        gram = inputs.T @ inputs
        gram.diagonal().add_(ridge)
        weights = torch.linalg.solve(gram, inputs.T @ targets)  # (length * features, horizon * features)
        self.map.weight.copy_(weights.T)
        self.map.bias.copy_(center_out - center_in @ weights)
        return self


class FromLast(nn.Module):
    """(batch, length, features) -> (batch, horizon, features): the last step plus the change that `model`
    forecasts.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return x[:, -1:] + self.model(x)
