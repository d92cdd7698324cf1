"""Delimited text is read strictly: the same values as pandas, or one sentence with file, line and remedy."""

from __future__ import annotations

import io

import pandas
import pytest

from dl_lab.datasets.delimited import decode, find_delimiter, parse_rows, parse_table, read_lines, read_text
from dl_lab.types import UserError

READABLE = {
    "plain": "a,b\n1,x\n2,y\n",
    "quoted commas": 'a,b\n"8,127",x\n2,"y, z"\n',
    "doubled quotes": 'a,b\n1,"say ""hi"""\n',
    "a line end inside quotes": 'a,b\n1,"two\nlines"\n3,z\n',
    "carriage returns": "a,b\r\n1,x\r\n2,y\r\n",
    "mixed line ends": "a,b\r\n1,x\n2,y\r3,z\n",
    "no line end at the end": "a,b\n1,x",
    "blank lines": "a,b\n\n1,x\n\n",
    "letters of other alphabets": "a,b\nà,東京\n",
}


@pytest.mark.data_file(
    "Tables", kind="mixed line ends, quoted delimiters and line ends", loader="all", outcome="read as pandas does"
)
@pytest.mark.parametrize("kind", READABLE)
def test_reads_what_pandas_reads(kind):
    text = READABLE[kind]
    expected = pandas.read_csv(io.StringIO(text, newline=""), dtype=str, keep_default_na=False)
    table = parse_table(text, "x.csv")
    assert list(table.header) == list(expected.columns)
    assert [row.cells for row in table.rows] == expected.to_numpy().tolist()


FAULTS = {
    "more cells": ("a,b\n1,2,3,x\n", r"x.csv, line 2: 4 cells where the header has 2"),
    "an unquoted thousands comma": (
        "t,v\n00:30,8,127\n",
        r"line 2: 3 cells .* If 8,127 is one number, write it as 8127",
    ),
    "fewer cells": ("a,b\n1,2\n3\n", r"line 3: 1 cell where the header has 2. The row is cut short"),
    "an unclosed quote": ('a,b\n1,"x\n2,y\n', r"line 2: the row that starts here has broken quotes"),
    "a quote inside a cell": ('a,b\n1,"x" y\n', r"line 2: the row that starts here has broken quotes"),
    "nothing": ("", r"x.csv is empty"),
    "blank lines only": ("\n\n", r"x.csv is empty"),
}


@pytest.mark.data_file(
    "Tables", kind="rows with more or fewer cells, unclosed quotes", loader="all", outcome="refused with the line"
)
@pytest.mark.parametrize("kind", FAULTS)
def test_names_the_line_of_a_fault(kind):
    text, message = FAULTS[kind]
    with pytest.raises(UserError, match=message):
        parse_table(text, "x.csv")


def test_lines_are_counted_through_quoted_line_ends():
    rows = list(parse_rows('a\n"1\n2"\n3\n', "x.csv"))
    assert [(row.line, row.cells) for row in rows] == [(1, ["a"]), (2, ["1\n2"]), (4, ["3"])]


def test_a_column_must_exist_once():
    table = parse_table("a,b,b\n1,2,3\n", "x.csv")
    with pytest.raises(UserError, match="no column 'c'; its columns are a, b, b"):
        table.place("c")
    with pytest.raises(UserError, match="2 columns named 'b'"):
        table.place("b")


@pytest.mark.parametrize("delimiter", ["", ";;", "\n", '"'])
def test_a_delimiter_is_one_character(delimiter):
    with pytest.raises(UserError, match=r"""k.delimiter: .* one character, for example 'k.delimiter=";"'"""):
        list(parse_rows("a", "x.csv", delimiter, key="k"))
    assert next(parse_rows("a\tb", "x.csv", "tab")).cells == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("a,b\n1,2\n", ","),
        ("a;b\n1,5;2,5\n", ";"),
        ("a\tb\n1\t2\n", "\t"),
        ("a|b\n1|2\n", "|"),
        ("a\n1\n", ","),
        ("", ","),
    ],
)
def test_finds_the_delimiter(text, delimiter):
    assert find_delimiter(text, "x.csv") == delimiter


def test_two_possible_delimiters_are_not_guessed():
    with pytest.raises(UserError, match="a comma and a semicolon both split every row evenly"):
        find_delimiter("a,b;c\n1,2;3\n", "x.csv")


@pytest.mark.data_file(
    "Tables",
    kind="UTF-8 with a byte order mark; UTF-16",
    loader="all",
    outcome="read; UTF-16 where `encoding` names it",
)
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    path = tmp_path / "x.csv"
    for encoding in ("utf-8", "utf-8-sig"):
        path.write_text("aé\n", encoding=encoding)
        assert read_text(path) == "aé\n"
    path.write_text("aé\n", encoding="utf-16")
    assert read_text(path, "utf-16") == "aé\n"
    with pytest.raises(UserError, match=r"is UTF-16, not UTF-8: set dataset.encoding=utf-16"):
        read_text(path)


def test_another_encoding_is_named_or_refused():
    raw = "ok\ncafé\n".encode("latin-1")
    assert decode(raw, "x.csv", "latin-1") == "ok\ncafé\n"
    with pytest.raises(UserError, match=r"line 2: byte 4 is not valid UTF-8.*k=latin-1"):
        decode(raw, "x.csv", key="k")
    with pytest.raises(UserError, match="no encoding 'klingon'"):
        decode(raw, "x.csv", "klingon")
    with pytest.raises(UserError, match="line 2: a zero byte"):
        decode(b"a\nb\0c\n", "x.csv")


def test_lines(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n\nfive")
    assert read_lines(path) == ["one", "two", "three", "", "five"]
    path.write_bytes(b"")
    with pytest.raises(UserError, match="is empty"):
        read_lines(path)
