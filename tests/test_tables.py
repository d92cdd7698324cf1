"""Tables: they fit the terminal, say what they left out, and lose nothing as CSV and JSON."""

from __future__ import annotations

import csv
import io
import json

import pytest

from dl_lab import tables
from dl_lab.tables import Column

COLUMNS = [
    Column("run", priority=0),
    Column("what"),
    Column("optimizer.lr", "lr", priority=2, exact=True),
    Column("test/accuracy", priority=3),
    Column("val/accuracy", priority=4),
]
ROWS = [
    {"run": "1a2b3c4d", "what": "a name that is long, " * 3, "optimizer.lr": 0.1, "test/accuracy": 0.98765432},
    {"run": "5e6f7a8b", "what": "short", "optimizer.lr": 1e-5, "test/accuracy": 0.5, "val/accuracy": 1234.5678},
]


@pytest.mark.parametrize("width", range(40, 140, 7))
def test_never_wider_than_the_terminal(width):
    lines = tables.text(COLUMNS, ROWS, width).splitlines()
    assert max(map(len, lines)) <= width
    assert sum(line.startswith(("1a2b3c4d", "5e6f7a8b")) for line in lines) == 2


def test_says_what_it_left_out():
    narrow = tables.text(COLUMNS, ROWS, 40)
    assert "Left out at this width: lr, test/accuracy, val/accuracy." in " ".join(narrow.splitlines())
    assert "Left out" not in tables.text(COLUMNS, ROWS, 200)


def test_what_matters_least_goes_first():
    widths = {name: min(w for w in range(40, 140) if _shows(name, w)) for name in ("what", "accuracy")}
    narrowest_val = min(w for w in range(40, 140) if tables.text(COLUMNS, ROWS, w).splitlines()[0].count("/") == 2)
    assert widths["what"] <= widths["accuracy"] < narrowest_val


def _shows(name: str, width: int) -> bool:
    return name in " ".join(tables.text(COLUMNS, ROWS, width).splitlines()[:2])


def test_numbers_stand_under_each_other():
    lines = tables.text(COLUMNS, ROWS, 200).splitlines()
    ends = {line.index("0.98", 0) + 6 for line in lines[2:3]} | {line.index("0.5000") + 6 for line in lines[3:4]}
    assert len(ends) == 1
    assert lines[2].index("a name") == lines[3].index("short") == lines[1].index("what")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.98765, "0.9877"),
        (0.0, "0.0000"),
        (-0.5, "-0.5000"),
        (0.00012345, "0.0001234"),
        (12345.6789, "1.235e+04"),
        (float("nan"), "nan"),
        (7, "7"),
        (True, "true"),
        (None, ""),
        ([16, 32], "[16, 32]"),
    ],
)
def test_cells(value, shown):
    assert tables.cell(value) == shown


def test_settings_are_not_rounded():
    assert tables.cell(1e-5, exact=True) == "1e-05"
    assert tables.cell(0.123456, exact=True) == "0.123456"


def test_titles_are_short_where_that_is_clear():
    titles = [c.name for c in tables.setting_columns(["optimizer.lr", "model.size", "dataset.size"], [], 1)]
    assert titles == ["lr", "model.size", "dataset.size"]


def test_csv_and_json_keep_every_digit():
    read = list(csv.DictReader(io.StringIO(tables.as_csv(COLUMNS, ROWS))))
    assert float(read[0]["test/accuracy"]) == ROWS[0]["test/accuracy"]
    assert json.loads(tables.as_json(COLUMNS, ROWS))[1] == {c.key: ROWS[1].get(c.key) for c in COLUMNS}


def test_markdown_escapes_bars():
    lines = tables.markdown([Column("a"), Column("b")], [{"a": "x|y", "b": 1.0}]).splitlines()
    assert lines == ["| a | b |", "|---|---:|", "| x\\|y | 1.0000 |"]
