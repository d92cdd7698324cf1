"""Series from tables: faults are named by line, repaired only when asked, and counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dl_lab.datasets.series.layout import Layout
from dl_lab.datasets.series.scaler import Scaler
from dl_lab.datasets.series.tables import parse_series
from dl_lab.datasets.series.windows import windows
from dl_lab.types import UserError

HEADER = "timestamp,a,b\n"
GOOD = ["2020-01-01 00:00:00,1,10", "2020-01-01 00:30:00,2,20", "2020-01-01 01:00:00,3,30"]


def parse(rows, **layout):
    text = HEADER + "\n".join(rows) + "\n"
    return parse_series(text, Layout(**{"columns": ("a", "b"), **layout}), "x.csv")


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


@pytest.mark.data_file(
    "Series",
    kind="gaps, duplicates, unsorted rows, missing or constant values",
    loader="air_quality, nyc_taxi, series, predict",
    outcome="refused, or repaired where `layout.repair` names it",
)
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


KEYS = "dataset.layout."
WORDS = {
    "an unquoted thousands comma": (["2020-01-01 00:00:00,8,127,1"], {}, "line 2: 4 cells .* 8,127 is one number"),
    "a decimal comma": ([f'{HALF},"1,5",1'], {}, rf"""column a: '1,5' has a comma.*'{KEYS}decimal=","'"""),
    "another marker": ([f"{HALF},n.a.,1"], {}, rf"""'n.a.' is no number.*'{KEYS}missing=\["n.a."\]'"""),
    "another time format": (
        ["01/02/2020 00:00,1,2"],
        {},
        rf"""'01/02/2020 00:00' is no time.*'{KEYS}time_format="%d/%m/%Y %H:%M"'""",
    ),
    "a time zone": ([f"{HALF}+0100,1,2"], {"time_format": "%Y-%m-%d %H:%M:%S%z"}, "line 2: .* names a time zone"),
    "a number that marks what is missing": (
        [*GOOD, "2020-01-01 01:30:00,-999,4", "2020-01-01 02:00:00,-999,5"],
        {},
        rf"line 5, column a: -999 occurs 2 times.*'{KEYS}missing=\[-999\]' and {KEYS}repair=\[missing\]",
    ),
    "no columns": (GOOD, {"columns": ()}, rf"{KEYS}columns is empty"),
    "a long delimiter": (GOOD, {"delimiter": ";;"}, rf"""{KEYS}delimiter: ';;' .* '{KEYS}delimiter=";"'"""),
    "one mark for two things": (GOOD, {"decimal": ","}, "the delimiter and the decimal mark are both ','"),
    "a gap of centuries": (
        [GOOD[0], "9999-01-01 00:00:00,1,2"],
        {"repair": ["gaps"]},
        "filling the gaps would make .* rows of 2",
    ),
}


@pytest.mark.parametrize("kind", WORDS)
def test_advice_names_keys_that_exist_and_quotes_them(kind):
    rows, layout, message = WORDS[kind]
    with pytest.raises(UserError, match=message):
        parse(rows, **layout)


@pytest.mark.data_file(
    "Series",
    kind="another delimiter",
    loader="air_quality, nyc_taxi, series, predict",
    outcome="refused with the override that reads it",
)
def test_another_delimiter_is_advised():
    with pytest.raises(UserError, match=r"""separated by ';', not by ',': set 'layout.delimiter=";"'"""):
        parse_series("timestamp;a;b\n", Layout(columns=("a", "b")), "x.csv", "layout")


@pytest.mark.data_file(
    "Series",
    kind="1.360 in a file with decimal commas",
    loader="air_quality, nyc_taxi, series, predict",
    outcome="refused",
)
def test_a_decimal_point_in_a_file_with_decimal_commas():
    text = "timestamp;a\n2020-01-01 00:00:00;1,5\n2020-01-01 00:30:00;1.360\n"
    with pytest.raises(UserError, match=r"line 3, column a: '1.360' has a dot, but the decimal mark"):
        parse_series(text, Layout(columns=("a",), delimiter=";", decimal=","), "x.csv")


@pytest.mark.data_file(
    "Series",
    kind="-999 for missing values",
    loader="air_quality, nyc_taxi, series, predict",
    outcome="refused unless `layout.missing` names it",
)
def test_markers_may_be_named_or_taken_as_measurements():
    rows = [*GOOD, "2020-01-01 01:30:00,-999,4", "2020-01-01 02:00:00,-999,5"]
    series = parse(rows, missing=[-999, "-"], repair=["missing"])
    assert series.values[:, 0].tolist() == [1, 2, 3, 3, 3]
    assert series.observed[:, 0].tolist() == [True, True, True, False, False]
    series = parse(rows, repair=["markers"])
    assert series.values[-1, 0] == -999
    assert series.note() == "2 values like -999 taken as measurements"


def test_the_layout_survives_plain_json():
    layout = Layout(columns=("a",), missing=[-999, "x"], repair=["gaps"])
    assert Layout(**layout.to_plain()).to_plain() == layout.to_plain()


def test_names_the_missing_column():
    with pytest.raises(UserError, match="no column 'b'; its columns are timestamp, a"):
        parse_series("timestamp,a\n", Layout(columns=("a", "b")), "x.csv")


@pytest.mark.parametrize("kind", ["standard", "minmax"])
def test_scaler_inverts_and_survives_plain_json(kind):
    values = np.random.default_rng(0).normal(5, 3, size=(50, 2))
    scaler = Scaler.fit(values, ["a", "b"], kind)
    scaled = Scaler.from_plain(scaler.to_plain()).apply(values)
    np.testing.assert_allclose(scaler.undo(scaled), values)
    if kind == "standard":
        np.testing.assert_allclose([scaled.mean(), scaled.std()], [0, 1], atol=1e-12)
    else:
        assert (scaled.min(), scaled.max()) == (0, 1)


def test_a_constant_column_is_refused_or_only_shifted():
    values = np.array([[1.0, 7.0], [2.0, 7.0]])
    with pytest.raises(ValueError, match="column b is constant"):
        Scaler.fit(values, ["a", "b"], "standard")
    assert Scaler.fit(values, ["a", "b"], "minmax", constant=True).apply(values)[:, 1].tolist() == [0, 0]


def test_windows_are_views_in_order():
    values = torch.arange(10.0).view(5, 2)
    cut = windows(values, 3)
    assert cut.shape == (3, 3, 2)
    assert torch.equal(cut[1], values[1:4])
    assert cut.untyped_storage().data_ptr() == values.untyped_storage().data_ptr()
    with pytest.raises(ValueError, match="2 rows, less than one window of 3"):
        windows(values[:2], 3)
