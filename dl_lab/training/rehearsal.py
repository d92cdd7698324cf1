"""A first step on a few items before a training begins: it finds a fault in a second, not an hour later."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.loaders import LoaderSplit
from dl_lab.runs.files import as_numbers
from dl_lab.training.base_learner import BaseLearner
from dl_lab.types import (
    Batch,
    ConfigError,
    Confusion,
    Learner,
    Metrics,
    Ratio,
    Split,
    columns_of,
    n_items,
    read_tally,
    rebuild,
)

A_TALLY = "a tally, a dict like {'loss': Ratio(sum, count)}"
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
        ConfigError: The learner lacks a method, it or its task returns something else than the protocol says, or a
            monitor is not measured.
    """
    refuse_incomplete(learner)
    if not all(hasattr(dataset, split) for split in ("train", "val", "test")):
        raise ConfigError(
            f"The data set is {_describe(dataset)}, not a Dataset with train, val and test. Make one with "
            "Dataset.from_arrays or Dataset.from_loaders (dl_lab.datasets.dataset)."
        )
    refuse_unsavable_facts(dataset.preprocessing)
    if isinstance(learner, BaseLearner):
        for module in learner.modules().values():
            refuse_unsavable(module)
    learner.initialise()
    learner.start(dataset)
    learner.plan(max_epochs, max_epochs * REHEARSED_BATCHES)
    batch = _repeat_to(next(iter(dataset.train.batches(learner.least_items()))), learner.least_items())
    try:
        tally = learner.update(batch)
    except Exception as error:  # a task may raise anything
        _refuse_wrong_types(learner, batch, error)
        _refuse_wrong_task(learner, batch)
        raise
    refuse_wrong_tally(tally, _name(learner, "update", "loss"))
    if not isinstance(tally.get("loss"), Ratio):
        raise ConfigError(
            f"The tally of an update needs an entry 'loss', a Ratio(sum, count); it has {', '.join(tally) or 'none'}."
        )
    with torch.no_grad():
        tally = learner.evaluate(batch)
        for name, split in (("val", dataset.val), ("test", dataset.test)):
            _refuse_other_items(learner, batch, name, split)
    refuse_wrong_tally(tally, _name(learner, "evaluate", "measure"))
    confusion = tally.get("confusion")
    if isinstance(confusion, Confusion) and dataset.class_names and len(dataset.class_names) != len(confusion.counts):
        raise ConfigError(
            f"The data set has {len(dataset.class_names)} class_names, and the model tells {len(confusion.counts)} "
            "classes apart."
        )
    metrics = read_tally(tally, "val/")
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


def refuse_unsavable_facts(preprocessing: object) -> None:
    """Check that a predictor will read from the run's folder what the data set knows.

    Raises:
        ConfigError: A value is nothing that JSON knows, and no array. The run would save its text.
    """
    if not isinstance(preprocessing, Mapping):
        raise ConfigError(f"preprocessing is {_describe(preprocessing)}; it must be a mapping, {{name: value}}.")

    def to_json(value: object) -> object:
        if as_numbers(value) is value:
            raise TypeError(f"it holds {_describe(value)}")
        return as_numbers(value)

    for key, value in preprocessing.items():
        try:
            json.dumps(value, default=to_json)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"preprocessing: {key} cannot be saved as JSON: {error}.") from error


def refuse_unsavable(module: nn.Module) -> None:
    """Check that the weights of a module can be saved by their names, and loaded: after the training it is too late.

    Raises:
        ConfigError: One of them cannot.
    """
    for name, value in module.state_dict().items():
        if is_lazy(value):
            raise ConfigError(f"The weight {name} has no size before the first batch (a lazy layer): give its sizes.")
        if not isinstance(value, Tensor):
            raise ConfigError(
                f"The state of the model has {name}, a {type(value).__name__}, and dl-lab saves tensors only. "
                "Keep it in a buffer (register_buffer)."
            )
        if "/" in name:
            raise ConfigError(f"The name of the weight {name} has a slash, which separates names here: rename it.")
        if any(step == 0 and size > 1 for step, size in zip(value.stride(), value.shape, strict=True)):
            raise ConfigError(f"{name} is an expanded tensor, which cannot be loaded: add .clone() after .expand(...).")


def refuse_wrong_tally(tally: object, source: str) -> None:
    """Check that a tally maps names to measures, and that each ratio has scalars outside the graph of autograd.

    Args:
        tally: What a method returned.
        source: The method, for the message: "Focal.measure".

    Raises:
        ConfigError: The tally is something else.
    """
    if not isinstance(tally, Mapping):
        raise ConfigError(f"{source} must return {A_TALLY}; it returned {_describe(tally)}.")
    for name, measure in tally.items():
        entry = f"{source}: the entry {name!r} of its tally"
        if isinstance(measure, (Tensor, int, float)) or not hasattr(measure, "values"):
            raise ConfigError(
                f"{entry} must be a measure like Ratio(sum, count), so that uneven batches add up; it is "
                f"{_describe(measure)}."
            )
        if not isinstance(measure, Ratio):
            continue
        for part, value in (("sum", measure.sum), ("count", measure.count)):
            if isinstance(value, Tensor) and value.dim() > 0:
                raise ConfigError(f"{entry} needs a scalar as its {part}; it has {_describe(value)}.")
            if isinstance(value, Tensor) and value.requires_grad:
                raise ConfigError(
                    f"{entry} holds the graph of autograd, so memory grows with each update. Write loss.detach() there."
                )


