"""The reader of times answers as strptime does, for every known format."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

import pytest

from dl_lab.datasets.series.times import LIKELY_TIMES, check_time_format, is_time, time_reader
from dl_lab.types import UserError

OTHER_FORMATS = ("%d %b %Y", "%H:%M", "%Y-%j", "%y%m%d", "100%% %Y-%m-%d", "%Y-%m-%d %H:%M:%S%z", "")


def answer(read, text):
    """Return the time, or the words of the error."""
    try:
        return read(text)
    except ValueError as error:
        return str(error)


def texts_like(time_format: str, numbers: random.Random) -> list[str]:
    """Times in a format, and what a hand, a spreadsheet or a broken logger makes of them."""
    texts = []
    for _ in range(20):
        text = (datetime(1970, 1, 1) + timedelta(seconds=numbers.randrange(3 * 10**9))).strftime(time_format)
        place, sign = numbers.randrange(len(text) + 1), numbers.choice("0123456789 -/:.TZx٣\n")
        texts += [text, text[:place] + sign + text[place + 1 :], text[:place] + sign + text[place:], text[1:]]
        texts += [text.replace("0", ""), text.replace("1", "9"), f" {text} ", text.lower(), text.replace(" ", "  ")]
    return texts


@pytest.mark.parametrize("time_format", [*LIKELY_TIMES, *OTHER_FORMATS])
def test_answers_as_strptime_does(time_format):
    read = time_reader(time_format)
    for text in texts_like(time_format, random.Random(0)):
        expected = answer(lambda text: datetime.strptime(text, time_format), text)
        assert answer(read, text) == expected, text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-02-29 23:59:59", datetime(2024, 2, 29, 23, 59, 59)),
        ("2024-2-9 3:5:7", datetime(2024, 2, 9, 3, 5, 7)),
        ("2023-02-29 00:00:00", "day is out of range for month"),
        ("2024-13-01 00:00:00", "time data '2024-13-01 00:00:00' does not match format '%Y-%m-%d %H:%M:%S'"),
        ("2024-01-01 24:00:00", "time data '2024-01-01 24:00:00' does not match format '%Y-%m-%d %H:%M:%S'"),
        ("2024-01-01T00:00:00", "time data '2024-01-01T00:00:00' does not match format '%Y-%m-%d %H:%M:%S'"),
    ],
)
def test_a_date_is_a_date_of_the_calendar(text, expected):
    assert answer(time_reader("%Y-%m-%d %H:%M:%S"), text) == expected
    assert is_time(text, "%Y-%m-%d %H:%M:%S") == isinstance(expected, datetime)


def test_day_and_month_stand_where_the_format_says():
    assert time_reader("%d/%m/%Y %H.%M.%S")("03/02/2024 18.30.05") == datetime(2024, 2, 3, 18, 30, 5)
    assert time_reader("%m/%d/%Y")("03/02/2024") == datetime(2024, 3, 2)


@pytest.mark.parametrize(
    ("time_format", "wrong"),
    [
        ("%Y-%m-%d %Y", "it has a code twice"),
        ("%Q", "'Q' is a bad directive in format '%Q'"),
        ("%Y-%", "stray % in format '%Y-%'"),
    ],
)
def test_a_format_that_is_none_is_refused(time_format, wrong):
    with pytest.raises(UserError) as caught:
        check_time_format(time_format, "dataset.layout.time_format")
    assert str(caught.value) == f"dataset.layout.time_format: {time_format!r} is no format of times: {wrong}."


@pytest.mark.parametrize("time_format", [*LIKELY_TIMES, *OTHER_FORMATS])
def test_a_format_is_taken(time_format):
    check_time_format(time_format, "dataset.layout.time_format")
