"""Initial weights other than PyTorch's own, for a model's `initialise` argument."""

from __future__ import annotations

from torch import nn


def normal(module: nn.Module, std: float, mean: float = 0.0) -> None:
    """Of a linear layer: weights from N(mean, std^2), zero bias. Other modules are left as they are."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, mean, std)
        nn.init.zeros_(module.bias)
