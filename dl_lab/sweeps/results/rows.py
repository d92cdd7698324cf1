"""The rows of a table, as the parts of a report pass them on."""

from __future__ import annotations

from typing import TypeAlias

from dl_lab.show.tables import Column

Row: TypeAlias = dict[str, object]  # a column's key -> its cell
Rows: TypeAlias = tuple[list[Column], list[Row]]
