"""One process at a time works in a run's folder."""

from __future__ import annotations

import contextlib
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


def refuse_running(folder: Path) -> None:
    """Refuse the folder of a job that another command is running now. Such a job may be queued, by this sweep.

    Raises:
        UserError: The run's process is alive.
    """
    if state_of(folder) == "running":
        raise UserError(_say_busy(folder, read_json(folder / "status.json") or {}))


def _say_busy(folder: Path, status: Mapping[str, object]) -> str:
    return f"{folder} is running (process {status.get('pid')} on {status.get('host')}): stop it first."


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep a run's folder to this process while the block runs.

    Only `refuse_busy` is not enough: status.json names a process that continues a run when the run begins, a second or
    two after its command. The lock is on the folder itself. It leaves no file, and the system takes it away when the
    process ends, however it ends. A file system that cannot lock folders (NFS) and Windows have only `refuse_busy`.

    Raises:
        UserError: Another process works in the folder.
    """
    try:
        import fcntl

        opened = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    try:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            refuse_running(folder)
            raise UserError(f"Another process continues {folder} now: wait until it has ended, or stop it.") from None
        except OSError:  # not on this file system
            pass
        yield
    finally:
        os.close(opened)
