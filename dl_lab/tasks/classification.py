"""Single-label classification: cross-entropy or another loss, measured by accuracy and balanced accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl_lab.tasks.inputs import explain_labels, predict, split_labels
from dl_lab.tasks.losses import Loss, choose_loss, move_loss
from dl_lab.types import Batch, Confusion, Ratio, Splits, Tally

LossName = Literal["cross_entropy"]
LOSSES: dict[str, Loss] = {"cross_entropy": F.cross_entropy}


class Classification:
    """Logits (batch, n_classes) against labels (batch,), the last column of the batch or its column "y".

    Args:
        label_smoothing: Share of the target that is spread over all classes (Szegedy et al. 2016), in training and in
            the reported loss alike.
        weight: A factor of each class's loss. "auto" weighs the classes by the inverse of their counts in the training
            split, so that the factors have the mean 1 over its items. The loss is the mean over items of the weighted
            losses.
        loss: "cross_entropy", or a function of logits (batch, n_classes) and labels (batch,) that returns the mean over
            the batch, such as `torch.nn.MultiMarginLoss()`.

    Raises:
        ValueError: A factor is negative, the loss cannot be used (see `choose_loss`), or a setting of the cross-entropy
            stands beside another loss.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        weight: Literal["auto"] | Sequence[float] | None = None,
        loss: LossName | Loss = "cross_entropy",
    ) -> None:
        if isinstance(weight, Sequence) and not isinstance(weight, str) and min(weight, default=-1) < 0:
            raise ValueError(f"weight {list(weight)} must be numbers of at least 0, one for each class")
        if loss != "cross_entropy" and (label_smoothing or weight is not None):
            raise ValueError("label_smoothing and weight belong to loss=cross_entropy, and another loss is chosen")
        self.criterion = choose_loss(loss, LOSSES)
        self.label_smoothing = label_smoothing
        self.weight = weight
        self._weight: Tensor | None = None

    def start(self, dataset: Splits, device: torch.device) -> None:
        """Compute the factors of the classes, and move the loss to the device."""
        move_loss(self.criterion, device)
        if self.weight == "auto":
            self._weight = balanced_weights(count_classes(dataset)).to(device)
        elif self.weight is not None:
            self._weight = torch.tensor(list(self.weight), dtype=torch.float32, device=device)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tally]:
        """Return the loss, and the tally of loss and accuracy."""
        logits, y = predict(model, batch)  # (batch, n_classes)
        loss = self._compare(logits, y)
        size = len(y)
        correct = (logits.argmax(dim=1) == y).sum()
        return loss, {"loss": Ratio(loss.detach() * size, size), "accuracy": Ratio(correct, size)}

    def measure(self, model: nn.Module, batch: Batch) -> Tally:
        """Return the tally of loss, accuracy and confusion matrix."""
        logits, y = predict(model, batch)
        loss = self._compare(logits, y)
        size = len(y)
        predicted = logits.argmax(dim=1)
        n_classes = logits.shape[1]
        counts = torch.bincount(y * n_classes + predicted, minlength=n_classes**2)
        return {
            "loss": Ratio(loss * size, size),
            "accuracy": Ratio((predicted == y).sum(), size),
            "confusion": Confusion(counts.view(n_classes, n_classes)),
        }

    def _compare(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss.

        Raises:
            UserError: The labels are no class numbers of the model's classes.
            ValueError: The model's output has no axis of classes.
        """
        if logits.dim() != 2:
            raise ValueError(f"the model's output is {tuple(logits.shape)}, but the task needs (batch, n_classes)")
        if y.dim() != 1:  # cross_entropy takes (batch, n_classes) for probabilities
            raise explain_labels(ValueError(), y, logits.shape[1], (len(logits),))
        try:
            return self._compute(logits, y)
        except (RuntimeError, IndexError) as error:
            raise explain_labels(error, y, logits.shape[1], (len(logits),)) from error

    def _compute(self, logits: Tensor, y: Tensor) -> Tensor:
        if self.criterion is not F.cross_entropy:
            return self.criterion(logits, y)
        if self.weight is None:
            return F.cross_entropy(logits, y, label_smoothing=self.label_smoothing)
        if self._weight is None or len(self._weight) != logits.shape[1]:
            n_factors = 0 if self._weight is None else len(self._weight)
            raise ValueError(f"task.weight has {n_factors} factors, but the model has {logits.shape[1]} classes")
        total = F.cross_entropy(logits, y, self._weight, label_smoothing=self.label_smoothing, reduction="sum")
        return total / len(y)  # not by the sum of the factors, so that micro-batches and processes add up exactly


def count_classes(dataset: Splits) -> Tensor:
    """Count the training items of each class: (n_classes,) int64."""
    counts = torch.zeros(len(dataset.class_names), dtype=torch.int64)
    for batch in dataset.train.batches(1024):
        _, labels = split_labels(batch)
        found = torch.bincount(labels.cpu(), minlength=len(counts))
        counts = F.pad(counts, (0, len(found) - len(counts))) + found
    return counts


def balanced_weights(counts: Tensor) -> Tensor:
    """Return a factor for each class, inverse to its count: n / (n_classes x count), and 0 for an absent class."""
    present = counts > 0
    weights = counts.sum() / (present.sum() * counts.clamp(min=1))
    return torch.where(present, weights, 0.0).float()
