"""One strict reader for delimited text: CSV files and their kin.

The reader never guesses within a file. The caller names the delimiter, the quoting and the encoding once. Every row
must have as many cells as the header. Every fault is a UserError with the file, the line and a remedy. Text is UTF-8,
with or without a byte order mark, unless the caller names another encoding. Lines may end in LF, CR LF or CR.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dl_lab.datasets.numerals import are_thousands
from dl_lab.types import UserError

DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
NO_VALUE = frozenset({"", "nan", "na", "n/a", "null", "none"})  # cells, in lower case, that stand for "no value"


class Row(NamedTuple):
    """The cells of one row, and the line of the file on which the row starts."""

    line: int
    cells: list[str]


@dataclass(frozen=True)
class Table:
    """A header and the rows below it. Every row has as many cells as the header.

    Args:
        where: The name of the table in errors.
        header: The names of the columns.
        rows: The rows.
    """

    where: str
    header: tuple[str, ...]
    rows: list[Row]

    def place(self, column: str) -> int:
        """Return the position of a column.

        Raises:
            UserError: The table has no such column, or two columns of this name.
        """
        if column not in self.header:
            raise UserError(
                f"{self.where} has no column {column!r}; its columns are {', '.join(filter(None, self.header))}."
            )
        if self.header.count(column) > 1:
            raise UserError(
                f"{self.where} has {self.header.count(column)} columns named {column!r}: rename all but one."
            )
        return self.header.index(column)


# -- text -----------------------------------------------------------------------------------------------------------


def read_text(path: Path, encoding: str = "utf-8", key: str = "dataset.encoding") -> str:
    """Return the text of a file without its byte order mark.

    Args:
        path: The file.
        encoding: The name of an encoding of Python. UTF-8 may start with a byte order mark.
        key: The setting that an error advises to change.

    Raises:
        UserError: The file cannot be opened or is not text in this encoding, or the encoding does not exist.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error
    return decode(raw, str(path), encoding, key)


def decode(raw: bytes, where: str, encoding: str = "utf-8", key: str = "dataset.encoding") -> str:
    """Return the text of bytes, like `read_text`; errors call the bytes `where`."""
    try:
        name = codecs.lookup(encoding).name
    except LookupError:
        raise UserError(
            f"{key}: Python knows no encoding {encoding!r}; utf-8, latin-1 and utf-16 are common."
        ) from None
    if name in ("utf-8", "utf-8-sig"):
        name = "utf-8"
        raw = raw.removeprefix(codecs.BOM_UTF8)
        if raw.startswith(UTF_16):
            raise UserError(f"{where} is UTF-16, not UTF-8: set {key}=utf-16, or save the file as UTF-8.")
    try:
        text = raw.decode(name)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        byte = error.start - raw.rfind(b"\n", 0, error.start)
        raise UserError(
            f"{where}, line {line}: byte {byte} is not valid {encoding.upper()}. Save the file as UTF-8, or name its"
            f" encoding, for example {key}=latin-1."
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"{where}, line {line}: a zero byte. This is not a text file, or it is UTF-16 ({key}=utf-16).")
    return text.removeprefix("\ufeff")


def read_lines(path: Path, encoding: str = "utf-8", key: str = "encoding") -> list[str]:
    """Return the lines of a text file, without their ends.

    Args:
        path: The file.
        encoding: As in `read_text`.
        key: As in `read_text`.

    Raises:
        UserError: The file has no line, or cannot be read.
    """
    text = read_text(path, encoding, key)
    lines = re.split(r"\r\n|\n|\r", text)
    if lines[-1] == "":
        lines.pop()
    if not lines:
        raise UserError(f"{path} is empty.")
    return lines


# -- rows -----------------------------------------------------------------------------------------------------------


def parse_rows(text: str, where: str, delimiter: str = ",", quotes: bool = True, key: str = "dataset") -> Iterator[Row]:
    """Yield every row of a text. Blank lines are rows without a cell.

    Args:
        text: The whole text.
        where: The name of the text in errors.
        delimiter: One character, or "tab".
        quotes: Whether a cell may be in double quotes. If not, a quote is a character like any other.
        key: The settings that an error advises to change: `<key>.delimiter`.

    Raises:
        UserError: The delimiter is not one character, or quotes do not close.
    """
    delimiter = delimiter_of(delimiter, f"{key}.delimiter")
    quoting = csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    line = 1
    try:
        for cells in reader:
            yield Row(line, cells)
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"{where}, line {line}: the row that starts here has broken quotes ({error}). A cell that starts"
            ' with " must end'
            ' with " before the next delimiter, and a quote inside it is written twice.'
        ) from error


