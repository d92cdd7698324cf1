"""Multilayer perceptron with dropout."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal

from torch import nn

ACTIVATIONS = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "sigmoid": nn.Sigmoid,
}
Activation = Literal["relu", "tanh", "leaky_relu", "elu", "sigmoid"]


class MLP(nn.Sequential):
    """(batch, *input_shape) -> (batch, n_classes) logits.

    Each hidden layer is Linear, activation, dropout: with hidden [200, 200] on 28x28 images and 4 classes the
    IST1-FFN net of 198,004 parameters. initialise: applied to every module, children first (`nn.Module.apply`);
    None leaves PyTorch's own initial weights.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        n_classes: int,
        hidden: Sequence[int],
        activation: Activation = "relu",
        dropout: float = 0.0,
        initialise: Callable[[nn.Module], None] | None = None,
    ) -> None:
        widths = [math.prod(input_shape), *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for width_in, width_out in pairwise(widths):
            layers += [nn.Linear(width_in, width_out), ACTIVATIONS[activation](), nn.Dropout(dropout)]
        super().__init__(*layers, nn.Linear(widths[-1], n_classes))
        if initialise is not None:
            self.apply(initialise)
