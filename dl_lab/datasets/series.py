"""Time series from CSV files: strict reading with named, counted repairs, scaling, and windows.

A table is refused for the first fault it has, in the words of the file (its line, its column); the same
faults are repaired where `repair` names them, and counted. Nothing is repaired in silence.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dl_lab.types import UserError

Repair = Literal["sort", "duplicates", "gaps", "missing", "non_numeric", "constant"]


@dataclass(frozen=True)
class Layout:
    """How a table is written, and which repairs are allowed.

    time_columns: joined by a blank and read by `time_format` (strptime). columns: the features, in order.
    missing: the number that stands for "no value" (an empty cell always does). step_minutes: the distance of
    two rows. repair: sort (unsorted rows), duplicates (the first of equal times stays), gaps (absent rows are
    added, without values), missing and non_numeric (the last value before is kept; before the first value,
    the first one), constant (a column whose values are all the same is taken as it is, and in training only
    shifted).
    """

    columns: Sequence[str]
    time_columns: Sequence[str] = ("timestamp",)
    time_format: str = "%Y-%m-%d %H:%M:%S"
    step_minutes: int = 30
    delimiter: str = ","
    decimal: str = "."
    missing: float | None = None
    repair: Sequence[Repair] = ()


@dataclass(frozen=True)
class Series:
    """Equally spaced rows: times (n,) datetime64[s], values (n, features), observed (n, features) bool."""

    times: np.ndarray
    values: np.ndarray
    observed: np.ndarray
    names: tuple[str, ...]
    repairs: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.times)

    def note(self) -> str:
        """What was repaired, in words; "" where nothing was."""
        return ", ".join(f"{count} {WORDS[name]}" for name, count in self.repairs.items() if count)


WORDS = {
    "blank": "blank rows dropped",
    "sort": "rows out of order sorted",
    "duplicates": "rows of a repeated time dropped",
    "gaps": "absent rows filled",
    "missing": "missing values filled forward",
    "non_numeric": "cells that are no numbers filled forward",
    "constant": "constant columns taken as they are",
}


# -- reading ------------------------------------------------------------------------------------------------------


def read_series(path: Path, layout: Layout) -> Series:
    """Raises UserError, naming file and line, for a fault that `layout.repair` does not name."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    return parse_series(text, layout, str(path))


def parse_series(text: str, layout: Layout, where: str) -> Series:
    """A series from the text of a table with a header line; `where` names it in errors."""
    times, cells, lines, n_blank = _rows(text, layout, where)
    counts = {"blank": n_blank}
    values, counts["non_numeric"] = _numbers(cells, lines, layout, where)
    counts["missing"] = _missing(values, lines, layout, where) - counts["non_numeric"]
    order = _ordered(times, lines, layout, where, counts)
    times, values, counts["gaps"] = _without_gaps(times[order], values[order], lines[order], layout, where)
    observed = np.isfinite(values)
    empty = np.flatnonzero(~observed.any(axis=0))
    if len(empty):
        raise UserError(f"{where}: the column {layout.columns[empty[0]]} has no value at all.")
    counts["constant"] = _constant(values, observed, layout, where)
    values = _filled(values, observed)
    return Series(times, values, observed, tuple(layout.columns), counts)


def _constant(values: np.ndarray, observed: np.ndarray, layout: Layout, where: str) -> int:
    """How many columns of several values have the same one in every row: a sensor that stands still."""
    lowest, highest = np.where(observed, values, np.inf).min(axis=0), np.where(observed, values, -np.inf).max(axis=0)
    flat = np.flatnonzero((lowest == highest) & (observed.sum(axis=0) > 1))
    if len(flat) and "constant" not in layout.repair:
        raise UserError(
            f"{where}: the column {layout.columns[flat[0]]} is constant ({lowest[flat[0]]:g}) in all rows;"
            " repair=[constant] takes it as it is."
        )
    return len(flat)


def _rows(text: str, layout: Layout, where: str) -> tuple[np.ndarray, list[list[str]], np.ndarray, int]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=layout.delimiter)
    header = [name.strip() for name in next(reader, [])]
    absent = [name for name in (*layout.time_columns, *layout.columns) if name not in header]
    if absent:
        raise UserError(f"{where} has no column {absent[0]!r}; its columns are {', '.join(filter(None, header))}.")
    time_at = [header.index(name) for name in layout.time_columns]
    value_at = [header.index(name) for name in layout.columns]
    times, cells, lines, n_blank = [], [], [], 0
    for row in reader:
        if not any(cell.strip() for cell in row):
            n_blank += 1
            continue
        if len(row) < len(header):
            raise UserError(f"{where}, line {reader.line_num}: {len(row)} cells where the header has {len(header)}.")
        stamp = " ".join(row[i].strip() for i in time_at)
        try:
            times.append(datetime.strptime(stamp, layout.time_format))
        except ValueError:
            expected = layout.time_format
            raise UserError(f"{where}, line {reader.line_num}: {stamp!r} is no time like {expected}.") from None
        cells.append([row[i].strip() for i in value_at])
        lines.append(reader.line_num)
    if not times:
        raise UserError(f"{where} has no rows.")
    return np.array(times, dtype="datetime64[s]"), cells, np.array(lines), n_blank


