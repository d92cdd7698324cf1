"""Reconstruction: mean squared error of what comes out against what went in, before noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl_lab.types import Batch, Ratio, Tally


class Reconstruction:
    """A model (batch, ...) -> (batch, ...) of the same shape, measured by its mean squared error (the loss).

    noise: standard deviation of Gaussian noise that is added to the input (a denoising autoencoder, Vincent
    et al. 2008); the target stays clean. clip: the noisy input is cut to [0, 1]. Evaluation draws the same
    noise at every look, from a generator of its own, so that it neither varies nor disturbs training.
    """

    def __init__(self, noise: float = 0.0, clip: bool = True) -> None:
        if noise < 0:
            raise ValueError(f"noise {noise} is negative")
        self.noise, self.clip = noise, clip

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tally]:
        loss, size = F.mse_loss(model(self.noisy(batch.x)), batch.x), len(batch.x)
        return loss, {"loss": Ratio(loss.detach() * size, size)}

    def measure(self, model: nn.Module, batch: Batch) -> Tally:
        generator = torch.Generator(batch.x.device).manual_seed(0)
        loss, size = F.mse_loss(model(self.noisy(batch.x, generator)), batch.x), len(batch.x)
        return {"loss": Ratio(loss * size, size)}

    def noisy(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        if self.noise == 0:
            return x
        drawn = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        noisy = x + self.noise * drawn
        return noisy.clamp(0, 1) if self.clip else noisy
