"""The layout of a table of a time series, and the repairs of its faults that are allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from dl_lab.datasets.delimited import NO_VALUE, delimiter_of, quote
from dl_lab.datasets.series.times import check_time_format
from dl_lab.types import UserError

Repair = Literal["sort", "duplicates", "gaps", "missing", "non_numeric", "constant", "markers"]


@dataclass(frozen=True)
class Layout:
    """How a table is written, and which repairs are allowed.

    Args:
        columns: The features, in this order.
        time_columns: The columns of the time: their cells, joined by a blank, are the time of a row.
        time_format: How the time is written, in the codes of `strptime`.
        step_minutes: The distance from one row to the next, in minutes.
        delimiter: The character between two cells; `tab` stands for a tab.
        decimal: The decimal mark, "." or ",".
        missing: Numbers or words that stand for "no value". An empty cell, NaN, NA and null always do.
        repair: The faults to repair: sort (rows out of order are sorted), duplicates (the first of equal times stays),
            gaps (absent rows are added without values), missing and non_numeric (a cell without a value takes the last
            value before it, or the first one after), constant (a column that never changes is used all the same),
            markers (-999 and the like are measurements if `missing` does not name them).
        encoding: The encoding of the file.
    """

    columns: Sequence[str]
    time_columns: Sequence[str] = ("timestamp",)
    time_format: str = "%Y-%m-%d %H:%M:%S"
    step_minutes: int = 30
    delimiter: str = ","
    decimal: str = "."
    missing: float | str | Sequence[float | str] | None = ()
    repair: Sequence[Repair] = ()
    encoding: str = "utf-8"

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values, from which `Layout(**plain)` makes the same layout."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def check(self, key: str) -> None:
        """Check that the values describe a table.

        Args:
            key: Where the user sets the layout; errors name the setting below it.

        Raises:
            UserError: A setting is empty or impossible.
        """
        if not self.columns:
            raise UserError(f"{key}.columns is empty: name at least one column to read.")
        if not self.time_columns:
            raise UserError(f"{key}.time_columns is empty: name the column that holds the time.")
        check_time_format(self.time_format, f"{key}.time_format")
        if self.decimal not in (".", ","):
            raise UserError(f"{key}.decimal: {self.decimal!r} is no decimal mark; use {quote(f'{key}.decimal', ',')}.")
        if delimiter_of(self.delimiter, f"{key}.delimiter") == self.decimal:
            raise UserError(f"{key}: the delimiter and the decimal mark are both {self.decimal!r}; they must differ.")
        if self.step_minutes < 1:
            raise UserError(f"{key}.step_minutes: {self.step_minutes} is not at least 1.")

    def markers(self) -> tuple[frozenset[float], frozenset[str]]:
        """Return the numbers and the words (in lower case) that stand for "no value"."""
        given = self.missing
        if given is None:
            entries: Sequence[float | str] = ()
        elif isinstance(given, str | int | float):
            entries = (given,)
        else:
            entries = given
        numbers = frozenset(float(entry) for entry in entries if not isinstance(entry, str))
        words = frozenset(entry.strip().lower() for entry in entries if isinstance(entry, str))
        return numbers, words | NO_VALUE
