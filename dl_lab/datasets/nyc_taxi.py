"""NYC taxi passengers in half hours, 2014-07-01 to 2015-01-31, with five labelled anomalies.

Source: A. Lavin, S. Ahmad, "Evaluating real-time anomaly detection algorithms: the Numenta Anomaly
Benchmark", 2015; realKnownCause/nyc_taxi.csv and labels/combined_windows.json of numenta/NAB.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from dl_lab.datasets.batches import Residence, TensorSplit, fingerprint
from dl_lab.datasets.files import data_files, ensure
from dl_lab.datasets.series import (
    Layout,
    Repair,
    Scaler,
    Series,
    read_series,
    to_tensor,
    unchanged,
    windows,
)
from dl_lab.types import Dataset, UserError, WindowBatch

LABEL_KEY = "realKnownCause/nyc_taxi.csv"


def nyc_taxi(
    input_shape: Sequence[int],
    data_dir: str,
    files: Sequence[Mapping[str, Any]],
    source: Literal["real", "generated"] = "real",
    scaling: Literal["standard", "minmax"] = "standard",
    val_fraction: float = 0.2,
    repair: Sequence[Repair] = (),
    n_generated: int = 2000,
    residence: Residence = "auto",
) -> Dataset:
    """Windows of input_shape (length, 1), one step apart.

    Training and validation are the rows before the first labelled window, cut by time; their windows lie
    wholly in their part. Test is everything after, where a window may reach back. files: the series, then the
    labels. The scaler is made from the training rows. extras: series, scaler, ends (of the parts), and the
    labelled windows as (first row, last row).
    """
    length, n_features = input_shape
    layout = Layout(columns=("value",), repair=tuple(repair))
    if source == "generated":
        series, labelled, label = *generated_series(max(n_generated, 40 * length), layout), "generated"
    else:
        series, labelled, label = _read(data_files(files), Path(data_dir), layout)
    if n_features != 1:
        raise ValueError(f"input_shape {list(input_shape)} has {n_features} features, the series has 1")
    end = labelled[0][0]
    ends = [round(end * (1 - val_fraction)), end, len(series)]
    scaler = Scaler.fit(series.values[: ends[0]], series.names, scaling, constant="constant" in repair)
    values = to_tensor(scaler.scaled(series.values))
    rows = {
        "train": values[: ends[0]],
        "val": values[ends[0] : end],
        "test": values[max(end - length + 1, 0) :],
    }
    splits: dict[str, Any] = {
        split: TensorSplit(WindowBatch(windows(part, length, f"the {split} part")), unchanged, residence=residence)
        for split, part in rows.items()
    }
    return Dataset(
        "nyc_taxi",
        label,
        **splits,
        fingerprint=fingerprint(torch.from_numpy(series.values)),
        note=series.note(),
        extras={"series": series, "scaler": scaler, "ends": ends, "labelled": labelled},
        preprocessing={"scaler": scaler.to_plain(), "columns": ["value"], "window": length},
    )


def _read(files: list[Any], data_dir: Path, layout: Layout) -> tuple[Series, list[tuple[int, int]], Any]:
    series_path, labels_path = (ensure(file, data_dir) for file in files)
    series = read_series(series_path, layout)
    try:
        spans = json.loads(labels_path.read_text(encoding="utf-8"))[LABEL_KEY]
        limits = [[np.datetime64(text) for text in span] for span in spans]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{labels_path} has no readable windows of {LABEL_KEY}: {error}.") from error
    if not limits:
        raise UserError(f"{labels_path} names no anomaly of {LABEL_KEY}.")
    labelled = [
        (
            int(np.searchsorted(series.times, first)),
            int(np.searchsorted(series.times, last, side="right")) - 1,
        )
        for first, last in limits
    ]
    official = all(file.state(data_dir) == "official" for file in files)
    return series, labelled, "full" if official else "part"


def generated_series(n: int, layout: Layout, seed: int = 0) -> tuple[Series, list[tuple[int, int]]]:
    """n half hours of a daily and weekly wave; in the last third five half days at a fifth of the level."""
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
