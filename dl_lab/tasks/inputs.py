"""Split a batch into what the model takes and what its output is compared with."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dl_lab.types import Batch, UserError

LABELS = ("y", "labels", "label", "target")  # the names of the labels in a batch that is a mapping


def split_labels(batch: Batch) -> tuple[Any, Any]:
    """Return the inputs and the labels of a batch.

    The labels are the last column of a tuple, or the first name of `LABELS` that a mapping has.

    Raises:
        UserError: A mapping has none of these names.
    """
    if not isinstance(batch, Mapping):
        return batch[:-1], batch[-1]
    name = next((name for name in LABELS if name in batch), None)
    if name is None:
        raise UserError(f"A batch with the columns {', '.join(batch)} has no labels; name them {' or '.join(LABELS)}.")
    return {key: column for key, column in batch.items() if key != name}, batch[name]


def as_tuple(batch: Batch, kind: type[Any]) -> Any:
    """Return a batch with the columns of a NamedTuple, from a mapping that has them by name.

    Args:
        batch: A mapping, or a batch that has these columns already.
        kind: The NamedTuple.

    Raises:
        UserError: The mapping lacks a column.
    """
    if not isinstance(batch, Mapping):
        return batch
    missing = [name for name in kind._fields if name not in batch]
    if missing:
        raise UserError(
            f"A batch with the columns {', '.join(batch)} has no {' and no '.join(missing)}; this task needs "
            f"{', '.join(kind._fields)}."
        )
    return kind(*[batch[name] for name in kind._fields])


def predict(model: nn.Module, batch: Batch) -> tuple[Any, Any]:
    """Return the model's output for the inputs of a batch, and the labels.

    The model takes the columns of a tuple by position and those of a mapping by name. It takes a single column by
    position too, if it has no argument of that name (`nn.Sequential` calls its argument "input"). If the output has a
    field `logits` (the models of Hugging Face), the output is that field.
    """
    inputs, labels = split_labels(batch)
    if not isinstance(inputs, Mapping):
        output = model(*inputs)
    elif len(inputs) == 1 and not _takes(model, next(iter(inputs))):
        output = model(*inputs.values())
    else:
        output = model(**inputs)
    return getattr(output, "logits", output), labels


def require_same_shape(output: Tensor, target: Tensor) -> None:
    """Compare the shapes of a model's output and of what it should be: torch's losses would broadcast them.

    Raises:
        ValueError: The shapes differ.
    """
    if output.shape != target.shape:
        raise ValueError(f"the model's output is {tuple(output.shape)}, but the task needs {tuple(target.shape)}")


def explain_labels(error: Exception, labels: Tensor, n_classes: int, shape: Sequence[int]) -> Exception:
    """Return what is wrong with class numbers that a loss refused; the loss's own error where nothing is found.

    Args:
        error: The loss's error.
        labels: The labels.
        n_classes: The classes that the model has outputs for.
        shape: The shape that the labels should have.
    """
    kind = str(labels.dtype).removeprefix("torch.")
    if labels.shape != tuple(shape):
        return UserError(f"The labels of a batch have the shape {tuple(labels.shape)}; the task needs {tuple(shape)}.")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype != torch.int64:
        return UserError(f"The labels are {kind}; the task needs class numbers, int64: labels.long().")
    least, greatest = int(labels.min()), int(labels.max())
    if least < 0 or greatest >= n_classes:
        return UserError(
            f"The labels of a batch run from {least} to {greatest}; the classes of the model are 0 to {n_classes - 1}."
        )
    return error


def _takes(model: nn.Module, name: str) -> bool:
    """Return whether a model takes an argument of this name."""
    original = getattr(model, "_orig_mod", model)  # a compiled model holds the original
    parameters = _list_parameters(type(original).forward)
    return name in parameters or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


@functools.lru_cache(maxsize=64)  # every batch asks
def _list_parameters(forward: Callable[..., object]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(forward).parameters
