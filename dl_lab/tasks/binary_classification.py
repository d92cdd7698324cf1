"""Two classes and one logit: binary cross-entropy, measured by accuracy and balanced accuracy at 1/2."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl_lab.tasks.inputs import explain_labels, predict, split_labels
from dl_lab.tasks.losses import Loss, choose_loss, move_loss
from dl_lab.types import Batch, Confusion, Ratio, Splits, Tally, columns_of


def cross_entropy_over_batch(logits: Tensor, y: Tensor) -> Tensor:
    """Return torch's cross_entropy between the sigmoids (batch,) and the labels (batch,) of a whole batch."""
    return F.cross_entropy(logits.sigmoid(), y)


LossName = Literal["binary_cross_entropy", "cross_entropy_over_batch"]
LOSSES: dict[str, Loss] = {
    "binary_cross_entropy": F.binary_cross_entropy_with_logits,
    "cross_entropy_over_batch": cross_entropy_over_batch,
}


class BinaryClassification:
    """Logits (batch, 1) against labels (batch,) in {0, 1}.

    The labels are the last column of the batch or its column "y". The model takes all other columns.

    Args:
        loss: "binary_cross_entropy" is the usual loss. "cross_entropy_over_batch" repeats a mistake of a public
            solution (T4, homework 4, its BiLSTM) for the experiment that shows it: torch's cross_entropy between the
            sigmoids and the labels of a batch, which treats the batch as one distribution over its texts. Another loss
            is a function of the logits (batch,) and the labels (batch,), both float, that returns the mean over the
            batch, such as `torch.nn.BCEWithLogitsLoss(pos_weight=...)`.
        prompt: "previous_label" also gives the model the label of the text before it in the batch (T4's Transformer).
            In a batch of one that is the text's own label.

    Raises:
        ValueError: The loss cannot be used (see `choose_loss`).
    """

    def __init__(
        self,
        loss: LossName | Loss = "binary_cross_entropy",
        prompt: Literal["none", "previous_label"] = "none",
    ) -> None:
        self.criterion = choose_loss(loss, LOSSES)
        self.prompt = prompt

    def start(self, dataset: Splits, device: torch.device) -> None:
        """Move the loss to the device."""
        move_loss(self.criterion, device)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tally]:
        """Return the loss, and the tally of loss and accuracy."""
        logits, y = self._predict(model, batch)
        loss = self.criterion(logits, y.float())
        size = len(y)
        correct = ((logits > 0) == y.bool()).sum()
        return loss, {"loss": Ratio(loss.detach() * size, size), "accuracy": Ratio(correct, size)}

    def measure(self, model: nn.Module, batch: Batch) -> Tally:
        """Return the tally of loss, accuracy and confusion matrix.

        Raises:
            UserError: The labels are not 0 and 1.
        """
        logits, y = self._predict(model, batch)
        loss = self.criterion(logits, y.float())
        size = len(y)
        try:
            counts = torch.bincount(y * 2 + (logits > 0), minlength=4).view(2, 2)
        except RuntimeError as error:
            raise explain_labels(error, y, 2, (size,)) from error
        return {
            "loss": Ratio(loss * size, size),
            "accuracy": Ratio(counts.diagonal().sum(), size),
            "confusion": Confusion(counts),
        }

    def _predict(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the logits (batch,) and the labels (batch,)."""
        if self.prompt == "previous_label":
            inputs, y = split_labels(batch)
            return model(*columns_of(inputs), y.roll(1)).squeeze(1), y
        logits, y = predict(model, batch)
        return logits.squeeze(1), y
