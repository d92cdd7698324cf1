"""Ask the earlier runs under the outputs: which jobs are done already, and how long does an epoch take?"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from dl_lab.configs import catalogue, identity
from dl_lab.configs.identity import cost_key
from dl_lab.configs.parts import trainer_of
from dl_lab.runs.files import as_mapping, read_json
from dl_lab.runs.find import find_runs, state_of
from dl_lab.sweeps.actions import find_damage
from dl_lab.sweeps.plan import RUNS, Job
from dl_lab.types import UserError

JOB_FOLDER = re.compile(r"\d+_([0-9a-f]{8})")  # <number>_<id>, in the folder of a sweep


def find_finished(outputs: Path, ids: Collection[str], code: str) -> dict[str, Path]:
    """Find finished runs with a readable result.

    Args:
        outputs: The folder of all runs.
        ids: The ids of the jobs asked for.
        code: The digest of dl-lab's code now. A single run of other code is another job.

    Returns:
        The folder of a finished run for each id that has one.
    """
    found: dict[str, Path] = {}
    for folder in find_runs(outputs):
        id = _id_of(folder, code)
        if id in ids and id not in found and state_of(folder) == "done" and not find_damage(folder):
            found[id] = folder
    return found


def take_finished(jobs: Sequence[Job], outputs: Path, code: str) -> None:
    """Take each job that would run from a finished run of the same job, where there is one.

    Args:
        jobs: The jobs of a sweep.
        outputs: The folder of all runs.
        code: The digest of the sweep's code.
    """
    new = {job.id for job in jobs if job.action == "run"}
    finished = find_finished(outputs, new, code) if new else {}
    for job in jobs:
        if job.action == "run" and job.id in finished:
            job.action = "take"
            job.taken = finished[job.id]
            job.reason = f"from {job.taken}"


def _id_of(folder: Path, code: str) -> str:
    """Return the job id of a run: for a job of a sweep from its folder's name, else from its config, code and data.

    It is "" for a run of other code, and for a folder that cannot be read.
    """
    if (folder.parent / "sweep.yaml").exists():
        match = JOB_FOLDER.fullmatch(folder.name)
        return match[1] if match else ""
    environment = read_json(folder / "env.json") or {}
    if environment.get("code") != code:
        return ""
    path = folder / "config.yaml"
    try:
        config = catalogue.parse(catalogue.read_text(path), path)
    except UserError:
        return ""
    if not isinstance(config.get("procedure"), Mapping):
        return ""
    data = identity.combine(environment.get("data_files", {}))
    return identity.job_id(config, code, data, identity.combine(environment.get("own_code", {})))


def estimate(jobs: Sequence[Job], outputs: Path) -> None:
    """Estimate the seconds of each job that will run, from the epochs of earlier runs of the same kind.

    Args:
        jobs: The jobs. `Job.estimate` becomes the seconds, None where no earlier run is of its kind.
        outputs: The folder of all runs.
    """
    seconds: dict[str, list[float]] = {}  # of an epoch, by the kind of run
    for path in outputs.glob("**/summary.json"):
        cost = as_mapping((read_json(path) or {}).get("cost"))
        if cost.get("seconds") and cost.get("epochs"):
            seconds.setdefault(cost["key"], []).append(cost["seconds"] / cost["epochs"])
    for job in jobs:
        if job.action in RUNS:
            measured = sorted(seconds.get(cost_key(job.config), []))
            n_epochs = trainer_of(job.config).get("max_epochs", 1)
            job.estimate = measured[len(measured) // 2] * n_epochs if measured else None
