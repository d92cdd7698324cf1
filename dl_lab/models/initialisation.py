"""Initial weights, for a model's `initialise` argument: each is applied to every module (`nn.Module.apply`)."""

from __future__ import annotations

from torch import nn


def pytorch(module: nn.Module) -> None:
    """PyTorch's own initial weights stay: uniform in +-1/sqrt(fan_in)."""


def normal(module: nn.Module, std: float, mean: float = 0.0) -> None:
    """Of a linear layer: weights from N(mean, std^2), zero bias. Other modules are left as they are."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, mean, std)
        nn.init.zeros_(module.bias)


def xavier(module: nn.Module) -> None:
    """Of convolutions and linear layers: U(-a, a), a = sqrt(6 / (fan_in + fan_out)), zero bias (Glorot and Bengio,
    "Understanding the difficulty of training deep feedforward neural networks", 2010, equation 16)."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        _zero_bias(module)


def he(module: nn.Module) -> None:
    """Of convolutions and linear layers: N(0, 2 / fan_in), zero bias (He et al., "Delving deep into rectifiers",
    arXiv 1502.01852, equation 10)."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        _zero_bias(module)


def _zero_bias(module: nn.Conv2d | nn.Linear) -> None:
    if module.bias is not None:
        nn.init.zeros_(module.bias)
