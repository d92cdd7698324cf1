"""Variational inference: reconstruction plus beta times the KL divergence, and the evidence bound in nats."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl_lab.types import Batch, Ratio, Tally


class Variational:
    """A model (batch, ...) -> pixel logits, mean, log-variance.

    The loss is the coursework's: binary cross-entropy averaged over pixels and batch, plus `beta` times the
    KL term summed over latent dimensions, averaged over the batch. negative_elbo is the same model in nats
    per image, the cross-entropy summed over pixels plus the whole KL: comparable with the literature whatever
    beta was trained with (on grey pixels the cross-entropy is only a bound's stand-in, as the literature's
    own use of it is). beta = 1 / pixels trains that bound itself.
    """

    def __init__(self, beta: float = 1e-3) -> None:
        if beta < 0:
            raise ValueError(f"beta {beta} is negative")
        self.beta = beta

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tally]:
        return self._judged(batch.x, *model(batch.x))

    def measure(self, model: nn.Module, batch: Batch) -> Tally:
        generator = torch.Generator(batch.x.device).manual_seed(0)  # the same noise at every look
        return self._judged(batch.x, *model(batch.x, generator))[1]

    def _judged(self, x: Tensor, logits: Tensor, mean: Tensor, log_variance: Tensor) -> tuple[Tensor, Tally]:
        size, pixels = len(x), x[0].numel()
        reconstruction = F.binary_cross_entropy_with_logits(logits, x)
        kl = divergence(mean, log_variance).sum(dim=1).mean()
        loss = reconstruction + self.beta * kl
        bce, nats = reconstruction.detach(), kl.detach()
        return loss, {
            "loss": Ratio(loss.detach() * size, size),
            "reconstruction": Ratio(bce * size, size),
            "weighted_kl": Ratio(self.beta * nats * size, size),
            "kl": Ratio(nats * size, size),
            "negative_elbo": Ratio((bce * pixels + nats) * size, size),
        }


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) of each dimension, in nats (Kingma and Welling 2014, appendix
    B).
    """
    return -0.5 * (1 + log_variance - mean**2 - log_variance.exp())