def _numbers(cells: list[list[str]], lines: np.ndarray, layout: Layout, where: str) -> tuple[np.ndarray, int]:
    """Values with NaN for what is missing, and how many cells were no numbers."""
    values, n_wrong = np.full((len(cells), len(layout.columns)), np.nan), 0
    for i, row in enumerate(cells):
        for j, cell in enumerate(row):
            if not cell:
                continue
            try:
                values[i, j] = float(cell.replace(layout.decimal, ".") if layout.decimal != "." else cell)
            except ValueError:
                if "non_numeric" not in layout.repair:
                    raise UserError(
                        f"{where}, line {lines[i]}, column {layout.columns[j]}: {cell!r} is no number"
                        " (repair=[non_numeric] fills it)."
                    ) from None
                n_wrong += 1
    if layout.missing is not None:
        values[values == layout.missing] = np.nan
    values[~np.isfinite(values)] = np.nan
    return values, n_wrong


def _missing(values: np.ndarray, lines: np.ndarray, layout: Layout, where: str) -> int:
    """How many cells have no value (those that are no numbers among them)."""
    absent = ~np.isfinite(values)
    if absent.any() and not {"missing", "non_numeric"} & set(layout.repair):
        row, column = np.argwhere(absent)[0]
        raise UserError(
            f"{where}, line {lines[row]}, column {layout.columns[column]}: no value (repair=[missing] fills it)."
        )
    return int(absent.sum())


def _ordered(times: np.ndarray, lines: np.ndarray, layout: Layout, where: str, counts: dict[str, int]) -> np.ndarray:
    """The rows to keep, by time."""
    backwards = np.flatnonzero(np.diff(times) < np.timedelta64(0))
    counts["sort"] = len(backwards)
    if len(backwards) and "sort" not in layout.repair:
        line, time = lines[backwards[0] + 1], times[backwards[0] + 1]
        raise UserError(f"{where}, line {line}: {time} comes after a later time (repair=[sort] sorts the rows).")
    order = np.argsort(times, kind="stable")
    repeated = np.concatenate([[False], np.diff(times[order]) == np.timedelta64(0)])
    counts["duplicates"] = int(repeated.sum())
    if repeated.any() and "duplicates" not in layout.repair:
        at = order[repeated][0]
        raise UserError(f"{where}, line {lines[at]}: {times[at]} occurs twice (repair=[duplicates] keeps the first).")
    return order[~repeated]


def _without_gaps(
    times: np.ndarray, values: np.ndarray, lines: np.ndarray, layout: Layout, where: str
) -> tuple[np.ndarray, np.ndarray, int]:
    step = np.timedelta64(layout.step_minutes * 60, "s")
    apart = np.diff(times)
    odd = np.flatnonzero(apart % step != np.timedelta64(0))
    if len(odd):
        raise UserError(
            f"{where}, line {lines[odd[0] + 1]}: {times[odd[0] + 1]} is not a multiple of"
            f" {layout.step_minutes} minutes after {times[odd[0]]}."
        )
    gaps = np.flatnonzero(apart > step)
    if not len(gaps):
        return times, values, 0
    if "gaps" not in layout.repair:
        raise UserError(
            f"{where}, line {lines[gaps[0] + 1]}: no rows between {times[gaps[0]]} and {times[gaps[0] + 1]}"
            " (repair=[gaps] fills them)."
        )
    whole = np.arange(times[0], times[-1] + step, step)
    wide = np.full((len(whole), values.shape[1]), np.nan)
    wide[(times - times[0]) // step] = values
    return whole, wide, len(whole) - len(times)


def _filled(values: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Each column's last value before; what comes before a column's first value gets that one."""
    last = np.where(observed, np.arange(len(values))[:, None], 0)
    np.maximum.accumulate(last, axis=0, out=last)
    last = np.maximum(last, observed.argmax(axis=0))
    return np.take_along_axis(values, last, axis=0)


# -- scaling
# ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scaler:
    """(values - shift) / scale, per feature; made from training rows only, saved with the run."""

    shift: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def fit(
        cls,
        values: np.ndarray,
        names: Sequence[str],
        kind: Literal["standard", "minmax"],
        constant: bool = False,
    ) -> Scaler:
        """standard: mean 0, deviation 1; minmax: to [0, 1]. Raises ValueError for a constant column unless
        `constant`.
        """
        if kind == "standard":
            shift, scale = values.mean(axis=0), values.std(axis=0)
        else:
            shift, scale = values.min(axis=0), np.ptp(values, axis=0)
        flat = np.flatnonzero(np.ptp(values, axis=0) == 0)
        if len(flat) and not constant:
            raise ValueError(
                f"the column {names[flat[0]]} is constant ({values[0, flat[0]]:g}) in the training part"
                " (repair=[constant] keeps it, unscaled)"
            )
        scale = np.where(np.ptp(values, axis=0) == 0, 1.0, scale)
        return cls(tuple(shift.tolist()), tuple(scale.tolist()))

    def scaled(self, values: np.ndarray) -> np.ndarray:
        return (values - np.array(self.shift)) / np.array(self.scale)

    def unscaled(self, values: np.ndarray) -> np.ndarray:
        return values * np.array(self.scale) + np.array(self.shift)

    def to_plain(self) -> dict[str, Any]:
        return {"shift": list(self.shift), "scale": list(self.scale)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Scaler:
        return cls(tuple(plain["shift"]), tuple(plain["scale"]))


# -- windows
# ------------------------------------------------------------------------------------------------------


def windows(values: Tensor, length: int, where: str = "the series") -> Tensor:
    """(n, features) -> (n - length + 1, length, features), one step apart: a view, nothing is copied.

    Raises ValueError where the series is shorter than a window.
    """
    if len(values) < length:
        raise ValueError(f"{where} has {len(values)} rows, less than one window of {length}")
    return values.unfold(0, length, 1).transpose(1, 2)


def unchanged(batch: Any) -> Any:
    """The transform of windows: they come scaled."""
    return batch


def to_tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
