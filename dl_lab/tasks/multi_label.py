"""Multi-label classification: any number of labels for an item, each by binary cross-entropy or another loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl_lab.tasks.inputs import predict, split_labels
from dl_lab.tasks.losses import Loss, choose_loss, move_loss
from dl_lab.types import Batch, Metrics, Ratio, Splits, Tally

LossName = Literal["binary_cross_entropy"]
LOSSES: dict[str, Loss] = {"binary_cross_entropy": F.binary_cross_entropy_with_logits}


@dataclass(slots=True)
class LabelCounts:
    """For each label the true positives, false positives and false negatives: an integer matrix (3, n_labels)."""

    counts: Tensor

    def __add__(self, other: LabelCounts) -> LabelCounts:
        return LabelCounts(self.counts + other.counts)

    def values(self, name: str) -> Metrics:
        """Return F1: the mean over the labels that occur or are predicted ("macro"), and F1 of all counts ("micro")."""
        true, false, missed = self.counts.double().cpu()
        sizes = 2 * true + false + missed
        known = sizes > 0
        if not known.any():
            return {f"{name}_macro": 0.0, f"{name}_micro": 0.0}
        macro = (2 * true[known] / sizes[known]).mean()
        return {f"{name}_macro": float(macro), f"{name}_micro": float(2 * true.sum() / sizes.sum())}


class MultiLabel:
    """Logits (batch, n_labels) against labels (batch, n_labels) in {0, 1}; a label is predicted above probability 1/2.

    Metrics: `accuracy` of single labels, `exact_match` of whole items, `f1_macro` and `f1_micro`.

    Args:
        positive_weight: A factor of each label's loss where the label is set. "auto" is the number of training items
            without the label for each item with it.
        loss: "binary_cross_entropy", or a function of logits and labels, (batch, n_labels) float each, that returns the
            mean over the batch.

    Raises:
        ValueError: The loss cannot be used (see `choose_loss`), or `positive_weight` stands beside another loss.
    """

    def __init__(
        self,
        positive_weight: Literal["auto"] | Sequence[float] | None = None,
        loss: LossName | Loss = "binary_cross_entropy",
    ) -> None:
        if loss != "binary_cross_entropy" and positive_weight is not None:
            raise ValueError("positive_weight belongs to loss=binary_cross_entropy, and another loss is chosen")
        self.criterion = choose_loss(loss, LOSSES)
        self.positive_weight = positive_weight
        self._weight: Tensor | None = None

    def start(self, dataset: Splits, device: torch.device) -> None:
        """Compute the factors of the labels, and move the loss to the device."""
        move_loss(self.criterion, device)
        if self.positive_weight == "auto":
            self._weight = _count_negatives_per_positive(dataset).to(device)
        elif self.positive_weight is not None:
            self._weight = torch.tensor(list(self.positive_weight), dtype=torch.float32, device=device)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tally]:
        """Return the loss (a mean over items and labels), and the tally of loss and accuracy."""
        logits, y = predict(model, batch)
        loss = self._compare(logits, y)
        return loss, {
            "loss": Ratio(loss.detach() * len(y), len(y)),
            "accuracy": Ratio(((logits > 0) == (y > 0)).sum(), y.numel()),
        }

    def measure(self, model: nn.Module, batch: Batch) -> Tally:
        """Return the tally of loss, accuracy, exact matches and F1."""
        logits, y = predict(model, batch)
        loss = self._compare(logits, y)
        predicted = logits > 0
        truth = y > 0
        counts = [(predicted & truth).sum(0), (predicted & ~truth).sum(0), (~predicted & truth).sum(0)]
        return {
            "loss": Ratio(loss * len(y), len(y)),
            "accuracy": Ratio((predicted == truth).sum(), y.numel()),
            "exact_match": Ratio((predicted == truth).all(dim=1).sum(), len(y)),
            "f1": LabelCounts(torch.stack(counts)),
        }

    def _compare(self, logits: Tensor, y: Tensor) -> Tensor:
        if self._weight is not None:
            return F.binary_cross_entropy_with_logits(logits, y.to(logits.dtype), pos_weight=self._weight)
        return self.criterion(logits, y.to(logits.dtype))


def _count_negatives_per_positive(dataset: Splits) -> Tensor:
    """Divide for each label the number of training items without it by the number with it: (n_labels,)."""
    positive = torch.tensor(0)
    for batch in dataset.train.batches(1024):
        _, labels = split_labels(batch)
        positive = positive + (labels > 0).sum(dim=0).cpu()
    return (len(dataset.train) - positive) / positive.clamp(min=1)
