"""Tables from CSV and Parquet files: the same cells of text either way, with the place of every row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dl_lab.datasets.delimited import Row, Table, delimiter_of, find_delimiter, parse_table, quote, read_text
from dl_lab.datasets.rows import FILE_NUMBER
from dl_lab.types import UserError

PARQUET = (".parquet", ".pq")


@dataclass(frozen=True)
class Format:
    """How a table is written.

    Args:
        delimiter: The character between two cells; `tab` stands for a tab. "auto" takes the character that splits the
            header and the first rows evenly.
        decimal: The decimal mark, "." or ",".
        encoding: The encoding of the file.
    """

    delimiter: str = "auto"
    decimal: str = "."
    encoding: str = "utf-8"

    def check(self, key: str) -> None:
        """Check that the values describe a table.

        Args:
            key: Where the user sets the format; errors name the setting below it.

        Raises:
            UserError: The decimal mark is neither "." nor ",", or is also the delimiter.
        """
        if self.decimal not in (".", ","):
            raise UserError(f"{key}.decimal: {self.decimal!r} is no decimal mark; use {quote(f'{key}.decimal', ',')}.")
        if self.delimiter != "auto" and delimiter_of(self.delimiter, f"{key}.delimiter") == self.decimal:
            raise UserError(f"{key}: the delimiter and the decimal mark are both {self.decimal!r}; they must differ.")


class Stamp(NamedTuple):
    """A file as it was: path, time of its last change in nanoseconds, and size in bytes."""

    path: str
    changed: int
    size: int


def find_file(path: str, data_dir: str, key: str = "dataset.path") -> Path:
    """Return the path of a file in the current folder or in the data folder.

    Args:
        path: An absolute path, or one relative to either folder.
        data_dir: The data folder.
        key: Where the user sets the path; errors name it.

    Raises:
        UserError: Neither folder has the file.
    """
    given = Path(path).expanduser()
    places = [given] if given.is_absolute() else [given, Path(data_dir).expanduser() / given]
    for place in places:
        if place.is_file():
            return place
    if any(place.is_dir() for place in places):
        raise UserError(f"{key}: {path} is a folder; a file is expected.")
    looked = " nor ".join(str(place.absolute()) for place in places)
    raise UserError(f"{key}: there is no file {looked}.")


def read_table(path: Path, format: Format, key: str = "dataset.format") -> Table:
    """Read the table of a CSV or Parquet file.

    Args:
        path: A file named *.parquet or *.pq; any other file is delimited text with a header.
        format: How the file is written. It does not matter for Parquet files.
        key: Where the user sets the format; errors advise keys below it.

    Raises:
        UserError: The file cannot be read, or has no row; the message names file and line.
    """
    format.check(key)
    if path.suffix.lower() in PARQUET:
        table = _read_parquet(path)
    else:
        text = read_text(path, format.encoding, f"{key}.encoding")
        delimiter = find_delimiter(text, str(path), key) if format.delimiter == "auto" else format.delimiter
        table = parse_table(text, str(path), delimiter, key=key)
    rows = [Row(row.line, [cell.strip() for cell in row.cells]) for row in table.rows]
    rows = [row for row in rows if any(row.cells)]
    if not rows:
        raise UserError(f"{path} has no rows below its header.")
    repeated = [name for name in table.header if name and table.header.count(name) > 1]
    if repeated:
        table.place(repeated[0])
    return Table(table.where, table.header, rows)


def read_tables(files: Sequence[Path], format: Format) -> Table:
    """Read one table from all files.

    Where there are several files, the column FILE_NUMBER says which one a row comes from.

    Raises:
        UserError: A file cannot be read, or has other columns than the first one.
    """
    first = read_table(files[0], format)
    if len(files) == 1:
        return first
    rows: list[Row] = []
    for number, file in enumerate(files):
        own = first if number == 0 else read_table(file, format)
        if sorted(own.header) != sorted(first.header):
            odd = sorted(set(own.header) ^ set(first.header))
            raise UserError(f"{file} has other columns than {files[0]}: {', '.join(odd)}.")
        places = [own.place(name) for name in first.header]
        rows += [Row(row.line, [*(row.cells[place] for place in places), str(number)]) for row in own.rows]
    return Table(" or ".join(map(str, files)), (*first.header, FILE_NUMBER), rows)


def cells_of(content: Table, name: str) -> list[str]:
    """Return the cells of a column.

    Raises:
        UserError: The table has no such column.
    """
    place = content.place(name)
    return [row.cells[place] for row in content.rows]


def stamp_of(file: Path) -> Stamp:
    """Return the stamp of a file as it is now."""
    about = file.stat()
    return Stamp(str(file), about.st_mtime_ns, about.st_size)


def _read_parquet(path: Path) -> Table:
    """Read the cells as text: numbers as Python writes them, "" for null, times in ISO format."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise UserError(
            f"{path}: reading Parquet needs pyarrow: pip install pyarrow, or save the table as CSV."
        ) from None
    try:
        content = parquet.read_table(path)
        columns = [content.column(i).to_pylist() for i in range(content.num_columns)]
        header = tuple(str(name).strip() for name in content.column_names)
    except (ArrowException, OSError, ValueError, UnicodeDecodeError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise UserError(f"{path} is no Parquet file that can be read ({reason}).") from error
    for name, column in zip(header, columns, strict=True):
        nested = next((value for value in column if isinstance(value, list | dict | bytes)), None)
        if nested is not None:
            raise UserError(
                f"{path}: the column {name} holds a {type(nested).__name__} in a cell; only plain values are read."
            )
    rows = [Row(i, [_text(value) for value in cells]) for i, cells in enumerate(zip(*columns, strict=True), 1)]
    return Table(f"{path} (rows, not lines)", header, rows)


def _text(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    write = getattr(value, "isoformat", None)  # dates and times have it, and the durations of pandas
    return str(value) if write is None else write()
