"""Tables of results: aligned text that fits the terminal, or Markdown, CSV and JSON with everything in them."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GAP = "  "
READABLE_CELLS = (1000, 36, 24)  # cells are cut to these lengths, before columns are left out
SHORTEST_CELL = 12


@dataclass(frozen=True)
class Column:
    """One column: the key of its cells in the rows, its title, and how much it matters (0 is never left out).

    A title with a slash or a dot ("test/accuracy") takes two lines, which keeps the column narrow.
    """

    key: str
    title: str = ""
    priority: int = 1
    exact: bool = False  # numbers as they are (a learning rate), not rounded (a metric)

    @property
    def name(self) -> str:
        return self.title or self.key

    @property
    def lines(self) -> tuple[str, str]:
        """Upper and lower line of the title."""
        cut = max(self.name.rfind("/"), self.name.rfind(".")) + 1
        return self.name[:cut], self.name[cut:]


def setting_columns(paths: Sequence[str], telling: Sequence[str], priority: int) -> list[Column]:
    """Columns for settings by dotted path, titled by the path's last part where that is clear; others matter less."""
    return [
        Column(path, title, priority if path in telling else priority + 5, exact=True)
        for path, title in short_names(paths).items()
    ]


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Dotted path -> its last part, where that tells it from the others."""
    last = [path.rpartition(".")[2] for path in paths]
    return {path: name if last.count(name) == 1 else path for name, path in zip(last, paths, strict=True)}


def add_options(parser: argparse.ArgumentParser) -> None:
    """--csv, --md, --json (then `options.format(columns, rows)` is the text) and --outputs."""
    forms = parser.add_mutually_exclusive_group()
    for flag, form, words in (
        ("--csv", as_csv, "CSV"),
        ("--md", markdown, "a Markdown table"),
        ("--json", as_json, "JSON"),
    ):
        forms.add_argument(
            flag,
            dest="format",
            action="store_const",
            const=form,
            default=text,
            help=f"everything, as {words}",
        )
    parser.add_argument(
        "--outputs", type=Path, default=Path("outputs"), metavar="DIR", help="where the runs lie (outputs)"
    )


def cell(value: Any, exact: bool = False) -> str:
    """A value as it stands in a table: metrics with four decimals or four digits, settings as they are."""
    if value is None:
        return ""
    if isinstance(value, bool | int):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, float):
        return f"{value:g}" if exact else number(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(cell(item, exact) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {cell(item, exact)}" for key, item in value.items()) + "}"
    return str(value)


def number(value: float) -> str:
    """Four decimals; four digits where those would hide the number (0.00001234) or pretend too much (12345.6789)."""
    if not math.isfinite(value):
        return str(value)
    if value == 0 or 1e-3 <= abs(value) < 1e3:
        return f"{value:.4f}"
    return f"{value:.4g}"


def terminal_width() -> int:
    """Columns of the terminal (or $COLUMNS); 100 where there is none."""
    return max(shutil.get_terminal_size((100, 24)).columns, 40)


def text(
    columns: Sequence[Column],
    rows: Sequence[Mapping[str, Any]],
    width: int | None = None,
    rule: bool = False,
    whole: str = "--csv, --md, --json",
) -> str:
    """An aligned table that fits `width`: long cells are shortened, then the columns that matter least are left out.

    What was left out is said in a last line, with what shows the whole. rule: draw a line under the titles.
    """
    width = width or terminal_width()
    cells = {c.key: [cell(row.get(c.key), c.exact) for row in rows] for c in columns}
    kept, widths = _fit(list(columns), cells, width)
    left_out = [c.name for c in columns if c not in kept]
    right = {c.key: _is_numeric(row.get(c.key) for row in rows) for c in kept}
    lines = [_line([c.lines[i] for c in kept], kept, widths, right) for i in (0, 1)]
    lines = [_emphasised(line) for line in lines if line]
    lines += ["─" * _total(kept, widths)] if rule else []
    lines += [_line([cells[c.key][i] for c in kept], kept, widths, right) for i in range(len(rows))]
    if left_out:
        more = f" and {len(left_out) - 6} more" if len(left_out) > 6 else ""
        sentence = f"Left out at this width: {', '.join(left_out[:6])}{more}. All of it: {whole}."
        lines += ["", *wrapped(sentence, width)]
    return "\n".join(lines)


def wrapped(sentence: str, width: int, indent: str = "") -> list[str]:
    import textwrap

    return textwrap.wrap(sentence, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _fit(columns: list[Column], cells: Mapping[str, Sequence[str]], width: int) -> tuple[list[Column], dict[str, int]]:
    """The columns that fit, and each one's width."""
    full = {c.key: max(map(len, [*c.lines, *cells[c.key]])) for c in columns}
    for enough in (False, True):
        if enough:  # before text becomes unreadable, what matters least goes
            columns = _without_least(
                columns, {c.key: _shortened(c, full[c.key], READABLE_CELLS[-1]) for c in columns}, width
            )
        for longest in READABLE_CELLS:
            widths = {c.key: _shortened(c, full[c.key], longest) for c in columns}
            if _total(columns, widths) <= width:
                return columns, widths
    return columns, {c.key: _shortened(c, full[c.key], SHORTEST_CELL) for c in columns}


def _shortened(column: Column, full: int, longest: int) -> int:
    return max(min(full, longest), *(len(line) for line in column.lines))


def _total(columns: Sequence[Column], widths: Mapping[str, int]) -> int:
    return sum(widths[c.key] for c in columns) + len(GAP) * (len(columns) - 1)


def _without_least(columns: list[Column], widths: Mapping[str, int], width: int) -> list[Column]:
    while _total(columns, widths) > width:
        least = max(c.priority for c in columns)
        if least == 0:
            break
        columns.remove([c for c in columns if c.priority == least][-1])
    return columns


def _is_numeric(values: Any) -> bool:
    there = [value for value in values if value is not None]
    return bool(there) and all(isinstance(value, int | float) for value in there)


def _line(
    values: Sequence[str], columns: Sequence[Column], widths: Mapping[str, int], right: Mapping[str, bool]
) -> str:
    parts = []
    for value, column in zip(values, columns, strict=True):
        size = widths[column.key]
        shown = value if len(value) <= size else value[: size - 1] + "…"
        parts.append(shown.rjust(size) if right[column.key] else shown.ljust(size))
    return GAP.join(parts).rstrip()


def _emphasised(line: str) -> str:
    return f"\033[1m{line}\033[0m" if sys.stdout.isatty() else line


def markdown(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table of all columns."""
    head = "| " + " | ".join(c.name for c in columns) + " |"
    marks = "|" + "|".join("---:" if _is_numeric(row.get(c.key) for row in rows) else "---" for c in columns) + "|"
    body = ["| " + " | ".join(_escaped(cell(row.get(c.key), c.exact)) for c in columns) + " |" for row in rows]
    return "\n".join([head, marks, *body])


def _escaped(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")


def as_csv(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> str:
    """All columns, numbers in full."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([c.key for c in columns])
    for row in rows:
        values = [row.get(c.key) for c in columns]
        writer.writerow([cell(value, exact=True) if isinstance(value, list | dict) else value for value in values])
    return out.getvalue().rstrip("\n")


def as_json(columns: Sequence[Column], rows: Sequence[Mapping[str, Any]]) -> str:
    """A list of objects, numbers in full."""
    return json.dumps([{c.key: row.get(c.key) for c in columns} for row in rows], indent=1, default=str)
