"""How numbers are written in files."""

from __future__ import annotations

import pytest

from dl_lab.datasets.numerals import OtherWriting, number_of, split_unit


@pytest.mark.data_file("Tables", kind="1_000, inf, 1e400, 8,127 as numbers", loader="all", outcome="refused")
@pytest.mark.parametrize(
    ("cell", "decimal", "value"),
    [("1", ".", 1), ("-1.5e3", ".", -1500), (".5", ".", 0.5), ("5.", ".", 5), ("2,6", ",", 2.6), ("-200", ",", -200)],
)
def test_numbers(cell, decimal, value):
    assert number_of(cell, decimal) == value


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("inf", "is no number"),
        ("nan", "is no number"),
        ("", "is no number"),
        ("-", "is no number"),
        ("%", "is no number"),
        ("0_0", "is no number"),
        ("12,34,567", "is no number"),
        ("2020-01-13", "is no number"),
        ("192.168.1.1", "is no number"),
        ("0x1f", "is no number"),
        ("5²", "is no number"),
        ("1e400", "is too large for a number"),
        ("-1e400", "is too large for a number"),
    ],
)
def test_a_cell_that_is_no_number_is_explained(cell, message):
    with pytest.raises(ValueError, match=message) as raised:
        number_of(cell)
    assert not isinstance(raised.value, OtherWriting)


@pytest.mark.parametrize(
    ("cell", "decimal", "message"),
    [
        ("1.360", ",", r"has a dot, but the decimal mark of the file is a comma, .* \(write 1360\)"),
        ("8,127", ".", r"has a comma, but the decimal mark of the file is a dot, .* \(write 8127\)"),
        ("0,5", ".", "has a comma, but the decimal mark of the file is a dot$"),
    ],
)
def test_the_other_decimal_mark_is_named(cell, decimal, message):
    with pytest.raises(OtherWriting, match=message) as raised:
        number_of(cell, decimal)
    assert raised.value.is_decimal


@pytest.mark.parametrize(
    ("cell", "decimal", "plain"),
    [
        ("1_000", ".", "1000"),
        ("1,234,567", ".", "1234567"),
        ("1,234.5", ".", "1234.5"),
        ("1.234,5", ",", "1234,5"),
        ("1.234,5", ".", "1234.5"),
        ("1'234", ".", "1234"),
        ("1’234", ".", "1234"),
        ("1 234", ".", "1234"),
        ("1\u00a0234", ".", "1234"),
        ("1\u202f234,5", ",", "1234,5"),
        ("$5.10", ".", "5.10"),
        ("-$1,200", ".", "-1200"),
        ("12 €", ".", "12"),
        ("45%", ".", "45"),
        ("45 %", ".", "45"),
        ("(3.5)", ".", "-3.5"),
        ("\u22123", ".", "-3"),
        ("٣", ".", "3"),
        ("１０", ".", "10"),
    ],
)
def test_another_writing_is_refused_and_says_what_to_write(cell, decimal, plain):
    with pytest.raises(OtherWriting) as raised:
        number_of(cell, decimal)
    assert str(raised.value).endswith(f"(write {plain})")


def test_a_unit_stands_behind_a_number():
    assert split_unit("5 kg") == ("5", "kg")
    assert split_unit("-0.5°C") == ("-0.5", "°C")
    assert split_unit("20 km/h") == ("20", "km/h")
    assert [split_unit(cell) for cell in ("kg", "5", "5 ", "A5", "5 kg net", "2020-01-13", "14:30")] == [None] * 7
