"""Fully connected autoencoder (Hinton and Salakhutdinov 2006, trained end to end)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import nn

ACTIVATIONS = {
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}
Activation = Literal["linear", "relu", "leaky_relu", "sigmoid", "tanh"]


class Autoencoder(nn.Sequential):
    """Linear layers down to a code and up again: (batch, *input_shape) -> (batch, *input_shape).

    Args:
        input_shape: Shape of one item.
        encoder: Widths of the encoder's layers; the last width is the size of the code.
        decoder: Widths of the layers between the code and the output.
        activation: What follows every layer but the last.
        output: What follows the last layer.
        weight_std: Draws the weights from N(0, weight_std²); None keeps PyTorch's own initial weights.

    Attributes:
        code_size: The width of the code.

    Raises:
        ValueError: `encoder` is empty.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        encoder: Sequence[int],
        decoder: Sequence[int] = (),
        activation: Activation = "sigmoid",
        output: Activation = "sigmoid",
        weight_std: float | None = None,
    ) -> None:
        if not encoder:
            raise ValueError("encoder is empty: its last width is the size of the code")
        size = math.prod(input_shape)
        layers: list[nn.Module] = [nn.Flatten()]
        for width_in, width_out in pairwise([size, *encoder, *decoder]):
            layers += [nn.Linear(width_in, width_out), ACTIVATIONS[activation]()]
        last = nn.Linear([*encoder, *decoder][-1], size)
        super().__init__(*layers, last, ACTIVATIONS[output](), nn.Unflatten(1, tuple(input_shape)))
        self.code_size = encoder[-1]
        if weight_std is not None:
            for layer in self:
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=weight_std)
