"""Autoencoders of windows of a series: convolutional and recurrent."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class ConvAutoencoder(nn.Module):
    """(batch, length, features) -> (batch, length, features).

    Each strided convolution divides the length, which must be a multiple of stride**len(channels); the
    transposed ones restore it. With channels [16, 8] on one feature 905 parameters, at any stride.
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
            raise ValueError(f"a window of {length} is not a multiple of {stride ** len(channels)}")
        widths, padding = [n_features, *channels], kernel_size // 2
        down, up = [], []
        for width_in, width_out in pairwise(widths):
            down += [nn.Conv1d(width_in, width_out, kernel_size, stride, padding), nn.ReLU()]
            restore = nn.ConvTranspose1d(width_out, width_in, kernel_size, stride, padding, stride - 1)
            up = [nn.ReLU(), restore, *up]
        self.encoder, self.decoder = nn.Sequential(*down), nn.Sequential(*up[1:])

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x.transpose(1, 2))).transpose(1, 2)


class LSTMAutoencoder(nn.Module):
    """(batch, length, features) -> (batch, length, features).

    The encoder's last state is the code; the decoder gets it at every step (Malhotra et al. 2016, without
    their reversed order).
    """

    def __init__(self, input_shape: Sequence[int], hidden: int = 32) -> None:
        super().__init__()
        _, n_features = input_shape
        self.encoder = nn.LSTM(n_features, hidden, batch_first=True)
        self.decoder = nn.LSTM(hidden, hidden, batch_first=True)
        self.output = nn.Linear(hidden, n_features)

    def forward(self, x: Tensor) -> Tensor:
        _, (code, _) = self.encoder(x)  # (1, batch, hidden)
        repeated = code.transpose(0, 1).expand(-1, x.shape[1], -1)
        return self.output(self.decoder(repeated)[0])
