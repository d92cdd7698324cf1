"""NYC taxi passengers in half hours, 2014-07-01 to 2015-01-31, with five labelled anomalies.

Source: A. Lavin, S. Ahmad, "Evaluating real-time anomaly detection algorithms: the Numenta Anomaly
Benchmark", 2015; realKnownCause/nyc_taxi.csv and labels/combined_windows.json of numenta/NAB.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from dl_lab.datasets.batches import AUTO, Loading, TensorSplit, fingerprint
from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.series.content import SeriesContent
from dl_lab.datasets.series.layout import Layout
from dl_lab.datasets.series.scaler import Scaler, Scaling
from dl_lab.datasets.series.tables import Series, read_series
from dl_lab.datasets.series.windows import to_tensor, unchanged, windows
from dl_lab.datasets.storage import Storage
from dl_lab.types import UserError, WindowBatch

UNITS = {"value": "passengers in half an hour"}
LABEL_KEY = "realKnownCause/nyc_taxi.csv"


def nyc_taxi(
    input_shape: Sequence[int],
    layout: Layout,
    storage: Storage,
    source: Literal["real", "generated"] = "real",
    scaling: Scaling = "standard",
    val_fraction: float = 0.2,
    n_generated: int = 2000,
    loading: Loading = AUTO,
) -> Dataset:
    """Return windows of input_shape (length, 1), one step apart.

    Training and validation are the rows before the first labelled window, cut by time; their windows lie wholly in
    their part. Test is everything after, where a window may reach back.

    Args:
        input_shape: [rows of a window, 1].
        layout: How the file is written, and which repairs are allowed. It has one column.
        storage: Where the files lie: the series, then the labels.
        source: "real", or "generated" for a wave with five faults.
        scaling: How the series is scaled; the scaler is fitted on the training rows.
        val_fraction: The share of the rows before the first labelled window that is for validation.
        n_generated: Rows of the generated series.
        loading: Where the tensors reside.

    Raises:
        UserError: A file is missing, damaged, or has a fault that `layout.repair` does not name.
        ValueError: The shape, the layout or the share does not fit the series.
    """
    length, n_features = input_shape
    layout.check("dataset.layout")
    if n_features != 1:
        raise ValueError(f"input_shape {list(input_shape)} has {n_features} features, the series has 1")
    if len(layout.columns) != 1:
        raise ValueError(f"layout.columns names {len(layout.columns)} columns, the series has 1")
    if not 0 < val_fraction < 1:
        raise ValueError(f"val_fraction {val_fraction} is not between 0 and 1")
    if source == "generated":
        series, labelled = generate_series(max(n_generated, 40 * length), layout)
        label = "generated"
    else:
        series, labelled, label = _read(storage, layout)
    end = labelled[0][0]
    ends = [round(end * (1 - val_fraction)), end, len(series)]
    scaler = Scaler.fit(series.values[: ends[0]], series.names, scaling, constant="constant" in layout.repair)
    values = to_tensor(scaler.apply(series.values))
    rows = {
        "train": values[: ends[0]],
        "val": values[ends[0] : end],
        "test": values[max(end - length + 1, 0) :],
    }
    splits: dict[str, TensorSplit] = {}
    for split, part in rows.items():
        batch = WindowBatch(windows(part, length, f"the {split} part"))
        splits[split] = TensorSplit(batch, unchanged, residence=loading.residence, workers=loading.workers)
    return Dataset(
        "nyc_taxi",
        label,
        splits["train"],
        splits["val"],
        splits["test"],
        fingerprint=fingerprint(torch.from_numpy(series.values)),
        note=series.note(),
        content=SeriesContent(series, scaler, ends, labelled, UNITS),
        preprocessing={
            "scaler": scaler.to_plain(),
            "columns": list(layout.columns),
            "window": length,
            "layout": layout.to_plain(),
        },
    )


def _read(storage: Storage, layout: Layout) -> tuple[Series, list[tuple[int, int]], Literal["full", "part"]]:
    """Read the series, the first and last row of each labelled anomaly, and how official the files are."""
    series_path, labels_path = (storage.ensure(file) for file in storage.entries())
    series = read_series(series_path, layout)
    try:
        spans = json.loads(labels_path.read_text(encoding="utf-8"))[LABEL_KEY]
        limits = [[np.datetime64(text) for text in span] for span in spans]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{labels_path} has no readable windows of {LABEL_KEY}: {error}.") from error
    if not limits:
        raise UserError(f"{labels_path} names no anomaly of {LABEL_KEY}.")
    labelled: list[tuple[int, int]] = []
    for first, last in limits:
        start = int(np.searchsorted(series.times, first))
        stop = int(np.searchsorted(series.times, last, side="right")) - 1
        if stop < start or start == 0:
            raise UserError(
                f"{labels_path}: the anomaly from {first} to {last} lies outside {series_path}, which covers"
                f" {series.times[0]} to {series.times[-1]}."
            )
        labelled.append((start, stop))
    return series, labelled, "full" if storage.is_official() else "part"


def generate_series(n: int, layout: Layout, seed: int = 0) -> tuple[Series, list[tuple[int, int]]]:
    """Return n half hours of a daily and weekly wave, and its five faults: half days at a fifth of the level."""
    rng = np.random.default_rng(seed)
    times = np.datetime64("2014-07-01T00:00:00") + np.arange(n) * np.timedelta64(layout.step_minutes * 60, "s")
    hours = np.arange(n) / 2
    values = 15000 * (1 + 0.5 * np.sin(2 * np.pi * hours / 24) + 0.1 * np.sin(2 * np.pi * hours / 168))
    values += rng.normal(scale=300, size=n)
    starts = np.linspace(2 * n // 3, n - 48, 5).astype(int)
    labelled = [(int(start), int(start) + 23) for start in starts]
    for first, last in labelled:
        values[first : last + 1] *= 0.2
    values = values[:, None]
    return Series(times, values, np.ones_like(values, dtype=bool), tuple(layout.columns)), labelled
