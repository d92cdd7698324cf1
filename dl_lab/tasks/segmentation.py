"""Semantic segmentation: a class for each pixel, by cross-entropy or another loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl_lab.tasks.inputs import explain_labels, predict
from dl_lab.tasks.losses import Loss, choose_loss, move_loss
from dl_lab.types import Batch, Metrics, Ratio, Splits, Tally

LossName = Literal["cross_entropy"]
LOSSES: dict[str, Loss] = {"cross_entropy": F.cross_entropy}


@dataclass(slots=True)
class Overlap:
    """Pixel counts by (true class, predicted class): an integer matrix (n_classes, n_classes)."""

    counts: Tensor

    def __add__(self, other: Overlap) -> Overlap:
        return Overlap(self.counts + other.counts)

    def values(self, name: str) -> Metrics:
        """Return intersection over union, a mean over the classes that occur or are predicted."""
        counts = self.counts.double().cpu()
        union = counts.sum(dim=0) + counts.sum(dim=1) - counts.diagonal()
        known = union > 0
        if not known.any():
            return {name: 0.0}
        return {name: float((counts.diagonal()[known] / union[known]).mean())}


class Segmentation:
    """Logits (batch, n_classes, height, width) against labels (batch, height, width).

    The loss is the mean over the labelled pixels. Metrics: `accuracy` of the pixels, and `iou`, the mean over the
    classes of intersection over union of all pixels of the split. If the model returns a mapping (as torchvision's
    models do), the logits are its entry "out".

    Args:
        ignored: The label of pixels that do not count.
        loss: "cross_entropy", or a function of logits (batch, n_classes, height, width) and labels (batch, height,
            width) that returns the mean over the batch. It sees the ignored pixels too.

    Raises:
        ValueError: The loss cannot be used (see `choose_loss`).
    """

    def __init__(self, ignored: int = 255, loss: LossName | Loss = "cross_entropy") -> None:
        self.ignored = ignored
        self.criterion = choose_loss(loss, LOSSES)

    def start(self, dataset: Splits, device: torch.device) -> None:
        """Move the loss to the device."""
        move_loss(self.criterion, device)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tally]:
        """Return the loss, and the tally of loss and pixel accuracy."""
        logits, y = self._predict(model, batch)
        return self._judge(logits, y)

    def measure(self, model: nn.Module, batch: Batch) -> Tally:
        """Return the tally of loss, pixel accuracy and intersection over union."""
        logits, y = self._predict(model, batch)
        _, tally = self._judge(logits, y)
        known = y != self.ignored
        n_classes = logits.shape[1]
        pairs = y[known] * n_classes + logits.argmax(dim=1)[known]
        counts = torch.bincount(pairs, minlength=n_classes**2).view(n_classes, n_classes)
        return {**tally, "iou": Overlap(counts)}

    def _judge(self, logits: Tensor, y: Tensor) -> tuple[Tensor, Tally]:
        known = y != self.ignored
        size = known.sum()
        correct = ((logits.argmax(dim=1) == y) & known).sum()
        if self.criterion is not F.cross_entropy:
            loss = self.criterion(logits, y)
            return loss, {"loss": Ratio(loss.detach() * len(y), len(y)), "accuracy": Ratio(correct, size)}
        try:
            total = F.cross_entropy(logits, y, ignore_index=self.ignored, reduction="sum")
        except (RuntimeError, IndexError) as error:
            n_classes, *pixels = logits.shape[1:]
            raise explain_labels(error, y, n_classes, (len(logits), *pixels)) from error
        return total / size.clamp(min=1), {"loss": Ratio(total.detach(), size), "accuracy": Ratio(correct, size)}

    @staticmethod
    def _predict(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        output, y = predict(model, batch)
        return (output["out"] if isinstance(output, dict) else output), y
