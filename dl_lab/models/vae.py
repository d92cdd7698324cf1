"""Variational autoencoder (Kingma and Welling 2014): dense and convolutional."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from dl_lab.models.autoencoder import ACTIVATIONS, Activation


class VAE(nn.Module):
    """A dense variational autoencoder whose decoder mirrors the encoder.

    z = mean + exp(log_variance / 2) * noise (the reparameterisation, eq. 4). With hidden [256, 128] and two latent
    dimensions on 28x28 images it has 469,268 parameters.

    Args:
        input_shape: Shape of one item.
        hidden: Widths of the encoder's hidden layers.
        latent_dim: Size of the code z.
        activation: Name of the activation.
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
        self.encoder = nn.Sequential(nn.Flatten(), *_make_dense_layers([size, *hidden], activation))
        self.mean = nn.Linear(hidden[-1], latent_dim)
        self.log_variance = nn.Linear(hidden[-1], latent_dim)
        self.decoder = nn.Sequential(
            *_make_dense_layers([latent_dim, *reversed(hidden)], activation),
            nn.Linear(hidden[0], size),
            nn.Unflatten(1, tuple(input_shape)),
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the log-variance of q(z|x), (batch, latent_dim) each, for x (batch, *input_shape)."""
        hidden = self.encoder(x)
        return self.mean(hidden), self.log_variance(hidden)

    def decode(self, z: Tensor) -> Tensor:
        """Map codes z (batch, latent_dim) to the logits of the pixels, (batch, *input_shape)."""
        return self.decoder(z)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Encode x, draw a code and decode it.

        Args:
            x: Images (batch, *input_shape).
            generator: Where the noise comes from; None takes torch's own.

        Returns:
            Logits of the pixels (batch, *input_shape); mean and log-variance of the code, (batch, latent_dim) each.
        """
        mean, log_variance = self.encode(x)
        return self.decode(sample(mean, log_variance, generator)), mean, log_variance


class ConvVAE(nn.Module):
    """A variational autoencoder with two strided convolutions down and two up.

    Args:
        input_shape: (channels, height, width) of an image.
        channels: Channels of the first and the second convolution.
        latent_dim: Size of the code z.
        activation: Name of the activation.

    Raises:
        ValueError: The height or the width is not a multiple of 4.
    """

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
            raise ValueError(f"the sides of {height} x {width} images are not multiples of 4")
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
        """Return the mean and the log-variance of q(z|x), (batch, latent_dim) each, for x (batch, *input_shape)."""
        hidden = self.encoder(x)
        return self.mean(hidden), self.log_variance(hidden)

    def decode(self, z: Tensor) -> Tensor:
        """Map codes z (batch, latent_dim) to the logits of the pixels, (batch, *input_shape)."""
        return self.decoder(z)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Encode x, draw a code and decode it.

        Args:
            x: Images (batch, *input_shape).
            generator: Where the noise comes from; None takes torch's own.

        Returns:
            Logits of the pixels (batch, *input_shape); mean and log-variance of the code, (batch, latent_dim) each.
        """
        mean, log_variance = self.encode(x)
        return self.decode(sample(mean, log_variance, generator)), mean, log_variance


def sample(mean: Tensor, log_variance: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw z from N(mean, exp(log_variance)), differentiable in both.

    Args:
        mean: Means (batch, latent_dim).
        log_variance: Log-variances (batch, latent_dim).
        generator: Where the noise comes from; None takes torch's own.

    Returns:
        The codes z (batch, latent_dim).
    """
    noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
    return mean + (log_variance / 2).exp() * noise


def _make_dense_layers(widths: Sequence[int], activation: Activation) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths):
        layers += [nn.Linear(width_in, width_out), ACTIVATIONS[activation]()]
    return layers
