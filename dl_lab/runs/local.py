"""The settings that `dl-lab tune` found on this machine: `local.yaml` in the user's folder of dl-lab.

The file has an entry for each machine and kind of job. An entry holds settings that change the speed of a job and no
value of its result. `dl-lab` uses them for such jobs unless the command line gives other values. This module imports no
torch.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dl_lab.project import user_folder
from dl_lab.runs.machine import cores, cpu_name
from dl_lab.types import ConfigError, UserError

HEAD = "# Written by dl-lab tune, used by dl-lab. `dl-lab tune --forget` deletes it.\n"


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


# The settings that an entry may have, with a check of their values. None of them changes a result (see keys.py).
SETTINGS: dict[str, Callable[[object], bool]] = {
    "threads": lambda value: _is_count(value, 1),
    "lanes": lambda value: _is_count(value, 1),
    "dataset.loading.residence": lambda value: value in ("auto", "device", "stream"),
    "dataset.loading.workers": lambda value: _is_count(value, 0),
    "dataset.workers": lambda value: _is_count(value, 0),
}


@dataclass(frozen=True)
class Entry:
    """The fastest settings for one kind of job.

    Attributes:
        job: The overrides of the measured job, for a reader.
        date: The date of the measurement, as YYYY-MM-DD.
        settings: The values by key. All keys are in SETTINGS.
    """

    job: str
    date: str
    settings: Mapping[str, object]


def path() -> Path:
    """Return the path of the file."""
    return user_folder() / "local.yaml"


def machine() -> str:
    """Return the name under which the entries of this machine stand. Several machines may share a home folder."""
    try:
        torch = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        torch = "none"
    return f"{cpu_name()}, {cores()} cores, torch {torch}"


def find(key: str) -> dict[str, object]:
    """Return the settings for a kind of job on this machine; {} where nothing was found.

    Args:
        key: The kind of job, from `configs.identity.cost_key`.

    Raises:
        ConfigError: The file cannot be read, or does not hold such settings.
    """
    if not path().exists():
        return {}
    entry = _read().get(machine(), {}).get(key)
    return {} if entry is None else dict(entry["settings"])


def keep(key: str, entry: Entry) -> Path:
    """Write the entry of a kind of job in the place of an older one. An entry without settings removes the older one.

    Returns:
        The file.

    Raises:
        ConfigError: The file exists and cannot be read.
        UserError: The file cannot be written.
    """
    import yaml

    known = _read() if path().exists() else {}
    jobs = {name: about for name, about in known.get(machine(), {}).items() if name != key}
    if entry.settings:
        jobs[key] = {"job": entry.job, "date": entry.date, "settings": dict(entry.settings)}
    known[machine()] = jobs
    known = {name: about for name, about in known.items() if about}
    if not known and not path().exists():
        return path()
    temporary = path().with_name(f".{path().name}.{os.getpid()}.tmp")
    try:
        path().parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(HEAD + yaml.safe_dump(known, sort_keys=False, allow_unicode=True), encoding="utf-8")
        os.replace(temporary, path())
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"Cannot write {path()}: {error.strerror}.") from error
    return path()


def forget() -> bool:
    """Delete the file, and return whether it existed."""
    try:
        path().unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise UserError(f"Cannot delete {path()}: {error.strerror}.") from error
    return True


def _read() -> dict[str, dict[str, Any]]:
    import yaml

    try:
        text = path().read_text(encoding="utf-8")
        content = yaml.safe_load(text) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path()} cannot be read: {str(error).partition(chr(10))[0]}. {REPAIR}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path()} is no mapping of machines. {REPAIR}")
    for jobs in content.values():
        if not isinstance(jobs, dict):
            raise ConfigError(f"{path()}: a machine is no mapping of jobs. {REPAIR}")
        for key, entry in jobs.items():
            _check(str(key), entry)
    return content


REPAIR = "Mend it, or delete it with:  dl-lab tune --forget"


def _check(key: str, entry: object) -> None:
    settings = entry.get("settings") if isinstance(entry, dict) else None
    if not isinstance(settings, dict):
        raise ConfigError(f"{path()}: the entry {key} has no mapping `settings`. {REPAIR}")
    for name, value in settings.items():
        if name not in SETTINGS:
            raise ConfigError(f"{path()}: {name} is no setting of this file; there are {', '.join(SETTINGS)}. {REPAIR}")
        if not SETTINGS[name](value):
            raise ConfigError(f"{path()}: {name} cannot be {value!r}. {REPAIR}")
