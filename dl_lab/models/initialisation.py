"""Initial weights, for a model's argument `initialise`, which `nn.Module.apply` calls on every module."""

from __future__ import annotations

from torch import nn


def pytorch(module: nn.Module) -> None:
    """Keep PyTorch's own initial weights, uniform in +-1/sqrt(fan_in)."""


def normal(module: nn.Module, std: float, mean: float = 0.0) -> None:
    """Draw a linear layer's weights from N(mean, std^2) and set its bias to zero. Other modules stay as they are.

    Args:
        module: The module; only a linear layer changes.
        std: Standard deviation of the weights.
        mean: Mean of the weights.
    """
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, mean, std)
        nn.init.zeros_(module.bias)


def xavier(module: nn.Module) -> None:
    """Draw the weights of convolutions and linear layers from U(-a, a), a = sqrt(6 / (fan_in + fan_out)); zero biases.

    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks", 2010,
    equation 16.
    """
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        _set_bias_to_zero(module)


def he(module: nn.Module) -> None:
    """Draw the weights of convolutions and linear layers from N(0, 2 / fan_in); zero biases.

    Source: He et al., "Delving deep into rectifiers", arXiv 1502.01852, equation 10.
    """
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        _set_bias_to_zero(module)


def _set_bias_to_zero(module: nn.Conv2d | nn.Linear) -> None:
    if module.bias is not None:
        nn.init.zeros_(module.bias)
