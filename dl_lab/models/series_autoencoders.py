"""Autoencoders for windows of a series: convolutional and recurrent."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class ConvAutoencoder(nn.Module):
    """Strided convolutions and their transposes: (batch, length, features) -> (batch, length, features).

    Each strided convolution divides the length; the transposed convolutions restore it. With channels [16, 8] on one
    feature the net has 905 parameters at any stride.

    Args:
        input_shape: (length, features) of a window.
        channels: Channels of each convolution.
        kernel_size: Steps that a convolution sees.
        stride: By how much a convolution divides the length.

    Raises:
        ValueError: The length is not a multiple of stride ** len(channels).
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        channels: Sequence[int] = (16, 8),
        kernel_size: int = 3,
        stride: int = 2,
    ) -> None:
        super().__init__()
        length, n_features = input_shape
        if length % stride ** len(channels):
            raise ValueError(f"a window's length {length} is not a multiple of {stride ** len(channels)}")
        padding = kernel_size // 2
        down = []
        up = []
        for width_in, width_out in pairwise([n_features, *channels]):
            down += [nn.Conv1d(width_in, width_out, kernel_size, stride, padding), nn.ReLU()]
            restore = nn.ConvTranspose1d(width_out, width_in, kernel_size, stride, padding, stride - 1)
            up = [nn.ReLU(), restore, *up]
        self.encoder = nn.Sequential(*down)
        self.decoder = nn.Sequential(*up[1:])

    def forward(self, x: Tensor) -> Tensor:
        """Map windows x (batch, length, features) to reconstructions of the same shape."""
        return self.decoder(self.encoder(x.transpose(1, 2))).transpose(1, 2)


class LSTMAutoencoder(nn.Module):
    """An LSTM down to a code and an LSTM up again: (batch, length, features) -> (batch, length, features).

    The encoder's last state is the code, which the decoder gets at every step (Malhotra et al. 2016, without their
    reversed order).

    Args:
        input_shape: (length, features) of a window.
        hidden: Size of the code.
    """

    def __init__(self, input_shape: Sequence[int], hidden: int = 32) -> None:
        super().__init__()
        _, n_features = input_shape
        self.encoder = nn.LSTM(n_features, hidden, batch_first=True)
        self.decoder = nn.LSTM(hidden, hidden, batch_first=True)
        self.output = nn.Linear(hidden, n_features)

    def forward(self, x: Tensor) -> Tensor:
        """Map windows x (batch, length, features) to reconstructions of the same shape."""
        _, (code, _) = self.encoder(x)  # (1, batch, hidden)
        repeated = code.transpose(0, 1).expand(-1, x.shape[1], -1)
        return self.output(self.decoder(repeated)[0])
