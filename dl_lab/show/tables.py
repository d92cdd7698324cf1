"""Tables of results: aligned text that fits the terminal, or Markdown, CSV and JSON with all columns."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dl_lab.show.colours import paint
from dl_lab.show.folding import fold
from dl_lab.show.options import add_outputs

GAP = "  "
READABLE_CELLS = (1000, 36, 24)  # cells are cut to these lengths, before columns are left out
SHORTEST_CELL = 12
NARROWEST_FOLD = 16  # a column that folds gets at least this width


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        key: The key of its cells in the rows.
        title: The title; "" takes the key. A title with a slash or a dot ("test/accuracy") takes two lines, which keeps
            the column narrow.
        priority: How much the column matters: columns with large numbers are left out first, 0 never.
        exact: Whether to show numbers as they are (a learning rate) and not rounded (a metric).
        folds: Whether the column, the last one of its table, breaks long cells into lines instead of shortening them.
        on_request: Whether the report hides the column until its reader asks for it.
    """

    key: str
    title: str = ""
    priority: int = 1
    exact: bool = False
    folds: bool = False
    on_request: bool = False

    @property
    def name(self) -> str:
        """The title, or the key where there is none."""
        return self.title or self.key

    @property
    def lines(self) -> tuple[str, str]:
        """The upper and the lower line of the title."""
        cut = max(self.name.rfind("/"), self.name.rfind(".")) + 1
        return self.name[:cut], self.name[cut:]


class Spanning(str):
    """A cell that takes the room of the blank cells behind it and makes no column wider: why a row has no figures."""


def setting_columns(paths: Sequence[str], telling: Sequence[str], priority: int) -> list[Column]:
    """Return the columns of settings.

    Args:
        paths: The settings by dotted path. The title is the path's last part where that is unique.
        telling: The settings that matter most.
        priority: The priority of these. That of the others is 5 more.
    """
    columns = []
    for path, title in short_names(paths).items():
        own_priority = priority if path in telling else priority + 5
        columns.append(Column(path, title, own_priority, exact=True))
    return columns


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Map each dotted path to its last part where that is unique, else to itself."""
    names = [path.rpartition(".")[2] for path in paths]
    return {path: name if names.count(name) == 1 else path for name, path in zip(names, paths, strict=True)}


def setting_words(values: Mapping[str, object]) -> str:
    """Write settings by dotted path as words: "model=mlp lr=0.01"."""
    titles = short_names(list(values))
    return " ".join(f"{titles[path]}={write_value(value)}" for path, value in values.items())


def write_value(value: object) -> str:
    """Write the value of a setting as one word."""
    return "none" if value is None else cell(value, exact=True).replace(" ", "")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add --csv, --md, --json and --outputs. `options.format(columns, rows)` is then the text of the table."""
    forms = parser.add_mutually_exclusive_group()
    for flag, form, words in (
        ("--csv", as_csv, "CSV"),
        ("--md", markdown, "a Markdown table"),
        ("--json", as_json, "JSON"),
    ):
        about = f"everything, as {words}"
        forms.add_argument(flag, dest="format", action="store_const", const=form, default=text, help=about)
    add_outputs(parser)


def cell(value: object, exact: bool = False) -> str:
    """Write a value for a table: metrics with four decimals or four digits; with `exact`, numbers as they are."""
    if value is None:
        return ""
    if isinstance(value, Spanning):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}" if exact else number(value)
    if isinstance(value, list | tuple):
        return "[" + ", ".join(cell(item, exact) for item in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {cell(item, exact)}" for key, item in value.items()) + "}"
    return str(value)


def number(value: float) -> str:
    """Write a number with four decimals; with four digits where it is small (0.003587), with six where it is large."""
    if not math.isfinite(value):
        return str(value)
    if value == 0 or 1e-2 <= abs(value) < 1e3:
        return f"{value:.4f}"
    if abs(value) >= 1e3 and float(value).is_integer() and abs(value) < 1e9:
        return f"{value:.0f}"
    return f"{value:.6g}" if 1e3 <= abs(value) < 1e6 else f"{value:.4g}"


BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], length: int = 24) -> str:
    """Draw values as a line of bars, lowest to highest. Of more than `length` values, evenly spaced ones are drawn."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    if len(finite) > length:
        finite = [finite[round(i * (len(finite) - 1) / (length - 1))] for i in range(length)]
    low = min(finite)
    high = max(finite)
    if high == low:
        return BARS[0] * len(finite)
    heights = [(value - low) / (high - low) for value in finite]
    return "".join(BARS[round(height * (len(BARS) - 1))] for height in heights)


STATE_STYLES = {
    "done": "green",
    "running": "blue",
    "queued": "dim",
    "failed": "red",
    "killed": "red",
    "interrupted": "yellow",
    "pruned": "dim",
    "newer": "yellow",
    "unreadable": "red",
}


def terminal_width() -> int:
    """Return the columns of the terminal (or $COLUMNS), at least 40; 100 where there is no terminal."""
    return max(shutil.get_terminal_size((100, 24)).columns, 40)


def text(
    columns: Sequence[Column],
    rows: Sequence[Mapping[str, object]],
    width: int | None = None,
    rule: bool = False,
    whole: str = "--csv, --md, --json",
) -> str:
    """Return an aligned table. To fit, long cells are shortened, then the columns that matter least are left out.

    Args:
        columns: The columns.
        rows: The cells by the keys of the columns.
        width: The columns of the terminal. None: ask the terminal.
        rule: Draw a line under the titles.
        whole: What shows the whole table. A last line names it where columns are left out.
    """
    width = width or terminal_width()
    cells = {}
    for column in columns:
        cells[column.key] = [cell(row.get(column.key), column.exact) for row in rows]
    kept, widths = _fit_folding(list(columns), cells, width)
    is_right = {column.key: _is_numeric([row.get(column.key) for row in rows]) for column in kept}
    lines = []
    for i in (0, 1):
        titles = _line([column.lines[i] for column in kept], kept, widths, is_right)
        if titles:
            lines.append(paint(titles, "bold"))
    if rule:
        lines.append("─" * _total(kept, widths))
    for i in range(len(rows)):
        lines += _fold_row([cells[column.key][i] for column in kept], kept, widths, is_right)
    left_out = [column.name for column in columns if column not in kept]
    if left_out:
        more = f" and {len(left_out) - 6} more" if len(left_out) > 6 else ""
        sentence = f"Left out at this width: {', '.join(left_out[:6])}{more}. All of it: {whole}."
        lines += ["", *(paint(line, "dim") for line in wrap(sentence, width))]
    return "\n".join(lines)


def wrap(sentence: str, width: int, indent: str = "") -> list[str]:
    """Break a sentence into lines of at most `width`, between words. `indent` begins each line after the first."""
    return textwrap.wrap(sentence, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _fit_folding(
    columns: list[Column], cells: Mapping[str, Sequence[str]], width: int
) -> tuple[list[Column], dict[str, int]]:
    """Choose the columns that fit, and their widths. A last column that folds gets the room that the others leave."""
    if not columns[-1].folds:
        return _fit(columns, cells, width)
    *others, last = columns
    full = max(map(len, [*last.lines, *cells[last.key]]))
    kept, widths = _fit(others, cells, width - min(full, NARROWEST_FOLD) - len(GAP))
    left = width - _total(kept, widths) - len(GAP)
    return [*kept, last], {**widths, last.key: min(full, left)}


def _fit(columns: list[Column], cells: Mapping[str, Sequence[str]], width: int) -> tuple[list[Column], dict[str, int]]:
    """Choose the columns that fit, and their widths."""
    full = {}
    for column in columns:
        counted = [text for text in cells[column.key] if not isinstance(text, Spanning)]
        full[column.key] = max(map(len, [*column.lines, *counted]))
    widths = _find_widths(columns, full, width)
    if widths is None:  # before cells become unreadable, the columns that matter least go
        columns = _without_least(columns, _cut(columns, full, READABLE_CELLS[-1]), width)
        widths = _find_widths(columns, full, width)
    return columns, widths or _cut(columns, full, SHORTEST_CELL)


def _find_widths(columns: Sequence[Column], full: Mapping[str, int], width: int) -> dict[str, int] | None:
    """Return the widths of the longest readable cells that fit; None where none fit."""
    for longest in READABLE_CELLS:
        widths = _cut(columns, full, longest)
        if _total(columns, widths) <= width:
            return widths
    return None


def _cut(columns: Sequence[Column], full: Mapping[str, int], longest: int) -> dict[str, int]:
    """Return the widths of columns whose cells are cut to a length; titles are never cut."""
    return {column.key: max(min(full[column.key], longest), *map(len, column.lines)) for column in columns}


def _total(columns: Sequence[Column], widths: Mapping[str, int]) -> int:
    return sum(widths[c.key] for c in columns) + len(GAP) * (len(columns) - 1)


def _without_least(columns: list[Column], widths: Mapping[str, int], width: int) -> list[Column]:
    while _total(columns, widths) > width:
        least = max(c.priority for c in columns)
        if least == 0:
            break
        columns.remove([c for c in columns if c.priority == least][-1])
    return columns


def _is_numeric(values: Sequence[object]) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and all(isinstance(value, int | float) for value in known)


def _line(
    values: Sequence[str], columns: Sequence[Column], widths: Mapping[str, int], is_right: Mapping[str, bool]
) -> str:
    parts = []
    last = max((i for i, value in enumerate(values) if value), default=0)
    for i, (value, column) in enumerate(zip(values, columns, strict=True)):
        size = widths[column.key]
        if i == last and not is_right[column.key]:  # it also gets the room of the blank cells behind it
            size = _total(columns[i:], widths)
        shown = value if len(value) <= size else value[: size - 1] + "…"
        part = shown.rjust(size) if is_right[column.key] else shown.ljust(size)
        if column.key == "state" and value in STATE_STYLES:
            part = paint(part, STATE_STYLES[value])
        parts.append(part)
    return GAP.join(parts).rstrip()


def _fold_row(
    values: Sequence[str], columns: Sequence[Column], widths: Mapping[str, int], is_right: Mapping[str, bool]
) -> list[str]:
    """Return the lines of one row: several where the last column folds and its cell is longer than the column."""
    if not columns[-1].folds:
        return [_line(values, columns, widths, is_right)]
    width = widths[columns[-1].key]
    first, *more = fold(values[-1], width)
    blank = " " * (_total(columns, widths) - width)
    return [_line([*values[:-1], first], columns, widths, is_right), *(blank + line for line in more)]


def markdown(columns: Sequence[Column], rows: Sequence[Mapping[str, object]]) -> str:
    """Return a Markdown table of all columns."""
    marks = []
    for column in columns:
        marks.append("---:" if _is_numeric([row.get(column.key) for row in rows]) else "---")
    lines = [_markdown_line([column.name for column in columns]), "|" + "|".join(marks) + "|"]
    for row in rows:
        lines.append(_markdown_line([_escape(cell(row.get(column.key), column.exact)) for column in columns]))
    return "\n".join(lines)


def _markdown_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _escape(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")


def as_csv(columns: Sequence[Column], rows: Sequence[Mapping[str, object]]) -> str:
    """Return CSV with all columns and with numbers in full."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([column.key for column in columns])
    for row in rows:
        values = [row.get(column.key) for column in columns]
        writer.writerow([cell(value, exact=True) if isinstance(value, list | dict) else value for value in values])
    return out.getvalue().rstrip("\n")


def as_json(columns: Sequence[Column], rows: Sequence[Mapping[str, object]]) -> str:
    """Return a JSON list of objects, with numbers in full."""
    objects = [{column.key: row.get(column.key) for column in columns} for row in rows]
    return json.dumps(objects, indent=1, default=str)
