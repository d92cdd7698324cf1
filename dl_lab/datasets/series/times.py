"""Times as text: the formats that are known, and a reader that is faster than `strptime` for most of them."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from dl_lab.datasets.delimited import quote
from dl_lab.types import UserError

LIKELY_TIMES = (
    "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M", "%Y-%m-%d", "%d/%m/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M", "%d/%m/%Y %H.%M.%S", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %H:%M",
    "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d", "%Y%m%d",
    "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%MZ", "%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%dT%H:%M:%S.%fZ",
    "%m/%d/%Y %I:%M:%S %p", "%m/%d/%Y %I:%M %p", "%d/%m/%Y %I:%M:%S %p", "%d/%m/%Y %I:%M %p",
)  # fmt: skip
_FIELDS = {"%Y": "year", "%m": "month", "%d": "day", "%H": "hour", "%M": "minute", "%S": "second"}


@functools.lru_cache(maxsize=64)
def time_reader(time_format: str) -> Callable[[str], datetime]:
    """Return a function from a text to its time, which raises ValueError for a text that is no such time.

    It answers as `datetime.strptime` does. Times of two-digit numbers and a year, the most common ones, take half of
    `strptime`'s time.

    Args:
        time_format: How the time is written, in the codes of `strptime`.
    """
    parts = re.split(r"(%.)", time_format)
    codes = parts[1::2]
    if not {"%Y", "%m", "%d"} <= set(codes) <= set(_FIELDS) or len(set(codes)) < len(codes):
        return lambda text: datetime.strptime(text, time_format)
    digits = {code: rf"(?P<{name}>\d{{{4 if code == '%Y' else 2}}})" for code, name in _FIELDS.items()}
    pattern = re.compile("".join(digits.get(part) or re.escape(part) for part in parts), re.ASCII)
    order = sorted(range(len(codes)), key=lambda place: list(_FIELDS).index(codes[place]))

    def read(text: str) -> datetime:
        if found := pattern.fullmatch(text):
            numbers = found.groups()
            fields: Any = [int(numbers[place]) for place in order]  # year, month, day, ...: all of them whole numbers
            with contextlib.suppress(ValueError):  # a month 13: strptime words the error
                return datetime(*fields)
        return datetime.strptime(text, time_format)  # also reads `2024-1-5`

    return read


def check_time_format(time_format: str, key: str) -> None:
    """Check that a format has known codes, each of them once.

    Raises:
        UserError: `strptime` does not understand the format. The message calls the setting `key`.
    """
    wrong = ""
    try:
        datetime.strptime("", time_format)
    except re.error:
        wrong = "it has a code twice"
    except ValueError as error:  # every format with a code refuses the empty text: "time data '' does not match ..."
        wrong = "" if str(error).startswith("time data") else str(error)
    if wrong:
        raise UserError(f"{key}: {time_format!r} is no format of times: {wrong}.")


def is_time(text: str, time_format: str) -> bool:
    """Return whether a text is a time in this format."""
    try:
        time_reader(time_format)(text)
    except ValueError:
        return False
    return True


def explain_time(text: str, time_format: str, key: str) -> str:
    """Say that a text is no time in this format, and in which one it is. The message calls the setting `key`."""
    words = f"{text!r} is no time like {time_format}."
    for other in LIKELY_TIMES:
        if is_time(text, other):
            return f"{words} It looks like {quote(key, other)}."
    return words
