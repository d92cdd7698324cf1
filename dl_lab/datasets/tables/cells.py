"""The cells of a table, column by column: which of them have a value, and the numbers that they hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from dl_lab.datasets.delimited import Table, quote
from dl_lab.datasets.numerals import OtherWriting, number_of, read_all, split_unit
from dl_lab.types import UserError


class Cells(NamedTuple):
    """One column of a table.

    Attributes:
        texts: The cell of each row.
        missing: (n,) bool: which rows have no value.
        values: (n,) the numbers, NaN where a value is missing; None if a cell with a value is no number.
    """

    texts: list[str]
    missing: np.ndarray
    values: np.ndarray | None

    def known(self) -> list[str]:
        """Return the cells that have a value."""
        return [text for text, missing in zip(self.texts, self.missing.tolist(), strict=True) if not missing]


class TableCells:
    """The columns of a table; each is read once.

    Args:
        table: The table.
        is_missing: Whether a cell stands for "no value", in a file with a decimal mark.
        decimal: The decimal mark.
    """

    def __init__(self, table: Table, is_missing: Callable[[str, str], bool], decimal: str) -> None:
        self.table = table
        self.is_missing = is_missing
        self.decimal = decimal
        self._columns: dict[str, Cells] = {}

    def column(self, name: str) -> Cells:
        """Return a column.

        Raises:
            UserError: The table has no such column.
        """
        if name not in self._columns:
            place = self.table.place(name)
            texts = [row.cells[place] for row in self.table.rows]
            marks = {text for text in set(texts) if self.is_missing(text, self.decimal)}
            missing = np.fromiter((text in marks for text in texts), dtype=bool, count=len(texts))
            values = np.full(len(texts), np.nan)
            found = read_all([text for text in texts if text not in marks], self.decimal)
            if found is not None:
                values[~missing] = found
            self._columns[name] = Cells(texts, missing, None if found is None else values)
        return self._columns[name]

    def numbers(self, name: str) -> np.ndarray:
        """Return the numbers of a column (n,), with NaN for a missing value.

        Raises:
            UserError: A cell is no number.
        """
        column = self.column(name)
        if column.values is not None:
            return column.values
        (line, _, error), _ = self._find_words(name)
        raise UserError(f"{self.table.where}, line {line}, column {name}: {error}.") from error

    def holds_numbers(self, name: str, as_words: str) -> bool:
        """Return whether a column holds numbers.

        Args:
            name: The column.
            as_words: The override that takes the column as words, for the errors.

        Raises:
            UserError: The column mixes numbers and words, or its numbers are not written as they are read.
        """
        column = self.column(name)
        if column.values is not None:
            return True
        (line, cell, error), n_numbers = self._find_words(name)
        known = column.known()
        where = f"{self.table.where}, line {line}, column {name}"
        if n_numbers < 0.5 * len(known):
            unit = _find_unit(known)
            if unit is None:
                return False
            raise UserError(
                f"{where}: {cell!r} is a number with the unit {unit!r}. Write the numbers alone, or take them"
                f" as words: {as_words}."
            )
        if isinstance(error, OtherWriting) and error.is_decimal:
            other = quote("dataset.format.decimal", "," if self.decimal == "." else ".")
            raise UserError(
                f"{where}: {error}. If the whole file is written so, set {other}; else write this number like the"
                " others."
            )
        if isinstance(error, OtherWriting):
            raise UserError(f"{where}: {error}. Write the numbers plainly, or take them as words: {as_words}.")
        raise UserError(
            f"{where}: {error}, but {n_numbers} of {len(known)} values are. If it stands for a missing value, set"
            f" 'dataset.columns.missing=[\"{cell}\"]'; if the column holds categories, set {as_words}."
        )

    def _find_words(self, name: str) -> tuple[tuple[int, str, ValueError], int]:
        """Return the line, the cell and the error of the first cell that is no number, and how many are numbers."""
        column = self.column(name)
        errors: dict[str, ValueError] = {}
        n_numbers = 0
        for text, n in Counter(column.known()).items():
            try:
                number_of(text, self.decimal)
            except ValueError as error:
                errors[text] = error
                n_numbers += n * isinstance(error, OtherWriting)
            else:
                n_numbers += n
        first = next(i for i, text in enumerate(column.texts) if text in errors)
        text = column.texts[first]
        return (self.table.rows[first].line, text, errors[text]), n_numbers


def _find_unit(cells: Sequence[str]) -> str | None:
    """Return the unit that all these cells have behind a number, as in "5 kg" and "70 kg"; None where they do not."""
    if len(set(cells)) < 2:
        return None
    parts = [split_unit(cell) for cell in cells]
    units = {part[1] if part else None for part in parts}
    return units.pop() if len(units) == 1 else None
