"""One process at a time works in a run's folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from dl_lab.runs.files import read_json
from dl_lab.runs.find import is_alive, state_of
from dl_lab.types import UserError


def refuse_busy(folder: Path) -> None:
    """Refuse a run whose process is alive, because two processes would write into one folder.

    Raises:
        UserError: The process is alive, or status.json is not readable.
    """
    status = read_json(folder / "status.json")
    if status is None:
        raise UserError(f"{folder / 'status.json'} is not readable, so this run cannot be resumed.")
    if state_of(folder) in ("running", "queued") and "pid" in status and is_alive(status):
        raise UserError(_say_busy(folder, status))


def _say_busy(folder: Path, status: Mapping[str, object]) -> str:
    return f"{folder} is running (process {status.get('pid')} on {status.get('host')}): stop it first."


def is_claimed(folder: Path) -> bool | None:
    """Whether a process holds a run's folder; None where the file system cannot tell."""
    try:
        with _opened(folder) as opened:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep a run's folder to this process while the block runs.

    `refuse_busy` alone is not enough: status.json names a process that continues a run when the run begins, a second or
    two after its command. The lock is on the folder itself. It leaves no file, and the system takes it away when the
    process ends, however it ends. A file system that cannot lock folders (NFS) has only `refuse_busy`.

    Raises:
        UserError: Another process works in the folder.
    """
    with _opened(folder) as opened:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            status = read_json(folder / "status.json") or {}
            if state_of(folder) == "running":
                raise UserError(_say_busy(folder, status)) from None
            raise UserError(f"Another process continues {folder} now: wait until it has ended, or stop it.") from None
        except OSError:  # not on this file system
            pass
        yield


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int]:
    opened = os.open(folder, os.O_RDONLY)
    try:
        yield opened
    finally:
        os.close(opened)
