"""A first step on a few items before a training begins: it finds a fault in a second, not an hour later."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dl_lab.datasets.dataset import Dataset
from dl_lab.types import Batch, ConfigError, Learner, Metrics, Ratio, columns_of, n_items, read_tally, rebuild

REHEARSED_BATCHES = 1000  # batches of an epoch that schedules are told: the data set is not there yet
METHODS = (
    "initialise",
    "start",
    "to",
    "plan",
    "distribute",
    "share_buffers",
    "least_items",
    "update",
    "evaluate",
    "end_epoch",
    "rates",
    "notes",
    "advice",
    "main_module",
    "weights",
    "load_weights",
    "n_parameters",
    "state_dict",
    "load_state_dict",
)


def rehearse_fit(learner: Learner, dataset: Dataset, max_epochs: int, monitors: Sequence[str]) -> Metrics:
    """Run one update and one evaluation.

    Args:
        learner: A learner that was built for the rehearsal only.
        dataset: A small generated data set.
        max_epochs: Epochs of the training.
        monitors: Metrics that the training needs; "" is no metric.

    Returns:
        The metrics of the evaluation.

    Raises:
        ConfigError: The learner lacks a method, its tally has no loss, or a monitor is not measured.
    """
    refuse_incomplete(learner)
    learner.initialise()
    learner.start(dataset)
    learner.plan(max_epochs, max_epochs * REHEARSED_BATCHES)
    batch = _repeat_to(next(iter(dataset.train.batches(learner.least_items()))), learner.least_items())
    tally = learner.update(batch)
    if not isinstance(tally.get("loss"), Ratio):
        raise ConfigError(
            f"The tally of an update needs an entry 'loss', a Ratio(sum, count); it has {', '.join(tally) or 'none'}."
        )
    metrics = read_tally(learner.evaluate(batch), "val/")
    for monitor in monitors:
        if monitor and monitor not in metrics:
            raise ConfigError(f"monitor {monitor!r} is not measured; there are {', '.join(sorted(metrics))}.")
    return metrics


def refuse_incomplete(learner: object) -> None:
    """Check that a learner has every method of the protocol.

    Raises:
        ConfigError: The learner lacks a method.
    """
    missing = [name for name in METHODS if not hasattr(learner, name)]
    if missing:
        raise ConfigError(
            f"{type(learner).__name__} lacks {', '.join(missing)}: take dl_lab.training.base_learner.BaseLearner as "
            "its base, which has them."
        )


def _repeat_to(batch: Batch, n: int) -> Batch:
    """Return a batch of at least n items: where the data have fewer, the items occur again."""
    while n_items(batch) < n:
        batch = rebuild(batch, [_double(column) for column in columns_of(batch)])
    return batch


def _double(column: Tensor | Sequence[object]) -> Tensor | Sequence[object]:
    if isinstance(column, Tensor):
        return torch.cat([column, column])
    return [*column, *column]
