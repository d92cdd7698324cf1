"""The task of a table: the kind of its target decides between classification and regression."""

from __future__ import annotations

from typing import Literal, cast

from dl_lab.tasks.classification import Classification, LossName
from dl_lab.tasks.losses import Loss, NumberLoss
from dl_lab.tasks.regression import Regression


def of_table(
    kind: Literal["regression", "classes"],
    scale: float = 1.0,
    label_smoothing: float = 0.0,
    loss: NumberLoss | LossName | Loss | None = None,
) -> Classification | Regression:
    """Return the task that fits the target.

    Args:
        kind: What the target is: classes, or the number of a regression.
        scale: The scale of a regression; see `Regression`.
        label_smoothing: The label smoothing of a classification; see `Classification`.
        loss: The loss; see `Regression` and `Classification`. None is the default of the kind.

    Raises:
        ValueError: A setting belongs to the other kind of task.
    """
    if kind == "regression":
        if label_smoothing:
            raise ValueError("label_smoothing is a setting of classes, and the target is a number")
        return Regression(scale, cast("NumberLoss | Loss", loss or "mse"))
    return Classification(label_smoothing, loss=cast("LossName | Loss", loss or "cross_entropy"))
