"""The columns of a table: their kinds, and how they become numbers.

Means, deviations and categories come from the training rows alone. The run saves them, so that new rows are prepared in
the same way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from dl_lab.datasets.delimited import NO_VALUE, Table, number_of, quote
from dl_lab.datasets.markers import find_marker
from dl_lab.types import UserError

Kind = Literal["number", "category", "left out"]


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

    def is_missing(self, cell: str) -> bool:
        """Return whether a cell stands for "no value"."""
        return cell.lower() in NO_VALUE or cell in self._words()

    def _words(self) -> set[str]:
        return {entry if isinstance(entry, str) else f"{entry:g}" for entry in self.missing}


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


@dataclass
class Strange:
    """Cells of new rows that training did not have, by column.

    Attributes:
        filled: How many missing values were filled.
        unknown: How many values are unknown categories.
        examples: One unknown category of each column.
    """

    filled: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def notes(self) -> list[str]:
        """Return a sentence for each column."""
        notes: list[str] = []
        for name, n in self.filled.items():
            notes.append(f"{name}: {n} missing value{'s' * (n != 1)} filled with the training mean")
        for name, n in self.unknown.items():
            notes.append(f"{name}: {n} value{'s' * (n != 1)} that training did not have ({self.examples[name]!r})")
        return notes


def understand(
    table: Table, settings: Columns, target: str, train: np.ndarray, others: Sequence[str], decimal: str
) -> list[Column]:
    """Find out what each column of a table is.

    Args:
        table: The whole table.
        settings: The user's settings.
        target: The column to predict.
        train: The numbers of the training rows.
        others: Columns that are neither target nor feature (they name the split).
        decimal: The decimal mark.

    Raises:
        UserError: A column of the settings does not exist, a column mixes numbers and words, or there are no features.
    """
    for name in (*settings.use, *settings.leave_out, *settings.categorical):
        table.place(name)
    names = list(settings.use) or [name for name in table.header if name]
    names = [name for name in names if name != target and name not in others and name not in settings.leave_out]
    columns = [_understand_column(table, name, settings, train, decimal) for name in names]
    if not sum(column.width for column in columns):
        raise UserError(f"{table.where} has no column to learn from beside {target!r}.")
    return columns


def _understand_column(table: Table, name: str, settings: Columns, train: np.ndarray, decimal: str) -> Column:
    place = table.place(name)
    cells = [row.cells[place] for row in table.rows]
    known = [cell for cell in cells if not settings.is_missing(cell)]
    if not known:
        return Column(name, "left out", words="no value at all: left out")
    if name not in settings.categorical and holds_numbers(table, name, settings, decimal):
        return _describe_number(name, numbers_of(table, name, settings, decimal), train, table, settings)
    return _describe_category(name, cells, settings, train)


def holds_numbers(table: Table, name: str, settings: Columns, decimal: str) -> bool:
    """Return whether a column holds numbers.

    Args:
        table: The whole table.
        name: The column.
        settings: The user's settings.
        decimal: The decimal mark.

    Raises:
        UserError: The column mixes numbers and words.
    """
    place = table.place(name)
    n_numbers = 0
    first: tuple[int, str, ValueError] | None = None
    for row in table.rows:
        cell = row.cells[place]
        if settings.is_missing(cell):
            continue
        try:
            number_of(cell, decimal)
        except ValueError as error:
            first = first or (row.line, cell, error)
        else:
            n_numbers += 1
    if first is None:
        return True
    line, cell, error = first
    n_known = sum(not settings.is_missing(row.cells[place]) for row in table.rows)
    if "decimal mark" in str(error):
        other = "," if decimal == "." else "."
        raise UserError(
            f"{table.where}, line {line}, column {name}: {error}. If the whole file is written so, set"
            f" {quote('dataset.format.decimal', other)}; else write this number like the others."
        )
    if n_numbers < 0.5 * n_known:
        return False
    raise UserError(
        f"{table.where}, line {line}, column {name}: {error}, but {n_numbers} of {n_known} values are. If it"
        f" stands for a missing value, set 'dataset.columns.missing=[\"{cell}\"]'; if the column holds categories, set"
        f" 'dataset.columns.categorical=[\"{name}\"]'."
    )


def numbers_of(table: Table, name: str, settings: Columns, decimal: str) -> np.ndarray:
    """Return the numbers of a column (n,), with NaN for a missing value.

    Args:
        table: The whole table.
        name: The column.
        settings: The user's settings.
        decimal: The decimal mark.

    Raises:
        UserError: A cell is no number.
    """
    place = table.place(name)
    values = np.full(len(table.rows), np.nan)
    for i, row in enumerate(table.rows):
        cell = row.cells[place]
        if settings.is_missing(cell):
            continue
        try:
            values[i] = number_of(cell, decimal)
        except ValueError as error:
            raise UserError(f"{table.where}, line {row.line}, column {name}: {error}.") from error
    return values


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
        words += f" ({n_different} different whole numbers; codes belong in dataset.columns.categorical)"
    if n_missing:
        words += f", {n_missing} missing (filled with the mean, and marked)"
    with np.errstate(over="ignore"):
        mean = float(own.mean())
        deviation = float(own.std())
    if not np.isfinite([mean, deviation]).all() or deviation == 0:
        raise UserError(f"{table.where}: the numbers of the column {name} are too large to be scaled.")
    return Column(name, "number", mean, deviation, bool(n_missing), words=words)


def _describe_category(name: str, cells: Sequence[str], settings: Columns, train: np.ndarray) -> Column:
    own: list[str] = []
    for i in train:
        cell = cells[int(i)]
        own.append(MISSING if settings.is_missing(cell) else cell)
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


MISSING = "(missing)"


def encode(table: Table, columns: Sequence[Column], settings: Columns, decimal: str) -> tuple[np.ndarray, Strange]:
    """Turn the rows of a table into features.

    Args:
        table: The table.
        columns: The columns, as the training rows show them.
        settings: The user's settings.
        decimal: The decimal mark.

    Returns:
        The features (rows, width) float32, and the cells that training did not have.

    Raises:
        UserError: The table lacks a column, or a cell of a number column is no number.
    """
    parts: list[np.ndarray] = []
    strange = Strange()
    for column in columns:
        if column.kind == "number":
            parts.append(_encode_number(numbers_of(table, column.name, settings, decimal), column, strange))
        elif column.kind == "category":
            place = table.place(column.name)
            parts.append(_encode_category([row.cells[place] for row in table.rows], column, settings, strange))
    return np.concatenate(parts, axis=1, dtype=np.float32), strange


def _encode_number(values: np.ndarray, column: Column, strange: Strange) -> np.ndarray:
    missing = np.isnan(values)
    if missing.any():
        strange.filled[column.name] += int(missing.sum())
    scaled = np.where(missing, 0.0, (values - column.mean) / column.deviation)
    return np.stack([scaled, missing], axis=1) if column.has_missing else scaled[:, None]


def _encode_category(cells: Sequence[str], column: Column, settings: Columns, strange: Strange) -> np.ndarray:
    numbers = {word: number for number, word in enumerate(column.categories)}
    features = np.zeros((len(cells), column.width))
    for i, cell in enumerate(cells):
        word = MISSING if settings.is_missing(cell) else cell
        number = numbers.get(word)
        if number is None:
            if not column.has_rest:
                strange.unknown[column.name] += 1
                strange.examples.setdefault(column.name, word)
                continue
            number = len(column.categories)
        features[i, number] = 1
    return features


def to_plain(columns: Sequence[Column]) -> list[dict[str, object]]:
    """Return plain JSON values, from which `from_plain` makes the same columns, without those that are left out."""
    kept = [column for column in columns if column.kind != "left out"]
    return [{**asdict(column), "categories": list(column.categories)} for column in kept]


def from_plain(plain: Sequence[Mapping[str, Any]]) -> list[Column]:
    """Return the columns that `to_plain` describes."""
    return [Column(**column) for column in plain]
