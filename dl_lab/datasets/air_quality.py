"""UCI Air Quality: hourly readings of a gas sensor array in an Italian town, 2004-03-10 to 2005-04-04, 13
features.

Source: S. De Vito et al., "On field calibration of an electronic nose", Sensors and Actuators B 2008; UCI id
360. Missing values are written -200; NMHC(GT) is missing in nine rows of ten.
"""

from __future__ import annotations

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
from dl_lab.types import Dataset, ForecastBatch

N_ROWS = 9357  # of the release, which has no published checksum


def air_quality(
    n_features: int,
    window: int,
    horizon: int,
    columns: Sequence[str],
    data_dir: str,
    files: Sequence[Mapping[str, Any]],
    source: Literal["real", "generated"] = "real",
    scaling: Literal["standard", "minmax"] = "minmax",
    fractions: Sequence[float] = (0.7, 0.15),
    repair: Sequence[Repair] = ("missing",),
    n_generated: int = 1000,
    residence: Residence = "auto",
) -> Dataset:
    """Windows of `window` hours and the `horizon` hours after them; the rows are split by time.

    fractions: the shares of training and validation; test is the rest. The scaler is made from the training
    rows. A part's first windows reach back into the part before (they are known by then); its targets do not.
    """
    if n_features != len(columns):
        raise ValueError(f"n_features {n_features} is not the number of columns, {len(columns)}")
    layout = air_quality_layout(columns, repair)
    if source == "generated":
        rows = n_generated + 8 * (window + horizon)  # enough for every part
        series, label = generated_series(rows, layout), "generated"
    else:
        series = read_series(ensure(data_files(files)[0], Path(data_dir)), layout)
        label = "full" if len(series) == N_ROWS else "part"
    train, val = fractions
    ends = [round(len(series) * share) for share in (train, train + val, 1.0)]
    scaler = Scaler.fit(series.values[: ends[0]], series.names, scaling, constant="constant" in repair)
    splits = _splits(series, scaler, ends, window, horizon, residence)
    return Dataset(
        "air_quality",
        label,
        **splits,
        fingerprint=fingerprint(torch.from_numpy(series.values)),
        note=series.note(),
        extras={"series": series, "scaler": scaler, "ends": ends},
        preprocessing={
            "scaler": scaler.to_plain(),
            "columns": list(columns),
            "window": window,
            "horizon": horizon,
        },
    )


def air_quality_layout(columns: Sequence[str], repair: Sequence[Repair]) -> Layout:
    """The release's way of writing: semicolons, decimal commas, 10/03/2004;18.00.00."""
    return Layout(
        columns=tuple(columns),
        time_columns=("Date", "Time"),
        time_format="%d/%m/%Y %H.%M.%S",
        step_minutes=60,
        delimiter=";",
        decimal=",",
        missing=-200,
        repair=tuple(repair),
    )


def _splits(
    series: Series, scaler: Scaler, ends: Sequence[int], window: int, horizon: int, residence: Residence
) -> dict[str, Any]:
    values, observed = to_tensor(scaler.scaled(series.values)), torch.from_numpy(series.observed)
    splits, start = {}, 0
    for split, end in zip(("train", "val", "test"), ends, strict=True):
        first = max(start - window, 0)  # of the inputs
        rows = values[first:end]
        where = f"the {split} part"
        cut = windows(rows, window + horizon, where)
        seen = windows(observed[first:end], window + horizon, where)
        columns = ForecastBatch(cut[:, :window], cut[:, window:], seen[:, window:])
        splits[split] = TensorSplit(columns, unchanged, residence=residence)
        start = end
    return splits


def generated_series(n: int, layout: Layout, seed: int = 0) -> Series:
    """n hours of daily waves of different phase, a slow drift and noise, for each column; all observed."""
    rng = np.random.default_rng(seed)
    times = np.datetime64("2004-03-10T18:00:00") + np.arange(n) * np.timedelta64(layout.step_minutes * 60, "s")
    hours, n_columns = np.arange(n)[:, None], len(layout.columns)
    phase, level = rng.uniform(0, 2 * np.pi, n_columns), rng.uniform(5, 50, n_columns)
    wave = np.sin(2 * np.pi * hours / 24 + phase) + 0.3 * np.sin(2 * np.pi * hours / 168)
    noise = rng.normal(scale=0.1, size=(n, n_columns))
    values = level * (2 + wave + noise)
    return Series(times, values, np.ones_like(values, dtype=bool), tuple(layout.columns))
