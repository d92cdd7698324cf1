"""Series from tables: faults are named by line, repaired only when asked, and counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dl_lab.datasets.series import Layout, Scaler, parse_series, windows
from dl_lab.types import UserError

HEADER = "timestamp,a,b\n"
GOOD = ["2020-01-01 00:00:00,1,10", "2020-01-01 00:30:00,2,20", "2020-01-01 01:00:00,3,30"]


def parse(rows, **layout):
    text = HEADER + "\n".join(rows) + "\n"
    return parse_series(text, Layout(columns=("a", "b"), **layout), "x.csv")


def test_reads_values_and_times():
    series = parse(GOOD)
    assert series.values.tolist() == [[1, 10], [2, 20], [3, 30]]
    assert str(series.times[1]) == "2020-01-01T00:30:00"
    assert series.observed.all()
    assert series.note() == ""


HALF = "2020-01-01 00:30:00"
ROWS = [[1, 10], [2, 20], [3, 30]]
LAST = [[1, 10], [1, 20], [3, 30]]  # of what is filled forward
FAULTS = {
    "sort": ([GOOD[1], GOOD[0], GOOD[2]], "line 3: 2020-01-01T00:00:00 comes after", ROWS),
    "duplicates": ([*GOOD[:2], f"{HALF},9,9", GOOD[2]], "line 4: .* occurs twice", ROWS),
    "gaps": ([GOOD[0], GOOD[2]], "line 3: no rows between", [[1, 10], [1, 10], [3, 30]]),
    "missing": ([GOOD[0], f"{HALF},,20", GOOD[2]], "line 3, column a: no value", LAST),
    "non_numeric": ([GOOD[0], f"{HALF},x,20", GOOD[2]], "line 3, column a: 'x'", LAST),
    "constant": ([GOOD[0], f"{HALF},1,20"], r"the column a is constant \(1\) in all rows", [[1, 10], [1, 20]]),
}


@pytest.mark.parametrize("repair", FAULTS)
def test_a_fault_is_refused_or_repaired_and_counted(repair):
    rows, message, repaired = FAULTS[repair]
    with pytest.raises(UserError, match=message):
        parse(rows)
    series = parse(rows, repair=[repair])
    assert series.values.tolist() == repaired
    assert series.repairs[repair] == 1
    assert sum(series.repairs.values()) == 1
    assert series.note().startswith("1 ")


def test_a_repair_of_one_fault_does_not_cover_another():
    with pytest.raises(UserError, match="no rows between"):
        parse([GOOD[0], GOOD[2]], repair=["missing", "sort", "duplicates", "non_numeric"])


def test_blank_rows_marker_and_decimal_comma():
    text = "d;t;a;;\n10/03/2004;18.00.00;2,6;;\n10/03/2004;19.00.00;-200;;\n;;;;\n"
    layout = Layout(
        columns=("a",),
        time_columns=("d", "t"),
        time_format="%d/%m/%Y %H.%M.%S",
        step_minutes=60,
        delimiter=";",
        decimal=",",
        missing=-200,
        repair=["missing"],
    )
    series = parse_series(text, layout, "x.csv")
    assert series.values.tolist() == [[2.6], [2.6]]
    assert series.observed.tolist() == [[True], [False]]
    assert (series.repairs["blank"], series.repairs["missing"]) == (1, 1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "has no rows"),
        (["yesterday,1,2"], "line 2: 'yesterday' is no time"),
        (["2020-01-01 00:00:00,1"], "line 2: 2 cells where the header has 3"),
        ([GOOD[0], "2020-01-01 00:17:00,1,2"], "line 3: .* not a multiple of 30 minutes"),
    ],
)
def test_what_cannot_be_repaired(rows, message):
    with pytest.raises(UserError, match=message):
        parse(rows)


def test_names_the_missing_column():
    with pytest.raises(UserError, match="no column 'b'; its columns are timestamp, a"):
        parse_series("timestamp,a\n", Layout(columns=("a", "b")), "x.csv")


@pytest.mark.parametrize("kind", ["standard", "minmax"])
def test_scaler_inverts_and_survives_plain_json(kind):
    values = np.random.default_rng(0).normal(5, 3, size=(50, 2))
    scaler = Scaler.fit(values, ["a", "b"], kind)
    scaled = Scaler.from_plain(scaler.to_plain()).scaled(values)
    np.testing.assert_allclose(scaler.unscaled(scaled), values)
    if kind == "standard":
        np.testing.assert_allclose([scaled.mean(), scaled.std()], [0, 1], atol=1e-12)
    else:
        assert (scaled.min(), scaled.max()) == (0, 1)


def test_a_constant_column_is_refused_or_only_shifted():
    values = np.array([[1.0, 7.0], [2.0, 7.0]])
    with pytest.raises(ValueError, match="column b is constant"):
        Scaler.fit(values, ["a", "b"], "standard")
    assert Scaler.fit(values, ["a", "b"], "minmax", constant=True).scaled(values)[:, 1].tolist() == [0, 0]


def test_windows_are_views_in_order():
    values = torch.arange(10.0).view(5, 2)
    cut = windows(values, 3)
    assert cut.shape == (3, 3, 2)
    assert torch.equal(cut[1], values[1:4])
    assert cut.untyped_storage().data_ptr() == values.untyped_storage().data_ptr()
    with pytest.raises(ValueError, match="2 rows, less than one window of 3"):
        windows(values[:2], 3)
