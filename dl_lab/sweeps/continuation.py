"""Continue a sweep that was typed before: find its folder, and match its jobs with those asked for now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from dl_lab.datasets.contents import MISSING
from dl_lab.runs.files import as_mapping, now, read_json
from dl_lab.sweeps import queue
from dl_lab.sweeps.plan import LOCK, Job, Sweep, hold
from dl_lab.sweeps.plan_file import Entry, Frozen, Plan, read_frozen, read_plan
from dl_lab.types import UserError

MOST_NAMED = 3  # missing files in a message


def find_sweep(root: Path, key: str, ids: Sequence[str] = ()) -> Path | None:
    """Find the folder of a sweep: the newest one with exactly these jobs, else the newest one with this key.

    Args:
        root: The folder of all sweeps.
        key: The sweep's key (`plan.sweep_key`).
        ids: The ids of the jobs asked for.
    """
    found = sorted((path.parent for path in root.glob(f"*/*_{key}*/sweep.yaml")), reverse=True)
    if not found:
        return None
    if len(found) > 1:
        for folder in found:
            if {entry["id"] for entry in read_plan(folder)["jobs"]} == set(ids):
                return folder
    return found[0]


def find_starting(root: Path, key: str) -> Path | None:
    """Find the folder of a sweep that another process starts now: the process holds it and has not written its plan.

    Args:
        root: The folder of all sweeps.
        key: The sweep's key (`plan.sweep_key`).
    """
    for path in sorted(root.glob(f"*/*_{key}*/{LOCK}"), reverse=True):
        if (path.parent / "sweep.yaml").exists():
            continue
        lock = hold(path.parent)
        if lock is None:
            return path.parent
        lock.release()
    return None


def read_known(folder: Path) -> Plan:
    """Read the plan of a sweep, with the jobs of its queue: another terminal added them, and they still wait.

    Args:
        folder: The sweep's folder.

    Raises:
        UserError: The plan is not readable.
    """
    plan = read_plan(folder)
    number = max((entry["number"] for entry in plan["jobs"]), default=-1)
    for job in queue.read(folder, {entry["id"] for entry in plan["jobs"]}):
        number += 1
        plan["jobs"].append(replace(job, number=number).entry())
    return plan


def words_of_added(known: Plan, jobs: Sequence[Job]) -> list[list[str]]:
    """Return the overrides of the jobs that another terminal added: the old command continues them too.

    Args:
        known: The old plan (`read_known`).
        jobs: The jobs of the command typed now. What is among them is left out.
    """
    ids = {job.id for job in jobs}
    typed = [job.overrides for job in jobs]
    words = []
    for entry in known["jobs"]:
        if entry.get("added") and entry["id"] not in ids and entry["overrides"] not in typed:
            words.append(list(entry["overrides"]))
    return words


def merge(sweep: Sweep, plan: Plan, extend: bool, mixed_code: bool) -> Sweep:
    """Merge the jobs asked for now into the old sweep: the same jobs, or more of them with --extend.

    A job asked for now is an old one if it has the same overrides or the same id (`optimizer.lr=0.1` and `1e-1`).

    Args:
        sweep: The jobs asked for now, in the folder of the old sweep.
        plan: The old plan (`read_known`). The new jobs follow its jobs.
        extend: New jobs may be added.
        mixed_code: The code may have changed.

    Raises:
        UserError: The grid changed without `extend`, or the code or the data changed.
    """
    folder = sweep.folder
    matches = _match(plan["jobs"], sweep.jobs)
    matched = {job.number for job in matches.values()}
    added = [job for job in sweep.jobs if job.number not in matched]
    n_gone = len(plan["jobs"]) - len(matches)
    if (added or n_gone) and not extend:
        raise UserError(_describe_other_grid(folder, added, n_gone))
    _refuse_changes(folder, plan, matches, sweep.code, mixed_code)
    frozen = read_frozen(folder)
    jobs = [_plan_again(entry, matches.get(entry["number"]), frozen) for entry in plan["jobs"]]
    next_number = max((job.number for job in jobs), default=-1) + 1
    jobs += [replace(job, number=next_number + i) for i, job in enumerate(added)]
    notes = list(plan["notes"])
    if mixed_code:
        notes.append(f"{now()}: continued with other code ({sweep.code})")
    return replace(sweep, code=plan["code"], jobs=jobs, notes=notes)


def _describe_other_grid(folder: Path, added: Sequence[Job], n_gone: int) -> str:
    parts = []
    if added:
        parts.append(f"{len(added)} new ({' '.join(added[0].overrides)} ...)")
    if n_gone:
        parts.append(f"{n_gone} no longer asked for")
    return (
        f"This sweep was started before with another grid, in {folder}: jobs {' and '.join(parts)}.\n"
        "  --extend adds the new jobs to it and leaves the others as they are; --new starts another sweep."
    )


def _match(entries: Sequence[Entry], jobs: Sequence[Job]) -> dict[int, Job]:
    """Match each old job, by its number, with the same job asked for now."""
    by_words = {tuple(job.overrides): job for job in jobs}
    matches: dict[int, Job] = {}
    for entry in entries:
        words = tuple(entry["overrides"])
        if words in by_words:
            matches[entry["number"]] = by_words[words]
    taken = {job.number for job in matches.values()}
    by_id = {job.id: job for job in jobs if job.number not in taken}
    for entry in entries:
        if entry["number"] not in matches and entry["id"] in by_id:
            matches[entry["number"]] = by_id.pop(entry["id"])
    return matches


def _plan_again(entry: Entry, job: Job | None, frozen: Mapping[int, Frozen]) -> Job:
    """Plan an old job as it is asked for now.

    Args:
        entry: The job in the old plan.
        job: The same job asked for now; None where it is not asked for.
        frozen: The frozen configs of the old sweep.
    """
    if job is None:
        known = frozen[entry["number"]]
        config = known["config"]
        choices = known["choices"]
    else:
        config = job.config
        choices = job.choices
    kept = Job(entry["number"], entry["id"], list(entry["overrides"]), config, choices, entry.get("data", ""))
    kept.own = entry.get("own", "")
    kept.added = entry.get("added", False)
    if job is None:
        kept.action = "leave"
    else:
        kept.facts = job.facts
    return kept


# -- changes since the start --------------------------------------------------------------------------------------


def _refuse_changes(folder: Path, plan: Plan, matches: Mapping[int, Job], code: str, mixed_code: bool) -> None:
    """Refuse to continue where the data, the code or the configs of a job changed."""
    both = [(entry, matches[entry["number"]]) for entry in plan["jobs"] if entry["number"] in matches]
    for entry, job in both:
        refuse_other_data(folder, entry, job.data, job.facts.get("data_files", {}))
    refuse_other_code(folder, plan, code, mixed_code)
    for entry, job in both:
        refuse_other_own_code(folder, entry, job.own, mixed_code)
    if plan["code"] != code:  # with other code, ids differ anyway: they tell nothing about the configs
        return
    for entry, job in both:
        if entry["id"] != job.id and entry.get("own", "") == job.own:
            raise UserError(
                f"The configs changed since this sweep started in {folder} (job {' '.join(entry['overrides'])}): "
                "--new starts another."
            )


def refuse_other_code(folder: Path, plan: Plan, code: str, mixed_code: bool) -> None:
    """Refuse where dl-lab's code changed since the sweep started.

    Args:
        folder: The sweep's folder.
        plan: The sweep's plan.
        code: The digest of the code now.
        mixed_code: Accept other code.

    Raises:
        UserError: The code changed.
    """
    if plan["code"] != code and not mixed_code:
        raise UserError(
            f"dl-lab's code changed since this sweep started in {folder} ({plan['code']} is now {code}): --new runs "
            "all jobs again, --mixed-code keeps finished jobs and runs the rest with the present code."
        )


def refuse_other_data(folder: Path, entry: Entry, data: str, files: Mapping[str, str]) -> None:
    """Refuse where a job's data files changed since it was planned.

    Args:
        folder: The sweep's folder.
        entry: The job in the sweep's plan.
        data: The digest of the job's data now.
        files: The digest of each of its files now.

    Raises:
        UserError: The data changed, or files are missing.
    """
    if entry.get("data", "") == data:
        return
    missing = _find_missing(folder, entry, files)
    if missing:
        raise UserError(
            f"Data of job {entry['number']} of {folder} are missing here ({', '.join(missing[:MOST_NAMED])}): put them "
            "into the data folder, or set DL_LAB_DATA to the folder that holds them."
        )
    raise UserError(
        f"The data of job {entry['number']} changed since this sweep started in {folder}: --new runs all jobs again on "
        "the present data."
    )


def _find_missing(folder: Path, entry: Entry, files: Mapping[str, str]) -> list[str]:
    """Find the data files of a job that are missing now. Those of a job that began are in its env.json."""
    environment = read_json(folder / f"{entry['number']}_{entry['id']}" / "env.json") or {}
    needed = {**files, **as_mapping(environment.get("data_files"))}
    return [name for name in needed if files.get(name, MISSING) == MISSING]


def refuse_other_own_code(folder: Path, entry: Entry, own: str, mixed_code: bool) -> None:
    """Refuse where the user's own code of a job changed since the sweep started.

    Args:
        folder: The sweep's folder.
        entry: The job in the sweep's plan.
        own: The digest of the code now.
        mixed_code: Accept other code.

    Raises:
        UserError: The code changed.
    """
    if entry.get("own", "") != own and not mixed_code:
        raise UserError(
            f"Your own code that job {entry['number']} runs changed since this sweep started in {folder}: --new runs "
            "all jobs again, --mixed-code keeps finished jobs and runs the rest with the present code."
        )
