"""How the columns of a table become the features of a model.

A run saves its columns, so that new rows are prepared in the same way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from dl_lab.datasets.tables.cells import Cells, TableCells
from dl_lab.datasets.tables.columns import MISSING, Column


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


def encode(cells: TableCells, columns: Sequence[Column]) -> tuple[np.ndarray, Strange]:
    """Turn the rows of a table into features.

    Args:
        cells: The table.
        columns: The columns, as the training rows show them.

    Returns:
        The features (rows, width) float32, and the cells that training did not have.

    Raises:
        UserError: The table lacks a column, or a cell of a number column is no number.
    """
    parts: list[np.ndarray] = []
    strange = Strange()
    for column in columns:
        if column.kind == "number":
            parts.append(_encode_number(cells.numbers(column.name), column, strange))
        elif column.kind == "category":
            parts.append(_encode_category(cells.column(column.name), column, strange))
    return np.concatenate(parts, axis=1, dtype=np.float32), strange


def find_strange(cells: TableCells, columns: Sequence[Column], rows: np.ndarray) -> Strange:
    """Return the cells of some rows that training did not have: other categories, and missing values."""
    strange = Strange()
    for column in columns:
        if column.kind == "left out":
            continue
        found = cells.column(column.name)
        missing = found.missing[rows]
        if column.kind == "category":
            _encode_category(Cells([found.texts[i] for i in rows.tolist()], missing, None), column, strange)
        elif missing.any() and not column.has_missing:
            strange.filled[column.name] += int(missing.sum())
    return strange


def _encode_number(values: np.ndarray, column: Column, strange: Strange) -> np.ndarray:
    missing = np.isnan(values)
    if missing.any():
        strange.filled[column.name] += int(missing.sum())
    scaled = np.where(missing, 0.0, (values - column.mean) / column.deviation)
    return np.stack([scaled, missing], axis=1) if column.has_missing else scaled[:, None]


def _encode_category(cells: Cells, column: Column, strange: Strange) -> np.ndarray:
    numbers = {word: number for number, word in enumerate(column.categories)}
    features = np.zeros((len(cells.texts), column.width))
    for i, (text, missing) in enumerate(zip(cells.texts, cells.missing.tolist(), strict=True)):
        word = MISSING if missing else text
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
