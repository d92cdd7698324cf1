"""Single-label classification: cross-entropy, measured by accuracy and balanced accuracy."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl_lab.types import Confusion, LabelledBatch, Ratio, Tally, TokenBatch


class Classification:
    """Logits (batch, n_classes) against labels (batch,), the batch's last column; the model takes all the others.

    label_smoothing: share of the target spread over all classes (Szegedy et al. 2016), in training and in the
    reported loss alike.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def loss(self, model: nn.Module, batch: LabelledBatch | TokenBatch) -> tuple[Tensor, Tally]:
        logits = model(*batch[:-1])  # (batch, n_classes)
        loss, size = F.cross_entropy(logits, batch.y, label_smoothing=self.label_smoothing), len(batch.y)
        correct = (logits.argmax(dim=1) == batch.y).sum()
        return loss, {"loss": Ratio(loss.detach() * size, size), "accuracy": Ratio(correct, size)}

    def measure(self, model: nn.Module, batch: LabelledBatch | TokenBatch) -> Tally:
        logits = model(*batch[:-1])
        loss, size = F.cross_entropy(logits, batch.y, label_smoothing=self.label_smoothing), len(batch.y)
        predicted, n_classes = logits.argmax(dim=1), logits.shape[1]
        counts = torch.bincount(batch.y * n_classes + predicted, minlength=n_classes**2)
        return {
            "loss": Ratio(loss * size, size),
            "accuracy": Ratio((predicted == batch.y).sum(), size),
            "confusion": Confusion(counts.view(n_classes, n_classes)),
        }
