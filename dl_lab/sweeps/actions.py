"""Decide what happens to each job of a sweep, from what its run folder holds."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path

from dl_lab.runs.claims import is_claimed
from dl_lab.runs.files import error_line, read_json, read_records
from dl_lab.runs.find import state_of
from dl_lab.sweeps.plan import Action, Sweep

ENDING_SECONDS = 3.0  # the processes of an earlier start of a sweep that was killed end within this time


def decide(sweep: Sweep, retry_failed: bool, joining: bool = False) -> None:
    """Decide what happens to every job, from what its folder holds: set its action and its reason.

    Args:
        sweep: The sweep.
        retry_failed: Run failed jobs again.
        joining: Other processes work on jobs of this sweep, and the caller knows on which.
    """
    deadline = time.monotonic() + ENDING_SECONDS
    for job in sweep.jobs:
        folder = sweep.folder / job.name
        if job.action == "leave":
            job.reason = "not in the grid as typed now"
        elif not joining and (process := _find_process(folder, deadline)):
            job.action, job.reason = "skip", f"running now in process {process}, of another command"
        else:
            job.action, job.reason = _decide_one(folder, retry_failed)


def _find_process(folder: Path, deadline: float) -> int:
    """Return the process of this machine that works in a job's folder, also after the deadline; 0 where none does.

    A number of a process alone says nothing: another program may have it now.
    """
    while folder.exists() and state_of(folder) == "running":
        status = read_json(folder / "status.json") or {}
        # What runs on another machine is an engine's job, which this command follows.
        if status.get("host") != socket.gethostname() or not is_claimed(folder):
            return 0
        if time.monotonic() >= deadline:
            return int(status["pid"])
        time.sleep(0.05)
    return 0


def _decide_one(folder: Path, retry_failed: bool) -> tuple[Action, str]:
    """Decide what happens to the job of a folder, and why."""
    if not folder.exists():
        return "run", "new"
    state = state_of(folder)
    status = read_json(folder / "status.json") or {}
    if state == "done":
        damage = find_damage(folder)
        return ("retry", damage) if damage else ("skip", f"done on {str(status.get('ended', ''))[:10]}")
    if state == "failed":
        reason = f"failed with {error_line(status) or 'unknown error'}"
        return "retry" if retry_failed else "skip", reason
    if (folder / "config.yaml").exists() and any(folder.glob("checkpoints/*.pt")):
        return "resume", _describe_progress(folder, state)
    if state == "pruned":
        return "skip", f"pruned: {status.get('reason', '')}"
    if state == "queued" or not (folder / "status.json").exists():
        return "run", "was queued, did not start"
    return "retry", f"{state} before the first checkpoint"


def _describe_progress(folder: Path, state: str) -> str:
    """Say how far an unfinished job came: "interrupted in epoch 3"."""
    try:
        records = read_records(folder / "metrics.jsonl")
    except ValueError:
        return f"{state}, with a damaged metrics.jsonl"
    epochs = [record["epoch"] for record in records if isinstance(record.get("epoch"), int)]
    return f"{state} in epoch {epochs[-1] + 1 if epochs else 1}"


def find_damage(folder: Path) -> str:
    """Find why a job that calls itself done does not count as finished.

    Args:
        folder: Its run folder.

    Returns:
        The reason; "" where status, weights and metrics can be read.
    """
    summary = read_json(folder / "summary.json")
    if summary is None or not isinstance(summary.get("metrics"), dict):
        return "its summary.json is not readable"
    try:
        read_records(folder / "metrics.jsonl")
    except ValueError:
        return "its metrics.jsonl is not readable"
    if "weights" in summary and not _is_safetensors(folder / "checkpoints" / "best.safetensors"):
        return "its weights are not readable"
    return ""


def _is_safetensors(path: Path) -> bool:
    """Whether the file's header is whole and the file as long as it says. It imports neither numpy nor torch."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return os.path.getsize(path) == 8 + length + max(ends, default=0)
    except (OSError, ValueError, KeyError, TypeError, MemoryError, OverflowError):
        return False
