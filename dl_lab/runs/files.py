"""The files of a run folder: atomic writing, strict JSON, reading of records."""

from __future__ import annotations

import contextlib
import json
import math
import os
import struct
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dl_lab.types import UserError


def write_atomic(path: Path, content: str | bytes | memoryview, durable: bool = False) -> None:
    """Write a file under a temporary name and rename it. Even after a kill, a reader finds the old file or the new one.

    Args:
        path: The file.
        content: Its whole content.
        durable: Wait until the disk has it (5 to 10 ms). Plans and checkpoints must survive a power cut. The files of
            a finished run need not: a run whose files are unreadable does not count as done, and its checkpoint can
            produce them again.

    Raises:
        UserError: The file cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"Cannot write {path}: {error.strerror}.") from error


def check_name(name: object) -> None:
    """Check the name that a user's code gives to a file or a folder of its run: it must stay within the run's folder.

    Raises:
        UserError: It is no text, or it leads to another folder.
    """
    if not isinstance(name, str) or not name or name.startswith(".") or any(sign in name for sign in "/\\\0"):
        raise UserError(
            f"A run's file cannot be called {name!r:.80}: a name has no slash, and does not begin with a dot."
        )


def to_json(value: object, indent: int | None = None) -> str:
    """Return strict JSON, in which a number that is not finite becomes null.

    Args:
        value: Mappings, sequences and plain values. Those of NumPy and torch become numbers and lists, anything else
            its text.
        indent: Blanks by which each level is indented. None: all on one line.
    """
    try:
        return json.dumps(value, allow_nan=False, default=_plain, indent=indent)
    except (TypeError, ValueError):  # a number that is not finite, or a key that is not a plain value
        return json.dumps(_finite(value), allow_nan=False, default=str, indent=indent)


def _plain(value: object) -> object:
    """Turn a value that json does not know into one that it knows."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return list(value)
    numbers = as_numbers(value)
    return str(value) if numbers is value else numbers


def as_numbers(value: object) -> object:
    """Return an array or a number of NumPy's or torch's as plain numbers; anything else as it is."""
    to_list = getattr(value, "tolist", None)
    return to_list() if callable(to_list) and hasattr(value, "dtype") else value


def _finite(value: object) -> object:
    """Return a value with null in the place of each number that is not finite."""
    value = as_numbers(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_finite(item) for item in value]
    return value


def now() -> str:
    """Return the current time in UTC, to the millisecond: runs that start within a second have an order."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def read_json(path: Path) -> dict[str, Any] | None:
    """Read the object in a JSON file; None where the file is missing or unreadable."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def parse_time(text: object) -> datetime | None:
    """Parse a time of status.json or env.json, with its time zone (UTC where it has none); None for anything else."""
    if not isinstance(text, str):
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def as_mapping(value: object) -> dict[str, Any]:
    """Return a mapping as it is. Return {} for anything else that a foreign file may hold in its place."""
    return dict(value) if isinstance(value, Mapping) else {}


def number_or_none(value: Any) -> Any:
    """Return a number as it is. Return None for anything else that a foreign file may hold in its place."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else None


def only_numbers(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out metrics that are no number. None stays; it stands for a value that is not finite."""
    found = {}
    for name, value in metrics.items():
        if value is None or number_or_none(value) is not None:
            found[name] = value
    return found


def error_line(status: Mapping[str, object]) -> str:
    """Return the error of a status.json in one line: the start of its message, else its type; "" where it has none."""
    error = status.get("error")
    if not isinstance(error, Mapping):
        return str(error or "").partition("\n")[0]
    return str(error.get("message", "")).partition("\n")[0] or str(error.get("type", ""))


class DamagedFileError(UserError, ValueError):
    """A file of a run folder does not hold what dl-lab writes."""


def read_records(path: Path) -> list[dict[str, Any]]:
    """Read the records of a .jsonl file. A last line that a kill has cut short is left out.

    Raises:
        DamagedFileError: A whole line is no record.
    """
    if not path.exists():
        return []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DamagedFileError(f"{path} cannot be read: {error.strerror}.") from error
    return [_read_record(path, number, line) for number, line in enumerate(lines[:-1], 1) if line]


def _read_record(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise DamagedFileError(f"{path} is damaged: its line {number} is no record.")
    return record


def read_newest(path: Path, name: str, most: int = 8192) -> float | None:
    """Read the newest number of a name from a .jsonl file that grows; None where its last bytes hold none.

    Args:
        path: The file. Another process may be writing it.
        name: The key of the number in a record.
        most: The number of bytes to read at the end of the file.
    """
    try:
        with open(path, "rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - most, 0))
            lines = file.read().split(b"\n")
    except OSError:
        return None
    for line in reversed(lines[:-1]):
        with contextlib.suppress(ValueError):  # the first line may lack its beginning
            record = json.loads(line)
            if isinstance(record, dict) and isinstance(record.get(name), int | float):
                return float(record[name])
    return None


def read_losses(folder: Path) -> list[float]:
    """Read the loss of every update, in order; [] where none were recorded."""
    try:
        data = (folder / "losses.f64").read_bytes()
    except OSError:
        return []
    return [value for (value,) in struct.iter_unpack("<d", data[: len(data) // 8 * 8])]
