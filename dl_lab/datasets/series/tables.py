"""Time series from CSV files: strict reading, with repairs that the user names and the reader counts.

The first fault of a table is an error that names the file, the line and the column. The reader repairs faults that
`Layout.repair` names. No repair is silent: `Series.note` lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np

from dl_lab.datasets.delimited import (
    Table,
    delimiter_of,
    other_delimiter,
    parse_table,
    quote,
    read_text,
)
from dl_lab.datasets.markers import find_marker
from dl_lab.datasets.numerals import OtherWriting, number_of, read_all
from dl_lab.datasets.series.layout import Layout
from dl_lab.datasets.series.times import explain_time, time_reader
from dl_lab.types import UserError


@dataclass(frozen=True)
class Series:
    """Equally spaced rows.

    Args:
        times: (n,) datetime64[s].
        values: (n, features).
        observed: (n, features) bool: whether the value was measured, not filled in.
        names: The names of the features.
        repairs: How often each repair was made.
    """

    times: np.ndarray
    values: np.ndarray
    observed: np.ndarray
    names: tuple[str, ...]
    repairs: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.times)

    def note(self) -> str:
        """Return the repairs in words; "" for none."""
        return ", ".join(f"{count} {WORDS[name]}" for name, count in self.repairs.items() if count)


WORDS = {
    "blank": "blank rows dropped",
    "sort": "rows out of order sorted",
    "duplicates": "rows of a repeated time dropped",
    "gaps": "absent rows filled",
    "missing": "missing values filled forward",
    "non_numeric": "cells that are no numbers filled forward",
    "constant": "constant columns taken as they are",
    "markers": "values like -999 taken as measurements",
}


# -- reading ------------------------------------------------------------------------------------------------------


def read_series(path: Path, layout: Layout, key: str = "dataset.layout") -> Series:
    """Read the series of a CSV file with a header.

    Args:
        path: The file.
        layout: How the file is written.
        key: Where the user sets the layout; errors advise keys below it.

    Raises:
        UserError: The file has a fault that `layout.repair` does not name; the message names file and line.
    """
    layout.check(key)
    return parse_series(read_text(path, layout.encoding, f"{key}.encoding"), layout, str(path), key)


def parse_series(text: str, layout: Layout, where: str, key: str = "dataset.layout") -> Series:
    """Read the series of a table's text, like `read_series`; errors call the text `where`."""
    layout.check(key)
    return _Reader(layout, where, key).read(text)


