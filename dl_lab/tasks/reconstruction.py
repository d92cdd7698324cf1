"""Reconstruction: mean squared error, or another loss, between the output and the input before noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dl_lab.tasks.inputs import as_tuple, require_same_shape
from dl_lab.tasks.losses import NUMBER_LOSSES, Loss, NumberLoss, choose_loss, move_loss
from dl_lab.types import Batch, Ratio, Splits, Tally, WindowBatch


class Reconstruction:
    """A model (batch, ...) -> (batch, ...) of the same shape, measured by its loss.

    The target is the clean input. Every evaluation draws the same noise from a generator of its own, so that its result
    does not vary and the random numbers of the training do not change.

    Args:
        noise: Standard deviation of the Gaussian noise that is added to the input (a denoising autoencoder, Vincent et
            al. 2008), at least 0.
        clip: Whether the noisy input is cut to [0, 1].
        loss: "mse", "l1", "huber" or "smooth_l1", or a function of output and input that returns the mean over the
            batch, such as `torch.nn.BCELoss()`.

    Raises:
        ValueError: `noise` is negative, or the loss cannot be used (see `choose_loss`).
    """

    def __init__(self, noise: float = 0.0, clip: bool = True, loss: NumberLoss | Loss = "mse") -> None:
        if noise < 0:
            raise ValueError(f"noise {noise} is negative")
        self.noise = noise
        self.clip = clip
        self.criterion = choose_loss(loss, NUMBER_LOSSES)

    def start(self, dataset: Splits, device: torch.device) -> None:
        """Move the loss to the device."""
        move_loss(self.criterion, device)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tally]:
        """Return the loss, and its tally."""
        x = as_tuple(batch, WindowBatch).x
        loss = self._compare(model(self.add_noise(x)), x)
        return loss, {"loss": Ratio(loss.detach() * len(x), len(x))}

    def measure(self, model: nn.Module, batch: Batch) -> Tally:
        """Return the tally of the loss, with the same noise at every call."""
        x = as_tuple(batch, WindowBatch).x
        generator = torch.Generator(x.device).manual_seed(0)
        loss = self._compare(model(self.add_noise(x, generator)), x)
        return {"loss": Ratio(loss * len(x), len(x))}

    def _compare(self, output: Tensor, x: Tensor) -> Tensor:
        require_same_shape(output, x)
        return self.criterion(output, x)

    def add_noise(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return x with noise.

        Args:
            x: Inputs of any shape.
            generator: Where the noise comes from; None takes torch's own.
        """
        if self.noise == 0:
            return x
        noise = torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
        noisy = x + self.noise * noise
        return noisy.clamp(0, 1) if self.clip else noisy
