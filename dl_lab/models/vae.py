"""Variational autoencoder (Kingma and Welling 2014): dense and convolutional."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from dl_lab.models.autoencoder import ACTIVATIONS, Activation


class VAE(nn.Module):
    """(batch, *input_shape) -> logits (batch, *input_shape), mean and log-variance (batch, latent_dim) of the
    code.

    z = mean + exp(log_variance / 2) * noise (the reparameterisation, eq. 4). With hidden [256, 128] and two
    latent dimensions on 28x28 images 469,268 parameters; the decoder mirrors the encoder.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        hidden: Sequence[int] = (256, 128),
        latent_dim: int = 2,
        activation: Activation = "leaky_relu",
    ) -> None:
        super().__init__()
        size = math.prod(input_shape)
        self.latent_dim = latent_dim
        self.encoder = nn.Sequential(nn.Flatten(), *_dense([size, *hidden], activation))
        self.mean = nn.Linear(hidden[-1], latent_dim)
        self.log_variance = nn.Linear(hidden[-1], latent_dim)
        self.decoder = nn.Sequential(
            *_dense([latent_dim, *reversed(hidden)], activation),
            nn.Linear(hidden[0], size),
            nn.Unflatten(1, tuple(input_shape)),
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x)."""
        hidden = self.encoder(x)
        return self.mean(hidden), self.log_variance(hidden)

    def decode(self, z: Tensor) -> Tensor:
        """Logits of the pixels."""
        return self.decoder(z)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encode(x)
        return self.decode(sample(mean, log_variance, generator)), mean, log_variance


class ConvVAE(nn.Module):
    """As VAE, with two strided convolutions each way; height and width must be multiples of 4."""

    def __init__(
        self,
        input_shape: Sequence[int],
        channels: Sequence[int] = (16, 32),
        latent_dim: int = 2,
        activation: Activation = "leaky_relu",
    ) -> None:
        super().__init__()
        depth, height, width = input_shape
        if height % 4 or width % 4:
            raise ValueError(f"images of {height} x {width} are not multiples of 4")
        first, second = channels
        small = (second, height // 4, width // 4)
        act = ACTIVATIONS[activation]
        self.latent_dim = latent_dim
        self.encoder = nn.Sequential(
            nn.Conv2d(depth, first, 4, stride=2, padding=1),
            act(),
            nn.Conv2d(first, second, 4, stride=2, padding=1),
            act(),
            nn.Flatten(),
        )
        self.mean = nn.Linear(math.prod(small), latent_dim)
        self.log_variance = nn.Linear(math.prod(small), latent_dim)
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, math.prod(small)),
            act(),
            nn.Unflatten(1, small),
            nn.ConvTranspose2d(second, first, 4, stride=2, padding=1),
            act(),
            nn.ConvTranspose2d(first, depth, 4, stride=2, padding=1),
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x)."""
        hidden = self.encoder(x)
        return self.mean(hidden), self.log_variance(hidden)

    def decode(self, z: Tensor) -> Tensor:
        """Logits of the pixels."""
        return self.decoder(z)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encode(x)
        return self.decode(sample(mean, log_variance, generator)), mean, log_variance


def sample(mean: Tensor, log_variance: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """z of N(mean, exp(log_variance)), differentiable in both."""
    noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
    return mean + (log_variance / 2).exp() * noise


def _dense(widths: Sequence[int], activation: Activation) -> list[nn.Module]:
    return [
        layer
        for width_in, width_out in pairwise(widths)
        for layer in (nn.Linear(width_in, width_out), ACTIVATIONS[activation]())
    ]
