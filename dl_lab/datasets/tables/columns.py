"""The columns of a table: what each of them is. Means, deviations and categories come from the training rows alone."""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from dl_lab.datasets.delimited import NO_VALUE, Table
from dl_lab.datasets.markers import find_marker
from dl_lab.datasets.numerals import number_of
from dl_lab.datasets.tables.cells import Cells, TableCells
from dl_lab.types import UserError

Kind = Literal["number", "category", "left out"]
NAMELESS = re.compile(r"|Unnamed: \d+|__index_level_\d+__")  # nothing, and how pandas calls the index of a table
LEADING_ZERO = re.compile(r"0\d+")
MISSING = "(missing)"  # the category of cells without a value
CODES = "codes belong in dataset.columns.categorical"


@dataclass(frozen=True)
class Columns:
    """Which columns are features, and of what kind.

    Args:
        use: The features. Empty: every column but the target.
        leave_out: Columns that are no features.
        categorical: Columns of numbers that are categories (codes).
        max_categories: The most categories of a column; the rarer ones count as one more category.
        missing: More words or numbers that stand for "no value". An empty cell, NaN, NA and null always do.
        markers: "refuse" or "keep" a column in which -999 or the like probably stands for "no value".
    """

    use: Sequence[str] = ()
    leave_out: Sequence[str] = ()
    categorical: Sequence[str] = ()
    max_categories: int = 50
    missing: Sequence[str | float] = ()
    markers: Literal["refuse", "keep"] = "refuse"

    def is_missing(self, cell: str, decimal: str) -> bool:
        """Return whether a cell stands for "no value", in a file with this decimal mark."""
        if cell.lower() in NO_VALUE or cell in self._missing_words:
            return True
        if not self._missing_numbers:
            return False
        try:
            return number_of(cell, decimal) in self._missing_numbers
        except ValueError:
            return False

    @functools.cached_property
    def _missing_words(self) -> frozenset[str]:
        return frozenset(entry for entry in self.missing if isinstance(entry, str))

    @functools.cached_property
    def _missing_numbers(self) -> frozenset[float]:
        return frozenset(float(entry) for entry in self.missing if not isinstance(entry, str))


@dataclass(frozen=True)
class Column:
    """One column, as the training rows show it.

    Args:
        name: The name in the header.
        kind: "number", "category" or "left out".
        mean: The mean of a number over the training rows that have a value.
        deviation: The standard deviation of a number over these rows.
        has_missing: Whether training rows have no value. Then a number gets a second feature that marks such rows.
        categories: The categories, the most frequent first.
        has_rest: Whether rarer categories share one more feature.
        words: The description of the column for the user.
    """

    name: str
    kind: Kind
    mean: float = 0.0
    deviation: float = 1.0
    has_missing: bool = False
    categories: Sequence[str] = ()
    has_rest: bool = False
    words: str = ""

    @property
    def width(self) -> int:
        """The number of features that the column makes."""
        if self.kind == "number":
            return 1 + self.has_missing
        if self.kind == "category":
            return len(self.categories) + self.has_rest
        return 0


def understand(
    cells: TableCells, settings: Columns, target: str, train: np.ndarray, others: Sequence[str]
) -> list[Column]:
    """Find out what each column of a table is.

    Args:
        cells: The whole table.
        settings: The user's settings.
        target: The column to predict.
        train: The numbers of the training rows.
        others: Columns that are neither target nor feature (they name the split).

    Raises:
        UserError: A column of the settings does not exist, a column mixes numbers and words, or there are no features.
    """
    table = cells.table
    for name in (*settings.use, *settings.leave_out, *settings.categorical):
        table.place(name)
    names = list(settings.use) or [name for name in table.header if not NAMELESS.fullmatch(name)]
    names = [name for name in names if name != target and name not in others and name not in settings.leave_out]
    columns = [_understand_column(cells, name, settings, train) for name in names]
    if not settings.use:
        for place, name in enumerate(table.header, 1):
            if NAMELESS.fullmatch(name) and name not in (target, *others, *settings.leave_out):
                columns.append(Column(name or f"(column {place})", "left out", words="no name: left out"))
    if not sum(column.width for column in columns):
        raise UserError(f"{table.where} has no column to learn from beside {target!r}.")
    return columns


def _understand_column(cells: TableCells, name: str, settings: Columns, train: np.ndarray) -> Column:
    found = cells.column(name)
    if found.missing.all():
        return Column(name, "left out", words="no value at all: left out")
    as_words = f"'dataset.columns.categorical=[\"{name}\"]'"
    if name in settings.categorical or not cells.holds_numbers(name, as_words):
        return _describe_category(name, found, settings, train)
    values = cells.numbers(name)
    column = _describe_number(name, values, train, cells.table, settings)
    if column.kind == "number" and any(map(LEADING_ZERO.fullmatch, found.texts)):
        column = replace(column, words=f"{column.words} (leading zeros: {CODES})")
    if column.kind == "number" and np.all(np.diff(values) == 1):
        column = replace(column, words=f"{column.words} (it counts the rows: dataset.columns.leave_out?)")
    return column


def _describe_number(name: str, values: np.ndarray, train: np.ndarray, table: Table, settings: Columns) -> Column:
    marker = find_marker(values) if settings.markers == "refuse" else None
    if marker is not None:
        raise UserError(
            f"{table.where}, line {table.rows[marker.first].line}, column {name}: {marker.value:g} occurs {marker.n}"
            f" times, far from all other values ({marker.low:g} to {marker.high:g}). If it stands for a missing value,"
            f" set 'dataset.columns.missing=[{marker.value:g}]'; if it is a measurement, set"
            " dataset.columns.markers=keep."
        )
    own = values[train][np.isfinite(values[train])]
    if not len(own) or np.ptp(own) == 0:
        same = f"always {own[0]:g}" if len(own) else "no value"
        return Column(name, "left out", words=f"{same} in the training rows: left out")
    n_missing = int(np.isnan(values[train]).sum())
    words = f"number, {own.min():g} to {own.max():g}"
    n_different = len(np.unique(own))
    if n_different <= 10 and np.all(own == np.round(own)):
        words += f" ({n_different} different whole numbers; {CODES})"
    if n_missing:
        words += f", {n_missing} missing (filled with the mean, and marked)"
    with np.errstate(over="ignore"):
        mean = float(own.mean())
        deviation = float(own.std())
    if not np.isfinite([mean, deviation]).all() or deviation == 0:
        raise UserError(f"{table.where}: the numbers of the column {name} are too large to be scaled.")
    return Column(name, "number", mean, deviation, bool(n_missing), words=words)


def _describe_category(name: str, cells: Cells, settings: Columns, train: np.ndarray) -> Column:
    own = [MISSING if cells.missing[i] else cells.texts[i] for i in train.tolist()]
    counts = Counter(own)
    if len(counts) == 1:
        return Column(name, "left out", words=f"always {own[0]!r} in the training rows: left out")
    if len(counts) > 20 and len(counts) > 0.9 * len(own) and name not in settings.categorical:
        return Column(
            name, "left out", words=f"{len(counts)} different words in {len(own)} rows, an identifier: left out"
        )
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    kept = ranked[: settings.max_categories]
    examples = ", ".join([*kept[:4], "..."] if len(kept) > 4 else kept)
    words = f"{len(counts)} categories ({examples})"
    if len(ranked) > len(kept):
        words += f", the {len(ranked) - len(kept)} rarest as one"
    if MISSING in counts:
        words += f", {counts[MISSING]} missing (a category of their own)"
    return Column(name, "category", categories=tuple(kept), has_rest=len(ranked) > len(kept), words=words)
