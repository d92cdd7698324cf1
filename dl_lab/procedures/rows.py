"""The rows of a table, and a figure together with the rows that it was drawn from."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row: TypeAlias = dict[str, object]  # a column's name -> its cell
Drawn: TypeAlias = "tuple[Figure, list[Row]]"
