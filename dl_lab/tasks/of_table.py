"""The task of a table: the kind of its target decides between classification and regression."""

from __future__ import annotations

from typing import Literal

from dl_lab.tasks.classification import Classification
from dl_lab.tasks.regression import Loss, LossName, Regression


def of_table(
    kind: Literal["regression", "classes"],
    scale: float = 1.0,
    label_smoothing: float = 0.0,
    loss: LossName | Loss = "mse",
) -> Classification | Regression:
    """Return the task that fits the target.

    Args:
        kind: What the target is: classes, or the number of a regression.
        scale: The scale of a regression; see `Regression`.
        label_smoothing: The label smoothing of a classification; see `Classification`.
        loss: The loss of a regression; see `Regression`.

    Raises:
        ValueError: A setting belongs to the other kind of task.
    """
    if kind == "regression":
        if label_smoothing:
            raise ValueError("label_smoothing is a setting of classes, and the target is a number")
        return Regression(scale, loss)
    if loss != "mse":
        raise ValueError("loss is a setting of a regression, and the target has classes")
    return Classification(label_smoothing)