def _refuse_other_items(learner: Learner, batch: Batch, name: str, split: Split) -> None:
    """Judge a split whose items have other shapes or types than those of train: the model may not take them."""
    if isinstance(split, LoaderSplit):
        split = replace(split, workers=0)  # to start worker processes takes longer than to load an item
    other = next(iter(split.batches(1)), None)
    if other is None:
        return
    of_train, own = _list_forms(batch), _list_forms(other)
    if own == of_train:
        return
    try:
        learner.evaluate(other)
    except Exception as error:  # a model may raise anything
        raise ConfigError(
            f"The items of {name} do not fit the model: they have {', '.join(own)}, and those of train have "
            f"{', '.join(of_train)}."
        ) from error


def _list_forms(batch: Batch) -> list[str]:
    """Describe each column of tensors by the type and the shape of an item: "x float32 (3, 32, 32)"."""
    return [
        f"{name} {str(column.dtype).removeprefix('torch.')} {tuple(column.shape[1:])}"
        for name, column in _named(batch)
        if isinstance(column, Tensor)
    ]


def _named(batch: Batch) -> list[tuple[str, object]]:
    """Return the columns of a batch with their names."""
    names = list(batch) if isinstance(batch, Mapping) else getattr(batch, "_fields", range(len(columns_of(batch))))
    return [(str(name), column) for name, column in zip(names, columns_of(batch), strict=True)]


def _refuse_wrong_types(learner: Learner, batch: Batch, error: Exception) -> None:
    """Explain an update that failed because an input has another type than the weights: NumPy's numbers are float64."""
    if not isinstance(error, RuntimeError) or not any(word in str(error) for word in ("dtype", "scalar type")):
        return
    model = learner.main_module()
    weights = next((p for p in model.parameters() if p.is_floating_point()), None) if model is not None else None
    if weights is None:
        return
    for name, column in _named(batch)[:-1]:
        if isinstance(column, Tensor) and column.dtype not in (weights.dtype, torch.int64):
            own, wanted = (str(kind).removeprefix("torch.") for kind in (column.dtype, weights.dtype))
            raise ConfigError(
                f"The column {name} of the data is {own}, and the weights of the model are {wanted}. Convert the data: "
                f"{name}.to(torch.{wanted}), or {name}.astype('{wanted}') of an array."
            ) from error


def _refuse_wrong_task(learner: Learner, batch: Batch) -> None:
    """Explain why an update failed, where the learner's task returns something else than (loss, tally)."""
    task = getattr(learner, "task", None)
    forward = getattr(learner, "forward", None)
    if task is None or forward is None:
        return
    name = type(task).__name__
    for method in ("loss", "measure"):
        if not callable(getattr(task, method, None)):
            raise ConfigError(
                f"{name} is no task: it lacks a method {method}(model, batch). A loss alone goes into the task.loss of "
                "a task that is there."
            )
    found = task.loss(forward, batch)
    is_pair = isinstance(found, tuple) and len(found) == 2
    if not is_pair or not isinstance(found[0], Tensor) or not isinstance(found[1], Mapping):
        raise ConfigError(f"{name}.loss must return the loss, a scalar, and {A_TALLY}; it returned {_describe(found)}.")
    loss = found[0]
    if loss.dim() > 0:
        raise ConfigError(f"{name}.loss must return the mean over the batch, a scalar; its loss is {_describe(loss)}.")
    if not loss.requires_grad:
        raise ConfigError(
            f"The loss that {name}.loss returns has no gradient: it was detached, or computed from no weights that "
            "are trained."
        )


def _name(learner: Learner, method: str, of_task: str) -> str:
    """Name the code that makes a tally: the task's method where the learner has a task, else the learner's own."""
    task = getattr(learner, "task", None)
    return f"{type(learner).__name__}.{method}" if task is None else f"{type(task).__name__}.{of_task}"


def _describe(value: object) -> str:
    if isinstance(value, Tensor) and value.dim() == 0:
        return "a scalar tensor"
    if isinstance(value, Tensor):
        return f"a tensor of the shape {tuple(value.shape)}"
    if isinstance(value, tuple):
        return f"({', '.join(_describe(part) for part in value)})"
    return "nothing" if value is None else f"a {type(value).__name__}"


def _repeat_to(batch: Batch, n: int) -> Batch:
    """Return a batch of at least n items: where the data have fewer, the items occur again."""
    while n_items(batch) < n:
        batch = rebuild(batch, [_double(column) for column in columns_of(batch)])
    return batch


def _double(column: Tensor | Sequence[object]) -> Tensor | Sequence[object]:
    if isinstance(column, Tensor):
        return torch.cat([column, column])
    return [*column, *column]
