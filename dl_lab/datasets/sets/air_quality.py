"""UCI Air Quality: hourly readings of a gas sensor array in an Italian town, 2004-03-10 to 2005-04-04, 13 features.

Source: S. De Vito et al., "On field calibration of an electronic nose", Sensors and Actuators B 2008; UCI id 360. The
release writes -200 for a missing value; NMHC(GT) is missing in nine rows of ten.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from dl_lab.datasets.batches import AUTO, Loading, fingerprint
from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.series.content import SeriesContent
from dl_lab.datasets.series.layout import Layout
from dl_lab.datasets.series.scaler import Scaler, Scaling
from dl_lab.datasets.series.tables import Series, read_series
from dl_lab.datasets.series.windows import ends_of_parts, forecast_splits
from dl_lab.datasets.storage import Storage

UNITS = {  # from UCI's table of variables, which has no units for the sensors' responses and the absolute humidity
    "CO(GT)": "mg/m³",
    "NMHC(GT)": "µg/m³",
    "C6H6(GT)": "µg/m³",
    "NOx(GT)": "ppb",
    "NO2(GT)": "µg/m³",
    "T": "°C",
    "RH": "%",
}
N_ROWS = 9357  # rows of the release, which has no published checksum


def air_quality(
    n_features: int,
    window: int,
    horizon: int,
    layout: Layout,
    storage: Storage,
    source: Literal["real", "generated"] = "real",
    scaling: Scaling = "minmax",
    fractions: Sequence[float] = (0.7, 0.15),
    n_generated: int = 1000,
    loading: Loading = AUTO,
) -> Dataset:
    """Return windows of `window` hours and the `horizon` hours after them; the rows are split by time.

    Args:
        n_features: The number of columns.
        window: Hours that the model sees.
        horizon: Hours that the model forecasts.
        layout: How the file is written, and which repairs are allowed.
        storage: Where the CSV file lies.
        source: "real", or "generated" for daily waves that a model can learn.
        scaling: How the features are scaled; the scaler is fitted on the training rows.
        fractions: The shares of training and validation; test is the rest.
        n_generated: Hours of the generated series.
        loading: Where the tensors reside.

    Raises:
        UserError: The file has a fault that `layout.repair` does not name.
        ValueError: `n_features` is not the number of columns, or a part has fewer rows than a window.
    """
    layout.check("dataset.layout")
    if n_features != len(layout.columns):
        raise ValueError(f"n_features {n_features} is not the number of columns, {len(layout.columns)}")
    label = "generated"
    if source == "generated":
        rows = n_generated + 8 * (window + horizon)  # enough for every part
        series = generate_series(rows, layout)
    else:
        series = read_series(storage.ensure(storage.entries()[0]), layout)
        changed = series.repairs["gaps"] or series.repairs["duplicates"] or series.repairs["sort"]
        label = "full" if len(series) == N_ROWS and not changed else "part"
    ends = ends_of_parts(len(series), fractions)
    scaler = Scaler.fit(series.values[: ends[0]], series.names, scaling, constant="constant" in layout.repair)
    splits = forecast_splits(series, scaler, ends, window, horizon, loading)
    return Dataset(
        "air_quality",
        label,
        splits["train"],
        splits["val"],
        splits["test"],
        fingerprint=fingerprint(torch.from_numpy(series.values)),
        note=series.note(),
        content=SeriesContent(series, scaler, ends, units=UNITS),
        preprocessing={
            "scaler": scaler.to_plain(),
            "columns": list(layout.columns),
            "window": window,
            "horizon": horizon,
            "layout": layout.to_plain(),
        },
    )


def generate_series(n: int, layout: Layout, seed: int = 0) -> Series:
    """Return n rows of daily waves of different phase, a slow drift and noise, for each column; all are observed."""
    rng = np.random.default_rng(seed)
    times = np.datetime64("2004-03-10T18:00:00") + np.arange(n) * np.timedelta64(layout.step_minutes * 60, "s")
    hours = np.arange(n)[:, None]
    n_columns = len(layout.columns)
    phase = rng.uniform(0, 2 * np.pi, n_columns)
    level = rng.uniform(5, 50, n_columns)
    wave = np.sin(2 * np.pi * hours / 24 + phase) + 0.3 * np.sin(2 * np.pi * hours / 168)
    noise = rng.normal(scale=0.1, size=(n, n_columns))
    values = level * (2 + wave + noise)
    return Series(times, values, np.ones_like(values, dtype=bool), tuple(layout.columns))
