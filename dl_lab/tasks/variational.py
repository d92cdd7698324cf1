"""Variational inference: reconstruction plus beta times the KL divergence; the evidence bound in nats."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl_lab.tasks.inputs import as_tuple
from dl_lab.types import Batch, Ratio, Tally, WindowBatch


class Variational:
    """A model (batch, ...) -> logits of the pixels, mean and log-variance of the code.

    The loss is the coursework's: the binary cross-entropy, averaged over pixels and batch, plus `beta` times the KL
    term, summed over latent dimensions and averaged over the batch.

    `negative_elbo` judges the model in nats per image: the cross-entropy summed over pixels plus the whole KL term. So
    it compares with the literature for any beta. (On grey pixels the cross-entropy only stands in for a bound, in the
    literature too.)

    Args:
        beta: Factor of the KL term, at least 0; 1 / pixels trains the bound itself.

    Raises:
        ValueError: `beta` is negative.
    """

    def __init__(self, beta: float = 1e-3) -> None:
        if beta < 0:
            raise ValueError(f"beta {beta} is negative")
        self.beta = beta

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tally]:
        """Return the loss, and the tally of the loss, its parts and the negative evidence bound."""
        x = as_tuple(batch, WindowBatch).x
        return self._judge(x, *model(x))

    def measure(self, model: nn.Module, batch: Batch) -> Tally:
        """Return the tally of `loss`, with the same noise at every call."""
        x = as_tuple(batch, WindowBatch).x
        generator = torch.Generator(x.device).manual_seed(0)  # the same noise at every evaluation
        return self._judge(x, *model(x, generator))[1]

    def _judge(self, x: Tensor, logits: Tensor, mean: Tensor, log_variance: Tensor) -> tuple[Tensor, Tally]:
        size = len(x)
        pixels = x[0].numel()
        reconstruction = F.binary_cross_entropy_with_logits(logits, x)
        kl = divergence(mean, log_variance).sum(dim=1).mean()
        loss = reconstruction + self.beta * kl
        bce = reconstruction.detach()
        nats = kl.detach()
        return loss, {
            "loss": Ratio(loss.detach() * size, size),
            "reconstruction": Ratio(bce * size, size),
            "weighted_kl": Ratio(self.beta * nats * size, size),
            "kl": Ratio(nats * size, size),
            "negative_elbo": Ratio((bce * pixels + nats) * size, size),
        }


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(mean, exp(log_variance)) || N(0, 1)) of each dimension, in nats.

    Source: Kingma and Welling 2014, appendix B.

    Args:
        mean: Means (batch, latent_dim).
        log_variance: Log-variances (batch, latent_dim).

    Returns:
        The divergences (batch, latent_dim).
    """
    return -0.5 * (1 + log_variance - mean**2 - log_variance.exp())