def delimiter_of(name: str, key: str) -> str:
    """Return the character between two cells.

    Args:
        name: The character, or "tab".
        key: The setting, for the error.

    Raises:
        UserError: `name` is not one character.
    """
    delimiter = "\t" if name in ("tab", "\\t") else name
    if len(delimiter) != 1 or delimiter in '\r\n"':
        raise UserError(
            f"{key}: {name!r} is not a delimiter. It must be one character, for example {quote(key, ';')}, or"
            f" {key}=tab."
        )
    return delimiter


def parse_table(text: str, where: str, delimiter: str = ",", quotes: bool = True, key: str = "dataset") -> Table:
    """Return a header and its rows. Rows of blank cells are kept; lines without a cell are not.

    Args:
        text: As in `parse_rows`.
        where: As in `parse_rows`.
        delimiter: As in `parse_rows`.
        quotes: As in `parse_rows`.
        key: As in `parse_rows`.

    Raises:
        UserError: The text has no header, a row has more or fewer cells than the header, or `parse_rows` raises.
    """
    rows = [row for row in parse_rows(text, where, delimiter, quotes, key) if row.cells]
    if not rows:
        raise UserError(f"{where} is empty: a header line with the names of the columns is expected.")
    header = tuple(name.strip() for name in rows[0].cells)
    for row in rows[1:]:
        if len(row.cells) != len(header):
            raise UserError(describe_uneven(row, len(header), "the header", where, delimiter))
    return Table(where, header, rows[1:])


def describe_uneven(row: Row, n_expected: int, reference: str, where: str, delimiter: str) -> str:
    """Say that a row has another number of cells than its reference, and what probably happened.

    Args:
        row: The row.
        n_expected: The cells of the reference.
        reference: The reference in words: "the header".
        where: The name of the text.
        delimiter: The character between two cells.
    """
    n = len(row.cells)
    words = f"{where}, line {row.line}: {n} cell{'s' * (n != 1)} where {reference} has {n_expected}."
    if n < n_expected:
        return f"{words} The row is cut short, or a cell is missing."
    pairs = zip(row.cells[:-1], row.cells[1:], strict=True)
    for left, right in pairs:
        if delimiter == "," and are_thousands(left.strip(), right.strip()):
            number = f"{left.strip()}{right.strip()}"
            return f"{words} If {left.strip()},{right.strip()} is one number, write it as {number}."
    return f"{words} A cell that contains the delimiter {delimiter!r} must stand in double quotes."


def other_delimiter(header: Sequence[str], wanted: Sequence[str], delimiter: str) -> str | None:
    """Return another delimiter that splits this header into the wanted columns; None where none does."""
    line = delimiter.join(header)
    for candidate in DELIMITERS:
        names = [name.strip().strip('"') for name in line.split(candidate)]
        if candidate != delimiter and all(name in names for name in wanted):
            return candidate
    return None


def find_delimiter(text: str, where: str, key: str = "dataset") -> str:
    """Find the delimiter that splits the header and the first rows into equally many cells.

    Args:
        text: The whole text.
        where: The name of the text in errors.
        key: The settings that an error advises to change: `<key>.delimiter`.

    Returns:
        The delimiter; a comma for a text of one column.

    Raises:
        UserError: Two delimiters fit equally well.
    """
    lines = [line for line in text.splitlines()[:50] if line.strip()]
    fitting: dict[str, int] = {}
    for candidate in DELIMITERS:
        try:
            rows = list(parse_rows("\n".join(lines), where, candidate))
        except UserError:
            continue
        counts = {len(row.cells) for row in rows}
        if len(counts) == 1 and counts != {1}:
            fitting[candidate] = counts.pop()
    if not fitting:
        # No delimiter fits every row: the header decides, and the strict reader then names the uneven row.
        header = lines[0] if lines else ""
        seen = {candidate: header.count(candidate) for candidate in DELIMITERS if candidate in header}
        return max(seen, key=seen.__getitem__) if seen else ","
    if len(fitting) > 1:
        names = " and ".join(DELIMITERS[candidate] for candidate in fitting)
        first = next(iter(fitting))
        raise UserError(
            f"{where}: {names} both split every row evenly. Name the delimiter: {quote(f'{key}.delimiter', first)}."
        )
    return next(iter(fitting))


def check_label(cell: str, column: str, where: str) -> None:
    """Check that a cell holds a label.

    Raises:
        UserError: The cell is empty, or has a word that stands for "no value".
    """
    if not cell.strip():
        raise UserError(f"{where}: the column {column} is empty.")
    if cell.strip().lower() in NO_VALUE:
        raise UserError(
            f"{where}: {cell.strip()!r} in the column {column} stands for no value. Delete the row; if this is a class,"
            " give it another name."
        )


def quote(key: str, value: str) -> str:
    """Return an override whose value the shell and Hydra leave as it is: 'layout.decimal=","'."""
    return f"'{key}=\"{value}\"'"
