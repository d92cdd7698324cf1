"""Your own time series: any CSV file with a column of times. A model forecasts the next rows from a window of rows."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import torch

from dl_lab.datasets.batches import Loading, fingerprint
from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.delimited import Table, find_delimiter, parse_table, quote, read_text
from dl_lab.datasets.numerals import OtherWriting, number_of, read_all
from dl_lab.datasets.series.content import SeriesContent
from dl_lab.datasets.series.layout import Layout
from dl_lab.datasets.series.scaler import Scaler, Scaling
from dl_lab.datasets.series.tables import read_series
from dl_lab.datasets.series.times import LIKELY_TIMES, check_time_format, explain_time, is_time, time_reader
from dl_lab.datasets.series.windows import ends_of_parts, forecast_splits
from dl_lab.datasets.sets.air_quality import generate_series
from dl_lab.datasets.storage import Storage
from dl_lab.datasets.tables.reading import Stamp, find_file, stamp_of
from dl_lab.types import UserError


class FoundLayout(TypedDict):
    """What a look at the file finds where the config leaves it open: arguments of a `Layout`."""

    delimiter: str
    time_columns: list[str]
    time_format: str
    step_minutes: int
    columns: list[str]


def series(
    path: str,
    layout: Layout,
    targets: Sequence[str],
    target_places: Sequence[int],
    n_features: int,
    window: int,
    horizon: int,
    storage: Storage,
    loading: Loading,
    fractions: Sequence[float] = (0.7, 0.15),
    scaling: Scaling = "standard",
    source: Literal["real", "generated"] = "real",
    n_generated: int = 1000,
) -> Dataset:
    """Return windows of `window` rows and the `horizon` rows after them; the rows are split by time.

    Args:
        path: A CSV file with a header, relative to the current folder or to the data folder.
        layout: How the file is written, and which repairs are allowed. The config learns from the file what it leaves
            open.
        targets: The columns that are forecast; empty for all of them. The model sees every column of the layout.
        target_places: The positions of the targets among the columns; the config learns them from the file.
        n_features: The number of columns; the config learns it from the file.
        window: Rows that the model sees.
        horizon: Rows that the model forecasts.
        storage: The data folder.
        loading: Where the tensors reside.
        fractions: The shares of training and validation; test is the rest.
        scaling: How the features are scaled; the scaler is fitted on the training rows.
        source: "real", or "generated" for daily waves that a model can learn.
        n_generated: Rows of the generated series.

    Raises:
        UserError: The file has a fault that `layout.repair` does not name; the message names file and line.
        ValueError: `n_features` is not the number of columns, or a part has fewer rows than a window.
    """
    if len(layout.columns) != n_features:
        raise ValueError(f"n_features {n_features} is not the number of columns, {len(layout.columns)}")
    if source == "generated":
        found = generate_series(n_generated + 8 * (window + horizon), layout)
    else:
        found = read_series(find_file(path, storage.data_dir), layout)
    ends = ends_of_parts(len(found), fractions)
    scaler = Scaler.fit(found.values[: ends[0]], found.names, scaling, constant="constant" in layout.repair)
    splits = forecast_splits(found, scaler, ends, window, horizon, loading)
    names = [layout.columns[i] for i in target_places]
    about = [
        f"time: {' and '.join(layout.time_columns)}, like {layout.time_format}, every {layout.step_minutes} minutes",
        f"seen: {', '.join(layout.columns)}",
        f"forecast: {', '.join(names)}, {horizon} row{'s' * (horizon > 1)} from {window} rows",
        f"from {found.times[0]} to {found.times[-1]}",
    ]
    return Dataset(
        "series",
        "generated" if source == "generated" else "full",
        splits["train"],
        splits["val"],
        splits["test"],
        fingerprint=fingerprint(torch.from_numpy(found.values)),
        note=found.note(),
        about=about,
        content=SeriesContent(found, scaler, ends),
        preprocessing={
            "scaler": scaler.to_plain(),
            "columns": list(layout.columns),
            "targets": names,
            "window": window,
            "horizon": horizon,
            "layout": layout.to_plain(),
        },
    )


def learn(
    path: str, layout: Layout | Mapping[str, object], targets: Sequence[str], storage: Storage, **_: object
) -> dict[str, object]:
    """Return what the config takes from the file: the arguments of the layout, n_features and target_places.

    Args:
        path: The CSV file.
        layout: The layout as far as the config gives it.
        targets: The columns that are forecast; empty for all of them.
        storage: The data folder.

    Raises:
        UserError: The file cannot be read or understood, or has no such target.
    """
    given = layout.to_plain() if isinstance(layout, Layout) else layout
    settings = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    found = _look(stamp_of(find_file(path, storage.data_dir)), tuple(sorted(settings.items(), key=str)))
    columns = list(found["columns"])
    absent = [name for name in targets if name not in columns]
    if absent:
        raise UserError(f"dataset.targets: {absent[0]!r} is no column of numbers of {path}; {', '.join(columns)} are.")
    places = [columns.index(name) for name in targets or columns]
    return {**found, "columns": columns, "n_features": len(columns), "target_places": places}


@functools.lru_cache(maxsize=4)
def _look(stamp: Stamp, settings: tuple[tuple[str, Any], ...]) -> FoundLayout:
    """Find the layout of a file.

    Args:
        stamp: The file, as it is now.
        settings: The arguments of the layout that the config gives, as (name, value), hashable.
    """
    given = dict(settings)
    path = Path(stamp.path)
    if given.get("time_format"):
        check_time_format(given["time_format"], "dataset.layout.time_format")
    encoding = given.get("encoding", "utf-8")
    text = read_text(path, encoding, "dataset.layout.encoding")
    delimiter = given.get("delimiter") or find_delimiter(text, str(path), "dataset.layout")
    table = parse_table(text, str(path), delimiter, key="dataset.layout")
    rows = [row for row in table.rows if any(cell.strip() for cell in row.cells)]
    if not rows:
        raise UserError(f"{path} has no rows below its header.")
    table = Table(table.where, table.header, rows)
    time_columns = given.get("time_columns") or _find_time_columns(table)
    stamps = _join_times(table, time_columns)
    time_format = given.get("time_format") or _find_time_format(table, stamps, time_columns)
    return {
        "delimiter": "tab" if delimiter == "\t" else delimiter,
        "time_columns": list(time_columns),
        "time_format": time_format,
        "step_minutes": given.get("step_minutes") or _find_step(table, stamps, time_format),
        "columns": list(given.get("columns") or _find_number_columns(table, time_columns, given)),
    }


def _find_time_columns(table: Table) -> tuple[str, ...]:
    """Find the first column whose first cell is a time, or the first two columns where they hold date and time."""
    first = [cell.strip() for cell in table.rows[0].cells]
    for name, cell in zip(table.header, first, strict=True):
        if any(is_time(cell, pattern) for pattern in LIKELY_TIMES) and not cell.isdigit():
            if len(first) > 1 and name == table.header[0] and _is_daytime(first[1]):
                return table.header[:2]
            return (name,)
    raise UserError(
        f"{table.where}: no column holds times in a known format. Name the column and its format:"
        f" 'dataset.layout.time_columns=[{table.header[0]}]' {quote('dataset.layout.time_format', '%d %b %Y')}."
    )


def _is_daytime(cell: str) -> bool:
    return any(is_time(cell, pattern) for pattern in ("%H:%M:%S", "%H:%M", "%H.%M.%S", "%H.%M"))


def _join_times(table: Table, time_columns: Sequence[str]) -> list[str]:
    """Return the time of each row: the cells of its time columns, joined by a blank."""
    places = [table.place(name) for name in time_columns]
    return [" ".join(row.cells[place].strip() for place in places) for row in table.rows]


def _find_time_format(table: Table, stamps: Sequence[str], time_columns: Sequence[str]) -> str:
    """Find the one format that all times have.

    Raises:
        UserError: No format fits all times, or two formats do: day and month may be exchanged.
    """
    fitting = [pattern for pattern in LIKELY_TIMES if all(is_time(stamp, pattern) for stamp in stamps)]
    if len(fitting) > 1:
        raise UserError(
            f"{table.where}: {stamps[0]!r} may be {' or '.join(fitting)}. Name the format:"
            f" {quote('dataset.layout.time_format', fitting[0])}."
        )
    if fitting:
        return fitting[0]
    counts = {pattern: sum(is_time(stamp, pattern) for stamp in stamps) for pattern in LIKELY_TIMES}
    best = max(counts, key=counts.__getitem__)
    if not counts[best]:
        raise UserError(
            f"{table.where}, line {table.rows[0].line}: {stamps[0]!r} in {' and '.join(time_columns)} is no time in a"
            f" known format. Name its format: {quote('dataset.layout.time_format', '%d %b %Y')}."
        )
    wrong = next(i for i, stamp in enumerate(stamps) if not is_time(stamp, best))
    raise UserError(f"{table.where}, line {table.rows[wrong].line}: {stamps[wrong]!r} is no time like {best}.")


def _find_step(table: Table, stamps: Sequence[str], time_format: str) -> int:
    """Find the most common distance of two rows, in minutes."""
    read_time = time_reader(time_format)
    times: list[datetime] = []
    for row, stamp in zip(table.rows, stamps, strict=True):
        try:
            times.append(read_time(stamp))
        except ValueError:
            wrong = explain_time(stamp, time_format, "dataset.layout.time_format")
            raise UserError(f"{table.where}, line {row.line}: {wrong}") from None
    apart = np.diff(np.unique(np.array(times, dtype="datetime64[s]"))).astype(int)
    if not len(apart):
        raise UserError(f"{table.where} has one time only: nothing can be forecast.")
    seconds = Counter(apart.tolist()).most_common(1)[0][0]
    if seconds % 60:
        raise UserError(f"{table.where}: the rows are {seconds} seconds apart; only whole minutes are read.")
    return seconds // 60


def _find_number_columns(table: Table, time_columns: Sequence[str], given: Mapping[str, Any]) -> list[str]:
    """Find the columns beside the times in which at least half of the cells with a value are numbers."""
    _, words = Layout(columns=("x",), missing=given.get("missing")).markers()
    decimal = given.get("decimal", ".")
    columns: list[str] = []
    for place, name in enumerate(table.header):
        if not name or name in time_columns:
            continue
        cells = [row.cells[place].strip() for row in table.rows]
        known = [cell for cell in cells if cell.lower() not in words]
        if not known:
            continue
        if read_all(known, decimal) is not None or sum(_is_number(cell, decimal) for cell in known) >= 0.5 * len(known):
            columns.append(name)
    if not columns:
        raise UserError(
            f"{table.where} has no column of numbers beside its times;"
            f" {quote('dataset.layout.decimal', ',')} reads decimal commas."
        )
    return columns


def _is_number(cell: str, decimal: str) -> bool:
    try:
        number_of(cell, decimal)
    except OtherWriting:
        return True  # the reader says how to write it
    except ValueError:
        return False
    return True
