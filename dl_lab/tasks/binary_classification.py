"""Two classes and one logit: binary cross-entropy, measured by accuracy and balanced accuracy at 1/2."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl_lab.types import Batch, Confusion, Ratio, Tally

Objective = Literal["binary_cross_entropy", "cross_entropy_over_batch"]


class BinaryClassification:
    """Logits (batch, 1) against labels (batch,) in {0, 1}, the batch's last column; the model takes all the others.

    objective: cross_entropy_over_batch is the mistake of a public solution (T4, homework 4, its BiLSTM), for the
    experiment that shows it: torch's cross_entropy of the sigmoids and the labels of a whole batch, which takes the
    batch for one distribution over its texts. prompt: "previous_label" also hands the model the label of the text
    before it in the batch (T4's Transformer): in a batch of one that is the text's own.
    """

    def __init__(
        self,
        objective: Objective = "binary_cross_entropy",
        prompt: Literal["none", "previous_label"] = "none",
    ) -> None:
        self.objective, self.prompt = objective, prompt

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tally]:
        logits = self._logits(model, batch)
        loss, size = self._objective(logits, batch.y), len(batch.y)
        correct = ((logits > 0) == batch.y.bool()).sum()
        return loss, {"loss": Ratio(loss.detach() * size, size), "accuracy": Ratio(correct, size)}

    def measure(self, model: nn.Module, batch: Batch) -> Tally:
        logits = self._logits(model, batch)
        loss, size = self._objective(logits, batch.y), len(batch.y)
        counts = torch.bincount(batch.y * 2 + (logits > 0), minlength=4).view(2, 2)
        return {
            "loss": Ratio(loss * size, size),
            "accuracy": Ratio(counts.diagonal().sum(), size),
            "confusion": Confusion(counts),
        }

    def _logits(self, model: nn.Module, batch: Batch) -> Tensor:
        if self.prompt == "previous_label":
            return model(*batch[:-1], batch.y.roll(1)).squeeze(1)
        return model(*batch[:-1]).squeeze(1)

    def _objective(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.objective == "cross_entropy_over_batch":
            return F.cross_entropy(logits.sigmoid(), labels.float())
        return F.binary_cross_entropy_with_logits(logits, labels.float())
