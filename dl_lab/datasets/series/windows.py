"""Windows of a series, and the splits that forecasting learns from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from dl_lab.datasets.batches import Loading, TensorSplit
from dl_lab.datasets.series.scaler import Scaler
from dl_lab.datasets.series.tables import Series
from dl_lab.types import ForecastBatch

SPLITS = ("train", "val", "test")
Windows = TypeVar("Windows")


def windows(values: Tensor, length: int, where: str = "the series") -> Tensor:
    """Return all windows of a series, one step apart.

    Args:
        values: (n, features).
        length: Rows of a window.
        where: The name of the series, for the error.

    Returns:
        (n - length + 1, length, features): a view, nothing is copied.

    Raises:
        ValueError: The series is shorter than a window.
    """
    if len(values) < length:
        raise ValueError(f"{where} has {len(values)} rows, less than one window of {length}")
    return values.unfold(0, length, 1).transpose(1, 2)


def unchanged(batch: Windows) -> Windows:
    """Return the batch as it is: windows are stored scaled."""
    return batch


def to_tensor(values: np.ndarray) -> Tensor:
    """Return the values as float32."""
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def ends_of_parts(n: int, fractions: Sequence[float]) -> list[int]:
    """Return the row after the last one of train, val and test, by time.

    Args:
        n: Rows of the series.
        fractions: The shares of train and val; test is the rest.

    Raises:
        ValueError: The shares leave nothing for a part.
    """
    train, val = fractions
    if train <= 0 or val <= 0 or train + val >= 1:
        raise ValueError(f"fractions {list(fractions)} (train, val; test is the rest) leave nothing for a part")
    return [round(n * share) for share in (train, train + val, 1.0)]


def forecast_splits(
    series: Series,
    scaler: Scaler,
    ends: Sequence[int],
    window: int,
    horizon: int,
    loading: Loading,
) -> dict[str, TensorSplit]:
    """Return windows and the steps after them, cut by time into train, val and test.

    A part's first windows reach back into the part before, which is known by then; its targets do not.

    Args:
        series: The whole series.
        scaler: The scaler of the training rows.
        ends: The row after the last one of each part.
        window: Rows that the model sees.
        horizon: Rows that the model forecasts.
        loading: Where the tensors reside.

    Raises:
        ValueError: `window` or `horizon` is less than 1, or a part has fewer rows than a window.
    """
    if window < 1 or horizon < 1:
        raise ValueError(f"window {window} and horizon {horizon} must be at least 1")
    values = to_tensor(scaler.apply(series.values))
    observed = torch.from_numpy(series.observed)
    splits: dict[str, TensorSplit] = {}
    start = 0
    for split, end in zip(SPLITS, ends, strict=True):
        first = max(start - window, 0)
        where = f"the {split} part"
        cut = windows(values[first:end], window + horizon, where)
        seen = windows(observed[first:end], window + horizon, where)
        batch = ForecastBatch(cut[:, :window], cut[:, window:], seen[:, window:])
        splits[split] = TensorSplit(batch, unchanged, residence=loading.residence, workers=loading.workers)
        start = end
    return splits
