"""The jobs that another terminal adds to a sweep while it runs.

`dl-lab -m ... --extend` finds the sweep locked by the process that runs it. It then writes its new jobs into the folder
`queue` of the sweep, one file each. The running process takes them when a lane is free. The next start of the sweep
takes the jobs that it leaves there.

The running process closes the queue at its last look. A terminal that comes later waits until the sweep's lock is free.
Two steps must not mix: "look for jobs, then close the queue" in the running process, and "look whether the queue is
closed, then write a job" in the other terminal. A lock of the queue makes each of them one step.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from filelock import FileLock

from dl_lab.runs.files import as_mapping, read_json, write_atomic
from dl_lab.sweeps.plan import Job

FOLDER = "queue"
LOCK = ".queue.lock"
CLOSED = ".queue_closed"
ID = re.compile(r"[0-9a-f]{8}")
NO_NUMBER = -1  # a job gets its number when the sweep takes it


def offer(sweep_folder: Path, jobs: Sequence[Job]) -> bool:
    """Write jobs into the queue of a running sweep.

    Args:
        sweep_folder: The sweep's folder.
        jobs: The jobs.

    Returns:
        False where the sweep takes no more jobs.
    """
    with _hold(sweep_folder):
        if (sweep_folder / CLOSED).exists():
            return False
        folder = sweep_folder / FOLDER
        folder.mkdir(exist_ok=True)
        for i, job in enumerate(jobs):
            name = f"{time.time_ns()}_{i:05d}_{job.id}.json"  # sorted by name, the jobs keep their order
            write_atomic(folder / name, json.dumps(_to_entry(job)), durable=True)
    return True


def read(sweep_folder: Path, known: Collection[str] = ()) -> list[Job]:
    """Read the jobs that wait in the queue, in their order and without a number.

    Args:
        sweep_folder: The sweep's folder.
        known: The ids of jobs that the sweep has already. They are left out.
    """
    found: dict[str, Job] = {}
    for path in _list_files(sweep_folder):
        job = _from_entry(read_json(path) or {})
        if job is not None and job.id not in known:
            found.setdefault(job.id, job)
    return list(found.values())


def drop(sweep_folder: Path, ids: Collection[str]) -> None:
    """Remove jobs from the queue, because the sweep's plan has them now.

    Args:
        sweep_folder: The sweep's folder.
        ids: The ids of the jobs.
    """
    for path in _list_files(sweep_folder):
        if (read_json(path) or {}).get("id") in ids:
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # another terminal added a job meanwhile, or there is no queue
        (sweep_folder / FOLDER).rmdir()


def reopen(sweep_folder: Path) -> None:
    """Let other terminals add jobs from now on."""
    (sweep_folder / CLOSED).unlink(missing_ok=True)


def close(sweep_folder: Path, known: Collection[str], even_with_jobs: bool = False) -> bool:
    """Take no more jobs, unless one waits.

    Args:
        sweep_folder: The sweep's folder.
        known: The ids of jobs that the sweep has already.
        even_with_jobs: Close the queue although jobs wait: they are for the next start.

    Returns:
        False where a job waits and the queue stays open.
    """
    with _hold(sweep_folder):
        if read(sweep_folder, known) and not even_with_jobs:
            return False
        (sweep_folder / CLOSED).touch()
    return True


def _hold(sweep_folder: Path) -> FileLock:
    """Return the lock of the queue: nobody else adds to it or closes it meanwhile."""
    return FileLock(sweep_folder / LOCK)


def _list_files(sweep_folder: Path) -> list[Path]:
    return sorted((sweep_folder / FOLDER).glob("[0-9]*.json"))


def _to_entry(job: Job) -> dict[str, object]:
    return {
        **job.entry(),
        "choices": job.choices,
        "config": job.config,
        "facts": job.facts,
        "taken": str(job.taken.resolve()) if job.taken else "",
    }


def _from_entry(entry: Mapping[str, object]) -> Job | None:
    """Read a job of the queue; None for a file that holds no job."""
    id = entry.get("id")
    overrides = entry.get("overrides")
    config = entry.get("config")
    if not isinstance(id, str) or not ID.fullmatch(id) or not isinstance(overrides, list):
        return None
    if not isinstance(config, dict) or not isinstance(config.get("procedure"), dict):
        return None
    job = Job(NO_NUMBER, id, [str(word) for word in overrides], config, as_mapping(entry.get("choices")))
    job.data = str(entry.get("data", ""))
    job.own = str(entry.get("own", ""))
    job.facts = as_mapping(entry.get("facts"))
    job.added = True
    if entry.get("taken"):
        job.taken = Path(str(entry["taken"]))
        job.action = "take"
    return job
