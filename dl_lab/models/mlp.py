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
    """Hidden layers and a linear layer: (batch, *input_shape) -> (batch, n_classes) logits.

    A hidden layer is a linear map, the activation and dropout. With hidden [200, 200] on 28x28 images and 4 classes
    this is the net IST1-FFN of 198,004 parameters.

    Args:
        input_shape: Shape of one item.
        n_classes: Number of logits.
        hidden: Width of each hidden layer; none gives a linear classifier.
        activation: Name of the activation.
        dropout: Probability after each hidden layer.
        initialise: Applied to every module, children first (`nn.Module.apply`); None keeps PyTorch's own weights.
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
