"""How numbers are written in files: what is read as a number, and what looks like one and is refused.

A cell such as `1,360`, `1'360`, `$5`, `45 %` or `−3` is a number to its writer. It is neither guessed nor taken for a
word in silence: the error says how to write it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

_NUMBER = {mark: re.compile(rf"[+-]?(\d+({mark}\d*)?|{mark}\d+)([eE][+-]?\d+)?", re.ASCII) for mark in (r"\.", ",")}
_HEAD = re.compile(r"[+-]?\d{1,3}", re.ASCII)
_THREE_DIGITS = re.compile(r"\d{3}(\.\d+)?", re.ASCII)
_BLANKS = " \u00a0\u2009\u202f"
_GROUPED = re.compile(
    rf"[+-]?\d{{1,3}}(?P<mark>[{_BLANKS}'’_,.])\d{{3}}((?P=mark)\d{{3}})*(?P<rest>[.,]\d+)?", re.ASCII
)
_MINUS = "−–"  # U+2212 and the en dash, which word processors put in place of a hyphen
_LETTER = re.compile(r"[^\W\d_]")
_DIGIT = re.compile(r"\d")
_UNIT = re.compile(r"(?P<number>[+-]?[\d.,]*\d)\s*(?P<unit>[^\W\d_][\w°²³/]*|°\w?)")


class OtherWriting(ValueError):
    """The cell is a number, but it is not written as the numbers of this file are read.

    Attributes:
        is_decimal: Whether the number is right for the other decimal mark.
    """

    def __init__(self, message: str, is_decimal: bool = False) -> None:
        super().__init__(message)
        self.is_decimal = is_decimal


def number_of(cell: str, decimal: str = ".") -> float:
    """Return the number of a cell.

    Args:
        cell: The number, without marks between thousands.
        decimal: The decimal mark.

    Raises:
        OtherWriting: The cell is a number in another writing: `1_000`, `8,127`, `$5`, `45 %`, or `1.360` where the
            decimal mark is a comma. The message says how to write it.
        ValueError: The cell is no number, or one that is too large for a computer.
    """
    if _NUMBER[_pattern(decimal)].fullmatch(cell):
        value = float(cell.replace(",", "."))
        if value in (float("inf"), float("-inf")):
            raise ValueError(f"{cell!r} is too large for a number")
        return value
    other = "," if decimal == "." else "."
    if other in cell and _NUMBER[_pattern(other)].fullmatch(cell):
        names = {".": "a dot", ",": "a comma"}
        wrong = names[other]
        before, _, after = cell.partition(other)
        message = f"{cell!r} has {wrong}, but the decimal mark of the file is {names[decimal]}"
        if are_thousands(before, after):
            message += f", and {wrong} between thousands is not read (write {before}{after})"
        raise OtherWriting(message, is_decimal=True)
    plain = _write_plainly(cell, decimal)
    if plain is not None:
        raise OtherWriting(f"{cell!r} has marks that are not read (write {plain})")
    raise ValueError(f"{cell!r} is no number")


def read_all(cells: Sequence[str], decimal: str = ".") -> np.ndarray | None:
    """Return the numbers of many cells (n,), as `number_of` reads each; None if it refuses one of them."""
    if not all(map(_NUMBER[_pattern(decimal)].fullmatch, cells)):
        return None
    values = np.array([float(cell.replace(",", ".")) for cell in cells])
    return values if np.isfinite(values).all() else None


def are_thousands(before: str, after: str) -> bool:
    """Return whether these two parts may be one number with a mark between thousands: "8" and "127"."""
    return bool(_HEAD.fullmatch(before) and _THREE_DIGITS.fullmatch(after))


def split_unit(cell: str) -> tuple[str, str] | None:
    """Return the number and the unit of a cell such as `5 kg`; None for other cells."""
    found = _UNIT.fullmatch(cell)
    return (found["number"], found["unit"]) if found else None


def _pattern(mark: str) -> str:
    return r"\." if mark == "." else ","


def _write_plainly(cell: str, decimal: str) -> str | None:
    """Return a number without currency, percent sign and marks between thousands, in ASCII; None for other cells."""
    if _LETTER.search(cell) or not _DIGIT.search(cell):  # most words end here
        return None
    plain = "".join(str(unicodedata.decimal(sign, sign)) for sign in cell)
    if plain.startswith("(") and plain.endswith(")"):  # as accountants write -5
        plain = f"-{plain[1:-1]}"
    is_negative = plain[:1] in ("-", *_MINUS)
    plain = plain[1:] if is_negative else plain
    if plain[-1:] in ("%", "‰"):
        plain = plain[:-1]
    for place in (0, -1):
        if plain and unicodedata.category(plain[place]) == "Sc":
            plain = plain[1:] if place == 0 else plain[:-1]
    plain = plain.strip(_BLANKS)
    grouped = _GROUPED.fullmatch(plain)
    if grouped and grouped["mark"] != (grouped["rest"] or "")[:1]:
        rest = (grouped["rest"] or "").replace(",", ".").replace(".", decimal)
        whole = plain[: len(plain) - len(grouped["rest"] or "")]
        plain = whole.replace(grouped["mark"], "") + rest
    plain = f"-{plain}" if is_negative else plain
    return plain if plain != cell and _NUMBER[_pattern(decimal)].fullmatch(plain) else None
