"""Tables fit the terminal, name the columns that they leave out, and are complete as CSV and JSON."""

from __future__ import annotations

import csv
import io
import json

import pytest

from dl_lab.show import tables
from dl_lab.show.folding import fold
from dl_lab.show.tables import Column

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
def test_a_table_is_never_wider_than_the_terminal(width):
    lines = tables.text(COLUMNS, ROWS, width).splitlines()
    assert max(map(len, lines)) <= width
    assert sum(line.startswith(("1a2b3c4d", "5e6f7a8b")) for line in lines) == 2


def test_a_table_names_the_columns_that_it_leaves_out():
    narrow = tables.text(COLUMNS, ROWS, 40)
    assert "Left out at this width: lr, test/accuracy, val/accuracy." in " ".join(narrow.splitlines())
    assert "Left out" not in tables.text(COLUMNS, ROWS, 200)


def test_the_least_important_column_goes_first():
    widths = {name: min(w for w in range(40, 140) if _shows(name, w)) for name in ("what", "accuracy")}
    narrowest_val = min(w for w in range(40, 140) if tables.text(COLUMNS, ROWS, w).splitlines()[0].count("/") == 2)
    assert widths["what"] <= widths["accuracy"] < narrowest_val


def _shows(name: str, width: int) -> bool:
    return name in " ".join(tables.text(COLUMNS, ROWS, width).splitlines()[:2])


def test_numbers_are_aligned_on_the_right():
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
        (12345.6789, "12345.7"),
        (2145.0, "2145"),
        (1e30, "1e+30"),
        (float("nan"), "nan"),
        (7, "7"),
        (True, "true"),
        (None, ""),
        ([16, 32], "[16, 32]"),
    ],
)
def test_cells_of_every_kind(value, shown):
    assert tables.cell(value) == shown


def test_settings_are_not_rounded():
    assert tables.cell(1e-5, exact=True) == "1e-05"
    assert tables.cell(0.123456, exact=True) == "0.123456"


def test_titles_are_short_where_the_short_name_is_unique():
    titles = [c.name for c in tables.setting_columns(["optimizer.lr", "model.size", "dataset.size"], [], 1)]
    assert titles == ["lr", "model.size", "dataset.size"]


def test_csv_and_json_keep_every_digit():
    read = list(csv.DictReader(io.StringIO(tables.as_csv(COLUMNS, ROWS))))
    assert float(read[0]["test/accuracy"]) == ROWS[0]["test/accuracy"]
    assert json.loads(tables.as_json(COLUMNS, ROWS))[1] == {c.key: ROWS[1].get(c.key) for c in COLUMNS}


def test_markdown_escapes_bars():
    lines = tables.markdown([Column("a"), Column("b")], [{"a": "x|y", "b": 1.0}]).splitlines()
    assert lines == ["| a | b |", "|---|---:|", "| x\\|y | 1.0000 |"]


class Terminal:
    def isatty(self) -> bool:
        return True


def test_only_a_terminal_without_no_color_gets_colour(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert tables.paint("done", "green", Terminal()) == "\033[32mdone\033[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert tables.paint("done", "green", Terminal()) == "done"
    monkeypatch.delenv("NO_COLOR")
    assert tables.paint("done", "green") == "done", "captured output is no terminal"


def test_sparklines_show_the_course_and_skip_numbers_that_are_not_finite():
    assert tables.sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert tables.sparkline([1.0, float("nan"), 3.0]) == "▁█"
    assert tables.sparkline([2.0, 2.0]) == "▁▁"
    assert tables.sparkline([]) == ""
    assert len(tables.sparkline(range(1000), 24)) == 24


@pytest.mark.parametrize("width", range(40, 140, 7))
def test_a_folding_column_loses_nothing(width):
    columns = [Column("run", priority=0), Column("val/loss", priority=0), Column("what", priority=0, folds=True)]
    rows = [{"run": "1a2b", "val/loss": 0.5, "what": "one two three " * 8}, {"run": "3c4d", "what": "x" * 50}]
    lines = tables.text(columns, rows, width).splitlines()
    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    assert words.count("three") == 8
    assert "".join(words).count("x") == 50


NAME = "an_experiment_of_a_long_name"


def test_a_word_that_is_longer_than_the_line_breaks_after_its_marks():
    assert fold(f"{NAME} lr=0.01", 16) == ["an_experiment_", "  of_a_long_name", "  lr=0.01"]
    assert fold("abcdefghij", 6) == ["abcd", "  efgh", "  ij"]
    assert fold("", 6) == [""]


def test_the_last_cell_of_a_row_takes_the_room_of_the_blank_cells_behind_it():
    columns = [Column("lr", priority=0), Column("val/loss", priority=0), Column("test/loss", priority=0)]
    rows = [{"lr": "0.1", "val/loss": f"{'0.5 ' * 6}", "test/loss": f"{'0.5 ' * 6}"}] * 2
    rows.append({"lr": "9", "val/loss": "failed: the loss became nan"})
    lines = tables.text(columns, rows, 56).splitlines()
    assert lines[-1].endswith("failed: the loss became nan")
    assert max(map(len, lines)) <= 56
