"""The version of a run folder's format, which tells whether this dl-lab can read the folder.

status.json, the first file of a folder, names the version. dl-lab 0.1 wrote none: its folders have version 1. Version 2
names components by the package layout of dl-lab 0.2; `configs/older.py` translates older names. The number grows
whenever an older dl-lab could misread a folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dl_lab.types import UserError

FORMAT = 2
FORMAT_WITHOUT_NAME = 1


def format_of(status: Mapping[str, object]) -> int:
    """Return the version that a status names. Anything but a number counts as newer: this dl-lab never wrote it."""
    version = status.get("format", FORMAT_WITHOUT_NAME)
    return version if isinstance(version, int) else FORMAT + 1


def is_newer(status: Mapping[str, object]) -> bool:
    """Whether a newer dl-lab wrote this status."""
    return format_of(status) > FORMAT


def refuse_newer(folder: Path, status: Mapping[str, object]) -> None:
    """Refuse the folder of a run that a newer dl-lab wrote.

    Raises:
        UserError: The format is newer than this dl-lab reads.
    """
    if is_newer(status):
        raise UserError(
            f"{folder} was written by a newer dl-lab: its format is {status['format']}, and this dl-lab reads up to "
            f"{FORMAT}. Update dl-lab to open it."
        )
