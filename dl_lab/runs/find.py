"""Find run folders, and tell the state of each.

Any program may have written a `status.json`. So no content of such a file raises an error here.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import socket
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from dl_lab.runs.files import parse_time, read_json
from dl_lab.runs.formats import is_newer, refuse_newer
from dl_lab.types import UserError

STALE_SECONDS = 60.0
SLACK_SECONDS = 5.0  # of the clocks that tell the age of a process and of a heartbeat
STATES = ("queued", "running", "done", "failed", "interrupted", "pruned")
RESUMABLE = ("interrupted", "killed")
# Names that end with an id: 14-03-22_1f0c9a2b of a run or a sweep, 3_1f0c9a2b of a job of a sweep, and cnn_1f0c9a2b,
# which a user makes with ${run_id:}. There the id needs a letter, because cnn_20261201 ends with a date.
WITH_ID = re.compile(r"(?:(?:\d\d-\d\d-\d\d|\d+)_|.*_(?=\d*[a-f]))([0-9a-f]{8}(?:-\d+)?)")


def short_name(folder: Path) -> str:
    """Return the name by which a run or a sweep is shown and found.

    Returns:
        The id (of a sweep: the key) at the end of the folder's name; the whole name where it has none, because a user
        gave it with hydra.run.dir or hydra.sweep.dir.
    """
    given = WITH_ID.fullmatch(folder.name)
    return given[1] if given else folder.name


def state_of(folder: Path) -> str:
    """Return the state of a run.

    Returns:
        The state in status.json; "killed" where that is "running" or "queued" but the process is gone; "newer" for a
        folder of a newer dl-lab; "unreadable" where the file is missing or holds no state that dl-lab writes.
    """
    status = read_json(folder / "status.json") or {}
    if is_newer(status):
        return "newer"
    state = status.get("state")
    if state not in STATES:
        return "unreadable"
    if state in ("running", "queued") and "pid" in status and not is_alive(status):
        return "killed"
    return state


def is_alive(status: Mapping[str, object]) -> bool:
    """Whether the process of a status lives: by its pid on this machine, elsewhere by the heartbeat's age."""
    beat = parse_time(status.get("heartbeat"))
    quiet = None if beat is None else (datetime.now(UTC) - beat).total_seconds()
    if status.get("host") == socket.gethostname():
        pid = status.get("pid")
        if not isinstance(pid, int) or not _process_exists(pid):
            return False
        # A process that is younger than the heartbeat did not write it: it has the number of one that is gone. A
        # container that is started again gives the same numbers.
        return quiet is None or quiet < _seconds_since_start(pid) + SLACK_SECONDS
    # A heartbeat far in the future was written before a clock was set back. It does not show that the process lives.
    return quiet is not None and abs(quiet) < STALE_SECONDS


def _seconds_since_start(pid: int) -> float:
    """Return the age of a process of this machine; infinite where the system does not tell (see proc(5))."""
    with contextlib.suppress(OSError, ValueError, IndexError, AttributeError):
        ticks = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])  # starttime, the 22nd field
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return math.inf


def _process_exists(pid: int) -> bool:
    if pid <= 0:  # os.kill would take it for a group of processes
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    with contextlib.suppress(OSError):  # a zombie, which nobody has waited for, counts as gone
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return True


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's: it has a config beside its status, or a status with a state that dl-lab writes."""
    if not (folder / "status.json").is_file():
        return False
    return (folder / "config.yaml").is_file() or state_of(folder) != "unreadable"


def find_runs(outputs: Path) -> list[Path]:
    """List the run folders under a folder, sorted by path, which begins with date and time. This follows no links."""
    found = []
    for path, folders, files in os.walk(outputs):
        folders.sort()
        if "status.json" in files and is_run(Path(path)):
            found.append(Path(path))
            folders.clear()  # no run lies in another one
    return sorted(found)


def find_newest_run(outputs: Path) -> Path | None:
    """Find the run that was started or resumed last; None where there is none."""
    runs = find_runs(outputs)
    return max(runs, key=lambda run: (started_of(run), run), default=None)


def started_of(folder: Path) -> datetime:
    """Return when a run started or, where it has not started yet, when it was queued."""
    status = read_json(folder / "status.json") or {}
    time = parse_time(status.get("started")) or parse_time(status.get("heartbeat"))
    return time or datetime.min.replace(tzinfo=UTC)


def find_run(text: str, outputs: Path) -> Path:
    """Find the run that a text names.

    Args:
        text: The run's folder, (the start of) its short name (see `short_name`), or "last".
        outputs: The folder of the runs.

    Raises:
        UserError: No run, or more than one, has this name; or a newer dl-lab wrote the run.
    """
    folder = _find_folder(text, outputs)
    refuse_newer(folder, read_json(folder / "status.json") or {})
    return folder


def weights_of(folder: Path) -> Path:
    """Return the file with the weights that the run's test used."""
    kind = (read_json(folder / "summary.json") or {}).get("weights", "best")
    return folder / "checkpoints" / f"{kind}.safetensors"


def start_weights(source: str, outputs: Path) -> Path:
    """Return the file with the weights that `learner.start_from` names.

    Args:
        source: A safetensors file, or a run (see `find_run`).
        outputs: The folder of the runs.

    Raises:
        UserError: There is no such run.
    """
    if source.endswith(".safetensors"):
        return Path(source).expanduser()
    return weights_of(find_run(source, outputs))


def _find_folder(text: str, outputs: Path) -> Path:
    if (Path(text) / "status.json").exists():
        return Path(text)
    if Path(text).is_dir():
        raise UserError(f"{text} is not a run's folder: it has no status.json.{_name_jobs(Path(text))}")
    if text == "last" and (newest := find_newest_run(outputs)):
        return newest
    runs = find_runs(outputs)
    if not runs:
        raise UserError(no_runs(outputs))
    names = {run: short_name(run) for run in runs}
    found = [run for run in runs if names[run] == text] or [run for run in runs if text and names[run].startswith(text)]
    if len(found) == 1:
        return found[0]
    if found:
        more = " ..." if len(found) > 4 else ""
        raise UserError(f"{text!r} fits {len(found)} runs: {', '.join(map(str, found[:4]))}{more}. Give the folder.")
    sweeps = {run.parent for run in runs if text and short_name(run.parent).startswith(text)}
    if len(sweeps) == 1:
        raise UserError(f"{text} is a sweep, and no run.{_name_jobs(sweeps.pop())}")
    raise UserError(f"No run {text!r} under {outputs}: give its folder, or the name that `dl-lab runs` shows.")


def no_runs(outputs: Path) -> str:
    """Say that there are no runs, and how to make one."""
    return f"There are no runs under {outputs} yet. Make one:  dl-lab"


def _name_jobs(folder: Path) -> str:
    """Say which runs a folder holds: a sentence with the first ones, "" where there are none."""
    runs = find_runs(folder)
    if not runs:
        return ""
    if len(runs) == 1:
        return f" Give its run: {runs[0]}"
    more = " ..." if len(runs) > 2 else ""
    return f" Give one of its {len(runs)} runs: {', '.join(map(str, runs[:2]))}{more}"