@dataclass(frozen=True)
class _Reader:
    layout: Layout
    where: str
    key: str

    def read(self, text: str) -> Series:
        table = self._parse(text)
        times, cells, lines, n_blank = self._read_rows(table)
        counts = {"blank": n_blank}
        values, counts["non_numeric"] = self._read_numbers(cells, lines)
        n_markers = self._count_markers(values, lines)
        counts["missing"] = self._count_missing(values, lines) - counts["non_numeric"]
        order = self._sort(times, lines, counts)
        times, values, counts["gaps"] = self._fill_gaps(times[order], values[order], lines[order])
        observed = np.isfinite(values)
        empty = np.flatnonzero(~observed.any(axis=0))
        if len(empty):
            raise UserError(f"{self.where}: the column {self.layout.columns[empty[0]]} has no value at all.")
        counts["constant"] = self._count_constant(values, observed)
        counts["markers"] = n_markers
        return Series(times, _fill_forward(values, observed), observed, tuple(self.layout.columns), counts)

    def _advise(self, repair: str) -> str:
        """Return the override that allows one more repair."""
        return f"{self.key}.repair=[{','.join([*self.layout.repair, repair])}]"

    def _parse(self, text: str) -> Table:
        delimiter = delimiter_of(self.layout.delimiter, f"{self.key}.delimiter")
        wanted = [*self.layout.time_columns, *self.layout.columns]
        header = text.lstrip("\r\n").partition("\n")[0].strip().split(delimiter)
        other = other_delimiter(header, wanted, delimiter)
        names = [name.strip().strip('"') for name in header]
        if other is not None and not all(name in names for name in wanted):
            advice = f"{self.key}.delimiter=tab" if other == "\t" else quote(f"{self.key}.delimiter", other)
            raise UserError(
                f"{self.where}, line 1: the columns are separated by {other!r}, not by {delimiter!r}: set {advice}."
            )
        return parse_table(text, self.where, delimiter, key=self.key)

    def _read_rows(self, table: Table) -> tuple[np.ndarray, list[list[str]], np.ndarray, int]:
        """Return the times, the cells of the features, the line of each row, and the number of blank rows."""
        time_places = [table.place(name) for name in self.layout.time_columns]
        value_places = [table.place(name) for name in self.layout.columns]
        read_time = time_reader(self.layout.time_format)
        times: list[datetime] = []
        cells: list[list[str]] = []
        lines: list[int] = []
        n_blank = 0
        for row in table.rows:
            if not any(cell.strip() for cell in row.cells):
                n_blank += 1
                continue
            stamp = " ".join(row.cells[i].strip() for i in time_places)
            try:
                time = read_time(stamp)
            except ValueError:
                wrong = explain_time(stamp, self.layout.time_format, f"{self.key}.time_format")
                raise UserError(f"{self.where}, line {row.line}: {wrong}") from None
            if time.tzinfo is not None:
                raise UserError(
                    f"{self.where}, line {row.line}: {stamp!r} names a time zone. Write all times in one zone,"
                    " without it."
                )
            if time.microsecond:
                raise UserError(
                    f"{self.where}, line {row.line}: {stamp!r} has a fraction of a second; write whole ones."
                )
            times.append(time)
            cells.append([row.cells[i].strip() for i in value_places])
            lines.append(row.line)
        if not times:
            raise UserError(f"{self.where} has no rows below its header.")
        return np.array(times, dtype="datetime64[s]"), cells, np.array(lines), n_blank

    def _read_numbers(self, cells: list[list[str]], lines: np.ndarray) -> tuple[np.ndarray, int]:
        """Return the values with NaN for missing ones, and the number of cells that are no numbers."""
        numbers, words = self.layout.markers()
        values = np.full((len(cells), len(self.layout.columns)), np.nan)
        wrong: dict[tuple[int, int], ValueError] = {}
        for j, column in enumerate(zip(*cells, strict=True)):
            known = [i for i, cell in enumerate(column) if cell.lower() not in words]
            read = read_all([column[i] for i in known], self.layout.decimal)
            if read is not None:
                values[known, j] = read
                continue
            for i in known:
                try:
                    values[i, j] = number_of(column[i], self.layout.decimal)
                except ValueError as error:
                    wrong[i, j] = error
        if wrong and "non_numeric" not in self.layout.repair:
            i, j = min(wrong)
            raise UserError(self._explain_number(cells[i][j], wrong[i, j], int(lines[i]), self.layout.columns[j]))
        for number in numbers:
            values[values == number] = np.nan
        return values, len(wrong)

    def _explain_number(self, cell: str, error: ValueError, line: int, column: str) -> str:
        words = f"{self.where}, line {line}, column {column}: {error}."
        if isinstance(error, OtherWriting) and not error.is_decimal:
            return f"{words} Write the numbers plainly, or choose other columns with {self.key}.columns."
        if isinstance(error, OtherWriting):
            other = "," if self.layout.decimal == "." else "."
            return (
                f"{words} If this whole file is written so, set {quote(f'{self.key}.decimal', other)};"
                " else write this number like the others."
            )
        return (
            f"{words} If it stands for a missing value, set '{self.key}.missing=[\"{cell}\"]';"
            f" {self._advise('non_numeric')} fills every cell that is no number."
        )

    def _count_missing(self, values: np.ndarray, lines: np.ndarray) -> int:
        """Return the number of cells without a value, including those that are no numbers."""
        absent = ~np.isfinite(values)
        if absent.any() and not {"missing", "non_numeric"} & set(self.layout.repair):
            row, column = np.argwhere(absent)[0]
            raise UserError(
                f"{self.where}, line {lines[row]}, column {self.layout.columns[column]}: no value"
                f" ({self._advise('missing')} fills it with the value before)."
            )
        return int(absent.sum())

    def _sort(self, times: np.ndarray, lines: np.ndarray, counts: dict[str, int]) -> np.ndarray:
        """Return the rows to keep, sorted by time."""
        backwards = np.flatnonzero(np.diff(times) < np.timedelta64(0))
        counts["sort"] = len(backwards)
        if len(backwards) and "sort" not in self.layout.repair:
            line = lines[backwards[0] + 1]
            time = times[backwards[0] + 1]
            raise UserError(
                f"{self.where}, line {line}: {time} comes after a later time ({self._advise('sort')} sorts the rows)."
            )
        order = np.argsort(times, kind="stable")
        repeated = np.concatenate([[False], np.diff(times[order]) == np.timedelta64(0)])
        counts["duplicates"] = int(repeated.sum())
        if repeated.any() and "duplicates" not in self.layout.repair:
            at = order[repeated][0]
            raise UserError(
                f"{self.where}, line {lines[at]}: {times[at]} occurs twice ({self._advise('duplicates')} keeps"
                " the first)."
            )
        return order[~repeated]

    def _fill_gaps(
        self, times: np.ndarray, values: np.ndarray, lines: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, int]:
        step = np.timedelta64(self.layout.step_minutes * 60, "s")
        apart = np.diff(times)
        odd = np.flatnonzero(apart % step != np.timedelta64(0))
        if len(odd):
            raise UserError(
                f"{self.where}, line {lines[odd[0] + 1]}: {times[odd[0] + 1]} is not a multiple of"
                f" {self.layout.step_minutes} minutes after {times[odd[0]]} ({self.key}.step_minutes sets the"
                " distance)."
            )
        gaps = np.flatnonzero(apart > step)
        if not len(gaps):
            return times, values, 0
        if "gaps" not in self.layout.repair:
            raise UserError(
                f"{self.where}, line {lines[gaps[0] + 1]}: no rows between {times[gaps[0]]} and {times[gaps[0] + 1]}"
                f" ({self._advise('gaps')} fills them with the values before)."
            )
        n_rows = int((times[-1] - times[0]) // step) + 1
        if n_rows > max(100 * len(times), 100_000):
            raise UserError(
                f"{self.where}: filling the gaps would make {n_rows:,} rows of {len(times):,}. Is"
                f" {self.key}.step_minutes={self.layout.step_minutes} the distance between two rows?"
            )
        whole = times[0] + np.arange(n_rows) * step
        wide = np.full((len(whole), values.shape[1]), np.nan)
        wide[(times - times[0]) // step] = values
        return whole, wide, len(whole) - len(times)

    def _count_constant(self, values: np.ndarray, observed: np.ndarray) -> int:
        """Return the number of columns with the same value in every row, as of a dead sensor."""
        lowest = np.where(observed, values, np.inf).min(axis=0)
        highest = np.where(observed, values, -np.inf).max(axis=0)
        flat = np.flatnonzero((lowest == highest) & (observed.sum(axis=0) > 1))
        if len(flat) and "constant" not in self.layout.repair:
            raise UserError(
                f"{self.where}: the column {self.layout.columns[flat[0]]} is constant ({lowest[flat[0]]:g}) in"
                " all rows;"
                f" {self._advise('constant')} takes it as it is."
            )
        return len(flat)

    def _count_markers(self, values: np.ndarray, lines: np.ndarray) -> int:
        """Return how many values look like a marker for "no value" that `missing` does not name."""
        n_found = 0
        for j, column in enumerate(self.layout.columns):
            marker = find_marker(values[:, j])
            if marker is None:
                continue
            if "markers" not in self.layout.repair:
                raise UserError(
                    f"{self.where}, line {lines[marker.first]}, column {column}: {marker.value:g} occurs {marker.n}"
                    f" times, far from all other values ({marker.low:g} to {marker.high:g}). If it stands for a missing"
                    f" value, set '{self.key}.missing=[{marker.value:g}]' {self._advise_filling()}; if it is a"
                    f" measurement, {self._advise('markers')}."
                )
            n_found += marker.n
        return n_found

    def _advise_filling(self) -> str:
        return "" if "missing" in self.layout.repair else f"and {self._advise('missing')}"


def _fill_forward(values: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Fill each gap of a column with the last value before it; rows before the first value get the first value."""
    last = np.where(observed, np.arange(len(values))[:, None], 0)
    np.maximum.accumulate(last, axis=0, out=last)
    last = np.maximum(last, observed.argmax(axis=0))
    return np.take_along_axis(values, last, axis=0)
