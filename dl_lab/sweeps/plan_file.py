"""The files that hold the plan of a sweep, sweep.yaml and configs.jsonl: their shape, and how they are read."""

from __future__ import annotations

from pathlib import Path
from typing import NotRequired, TypedDict, cast

import yaml

from dl_lab.runs.anchors import load_yaml
from dl_lab.runs.files import read_records
from dl_lab.types import UserError


class Entry(TypedDict):
    """A job in sweep.yaml.

    Attributes:
        number: The number of the job, from 0.
        id: Equal for jobs that give the same result (`identity.job_id`).
        overrides: The words that vary.
        data: The digest of its data files.
        own: The digest of the user's own code that it runs.
        added: Another terminal added the job while the sweep ran.
    """

    number: int
    id: str
    overrides: list[str]
    data: NotRequired[str]
    own: NotRequired[str]
    added: NotRequired[bool]


class Plan(TypedDict):
    """The content of sweep.yaml.

    Attributes:
        key: See `sweep_key`.
        command: What the user typed.
        written: When the file was written.
        code: The digest of dl-lab's code at the sweep's start.
        fixed: The overrides of every job.
        notes: What happened to the sweep, one sentence each.
        jobs: The jobs.
        replicates: Keys that repeat a setting, as seeds do.
        search: For a search: space, sampler, pruner and objective.
    """

    key: str
    command: str
    written: str
    code: str
    fixed: list[str]
    notes: list[str]
    jobs: list[Entry]
    replicates: NotRequired[list[str]]
    search: NotRequired[dict[str, object]]


def empty_plan() -> Plan:
    """Return the plan of a sweep without jobs."""
    return {"key": "", "command": "", "written": "", "code": "", "fixed": [], "notes": [], "jobs": []}


class Frozen(TypedDict):
    """A job in configs.jsonl.

    Attributes:
        number: The number of the job.
        choices: The chosen option of each config group.
        config: Its resolved config.
    """

    number: int
    choices: dict[str, str]
    config: dict[str, object]


def read_plan(folder: Path) -> Plan:
    """Read the plan of a sweep.

    Args:
        folder: The sweep's folder.

    Raises:
        UserError: sweep.yaml is not readable.
    """
    try:
        plan = load_yaml((folder / "sweep.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise _unreadable_plan(folder) from error
    if not isinstance(plan, dict) or not isinstance(plan.get("jobs"), list) or not all(map(_is_entry, plan["jobs"])):
        raise _unreadable_plan(folder)
    return cast(Plan, empty_plan() | plan)


def _unreadable_plan(folder: Path) -> UserError:
    return UserError(f"{folder / 'sweep.yaml'} is not a readable plan: use --new to start again.")


def _is_entry(entry: object) -> bool:
    """Whether an entry of sweep.yaml has what every reader of a plan needs."""
    if not isinstance(entry, dict) or not isinstance(entry.get("overrides"), list):
        return False
    return isinstance(entry.get("number"), int) and isinstance(entry.get("id"), str)


def read_frozen(folder: Path) -> dict[int, Frozen]:
    """Read the frozen configs of a sweep's jobs (configs.jsonl).

    Args:
        folder: The sweep's folder.

    Returns:
        The frozen config of each job, by its number.

    Raises:
        UserError: A line of the file is damaged.
    """
    path = folder / "configs.jsonl"
    frozen: dict[int, Frozen] = {}
    for line, entry in enumerate(read_records(path), 1):
        if not isinstance(entry.get("number"), int) or not isinstance(entry.get("config"), dict):
            raise UserError(f"{path} is damaged: its line {line} is no job.")
        frozen[entry["number"]] = cast(Frozen, entry)
    return frozen
