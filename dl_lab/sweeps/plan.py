"""The plan of a sweep: which jobs, what happens to each and why; written before the first one starts.

A sweep's folder holds sweep.yaml (the command, the grid, every job), configs.jsonl (each job's frozen config),
results.csv, and one run folder per job, `<number>_<id>`.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import yaml
from filelock import FileLock, Timeout

from dl_lab.run import now, read_json, read_records, state_of, to_json, write_atomic
from dl_lab.sweeps.grid import as_mapping
from dl_lab.sweeps.identity import cost_key
from dl_lab.types import UserError

Action = Literal["run", "skip", "resume", "retry", "leave"]
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass
class Job:
    """One job: what varies, its frozen config, and what is to happen to it."""

    number: int
    id: str
    overrides: list[str]  # what varies
    config: dict[str, Any]
    choices: dict[str, str]
    data: str = ""  # fingerprint of its data
    action: Action = "run"
    reason: str = ""
    estimate: float | None = None  # seconds
    files: dict[str, str] = field(default_factory=dict)  # what its folder holds besides: name -> text

    @property
    def name(self) -> str:
        return f"{self.number}_{self.id}"

    def entry(self) -> dict[str, Any]:
        return {"number": self.number, "id": self.id, "overrides": self.overrides, "data": self.data}


@dataclass
class Sweep:
    """A sweep and its folder."""

    folder: Path
    key: str
    command: str
    code: str
    jobs: list[Job]
    fixed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    search: dict[str, Any] = field(default_factory=dict)  # of a search: space, sampler, pruner, objective
    _lock: Any = None
    _noted: float = 0.0
    _rows: dict[int, dict[str, Any]] = field(default_factory=dict)  # of results.csv, by job

    def lock(self) -> None:
        """Hold the folder until the process ends. Raises UserError where another process has it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(self.folder / ".lock", blocking=False)
        try:
            self._lock.acquire()
        except Timeout:
            raise UserError(f"Another process is running this sweep now, in {self.folder}.") from None

    @contextlib.contextmanager
    def leaving_nothing(self) -> Iterator[None]:
        """A block before the plan is written: where it raises, a locked folder without a plan goes away again."""
        try:
            yield
        except BaseException:
            if self._lock is not None and self._lock.is_locked and not (self.folder / "sweep.yaml").exists():
                (self.folder / ".lock").unlink(missing_ok=True)
                self._lock.release()
                with contextlib.suppress(OSError):  # what else lies in it is not ours
                    self.folder.rmdir()
            raise

    def write(self) -> None:
        """sweep.yaml and configs.jsonl: all of the plan, before anything starts."""
        lines = [self._frozen(job) for job in self.jobs]
        write_atomic(self.folder / "configs.jsonl", "".join(lines), durable=True)
        self._write_plan()

    def add(self, job: Job) -> None:
        """A further job of a search, written before it starts."""
        self.jobs.append(job)
        with open(self.folder / "configs.jsonl", "a", encoding="utf-8") as file:
            file.write(self._frozen(job))
        self._write_plan()

    def _frozen(self, job: Job) -> str:
        return to_json({"number": job.number, "choices": job.choices, "config": job.config}) + "\n"

    def _write_plan(self) -> None:
        plan = {
            "key": self.key,
            "command": self.command,
            "written": now(),
            "code": self.code,
            "fixed": self.fixed,
            "notes": self.notes,
            **({"search": self.search} if self.search else {}),
            "jobs": [job.entry() for job in self.jobs],
        }
        write_atomic(self.folder / "sweep.yaml", yaml.dump(plan, Dumper=DUMPER, sort_keys=False), durable=True)

    def note_result(self) -> None:
        """Let results.csv grow, at most once a second."""
        if time.monotonic() - self._noted > 1:
            self.write_results()
            self._noted = time.monotonic()

    def write_results(self) -> Path:
        """results.csv: a row for each finished job, what varies first."""
        for job in self.jobs:
            summary = None if job.number in self._rows else read_json(self.folder / job.name / "summary.json")
            if summary is not None and state_of(self.folder / job.name) == "done":
                varying = as_mapping(job.overrides)
                self._rows[job.number] = {"job": job.number, "id": job.id, **varying, **summary.get("metrics", {})}
        rows = [self._rows[job.number] for job in self.jobs if job.number in self._rows]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns)
        writer.writeheader()
        writer.writerows(rows)
        path = self.folder / "results.csv"
        write_atomic(path, text.getvalue())
        return path


def sweep_key(fixed: Sequence[str], varying: Sequence[str]) -> str:
    """What makes it the same sweep typed again: the fixed overrides and the names of what varies."""
    ignored = (
        "lanes=",
        "on_failure=",
        "job_process=",
        "threads=",
        "paths.",
        "hydra.",
        "logger=",
        "trainer.device=",
        "launcher=",
        "launcher.",
        "n_trials=",
    )
    kept = sorted(word for word in fixed if not word.lstrip("+~").startswith(ignored))
    return hashlib.sha256(json.dumps([kept, sorted(varying)]).encode()).hexdigest()[:8]


def of_jobs(fixed: Sequence[str]) -> list[str]:
    """The fixed overrides without those that say how the sweep is run: what repeats one job of it alone."""
    how = (
        "launcher=",
        "launcher.",
        "search=",
        "search.",
        "pruner=",
        "pruner.",
        "n_trials=",
        "search_seed=",
        "objective=",
    )
    return [word for word in fixed if not word.lstrip("+~").startswith(how)]


# -- the sweep that was typed before ------------------------------------------------------------------------------


def find_sweep(root: Path, key: str) -> Path | None:
    """The newest folder under `root` of a sweep with this key."""
    found = [path.parent for path in root.glob(f"*/*_{key}*/sweep.yaml")]
    return max(found, default=None)


def new_folder(root: Path, key: str) -> Path:
    """outputs/sweeps/<date>/<time>_<key>, with a number where that exists already."""
    at = datetime.now()
    base = root / f"{at:%Y-%m-%d}" / f"{at:%H-%M-%S}_{key}"
    for i in range(1000):
        folder = base.with_name(base.name + (f"-{i}" if i else ""))
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"Cannot create the sweep folder {folder}: {error.strerror}.") from error
        return folder
    raise UserError(f"{base} exists a thousand times.")


def read_plan(folder: Path) -> dict[str, Any]:
    """The contents of sweep.yaml. Raises UserError where it is not readable."""
    try:
        plan = yaml.load((folder / "sweep.yaml").read_text(encoding="utf-8"), Loader=LOADER)  # noqa: S506
        plan["jobs"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(f"{folder / 'sweep.yaml'} is not a readable plan: use --new to start again.") from error
    return plan


def merge(folder: Path, sweep: Sweep, extend: bool, mixed_code: bool) -> Sweep:
    """The old sweep in `folder` with the new command's jobs: the same, or more of them with --extend.

    Raises UserError where the grid changed without `extend`, or where code or data changed (unless mixed_code).
    """
    plan = read_plan(folder)
    old = {tuple(entry["overrides"]): entry for entry in plan["jobs"]}
    new = {tuple(job.overrides): job for job in sweep.jobs}
    added, gone = [k for k in new if k not in old], [k for k in old if k not in new]
    if (added or gone) and not extend:
        parts = [
            f"{len(added)} new ({' '.join(added[0])} ...)" if added else "",
            f"{len(gone)} no longer asked for" if gone else "",
        ]
        raise UserError(
            f"This sweep was started before with another grid, in {folder}: jobs {' and '.join(filter(None, parts))}.\n"
            "  --extend adds the new jobs to it and leaves the others as they are; --new starts another sweep."
        )
    _refuse_changes(folder, plan, old, new, sweep.code, mixed_code)
    frozen = {entry["number"]: entry for entry in read_records(folder / "configs.jsonl")}
    jobs = []
    for overrides, entry in old.items():
        job = new.get(overrides)
        config, choices = (
            (job.config, job.choices)
            if job
            else (frozen[entry["number"]]["config"], frozen[entry["number"]]["choices"])
        )
        kept = Job(entry["number"], entry["id"], list(overrides), config, choices, entry.get("data", ""))
        kept.action = "run" if job else "leave"
        jobs.append(kept)
    next_number = max((job.number for job in jobs), default=-1) + 1
    for i, overrides in enumerate(added):
        new[overrides].number = next_number + i
        jobs.append(new[overrides])
    notes = plan.get("notes", []) + ([f"{now()}: goes on with other code ({sweep.code})"] if mixed_code else [])
    return Sweep(folder, sweep.key, sweep.command, plan["code"], jobs, sweep.fixed, notes)


def _refuse_changes(
    folder: Path, plan: Mapping[str, Any], old: Mapping, new: Mapping, code: str, mixed_code: bool
) -> None:
    both = [k for k in old if k in new]
    if any(old[k].get("data", "") != new[k].data for k in both):
        raise UserError(
            f"The data changed since this sweep started in {folder}: --new runs it again on what is there now."
        )
    refuse_other_code(folder, plan, code, mixed_code)
    if plan["code"] != code:
        return
    changed = [k for k in both if old[k]["id"] != new[k].id]
    if changed:
        raise UserError(
            f"The configs changed since this sweep started in {folder} (job {' '.join(changed[0])}): "
            "--new starts another."
        )


def refuse_other_code(folder: Path, plan: Mapping[str, Any], code: str, mixed_code: bool) -> None:
    """Raises UserError where dl-lab's code is not that of the sweep's start, unless mixed_code."""
    if plan["code"] != code and not mixed_code:
        raise UserError(
            f"dl-lab's code changed since this sweep started in {folder} ({plan['code']} is now {code}): --new runs "
            "all jobs again, --mixed-code keeps what is done and runs the rest with the code of now."
        )


# -- what happens to each job -------------------------------------------------------------------------------------


def decide(sweep: Sweep, retry_failed: bool) -> None:
    """Set action and reason of every job from what its folder holds."""
    for job in sweep.jobs:
        if job.action == "leave":
            job.reason = "not in the grid as typed now"
            continue
        folder = sweep.folder / job.name
        if not folder.exists():
            job.action, job.reason = "run", "new"
            continue
        state = state_of(folder)
        if state == "done":
            wrong = unreadable(folder)
            status = read_json(folder / "status.json") or {}
            job.action, job.reason = (
                ("retry", wrong) if wrong else ("skip", f"done on {str(status.get('ended', ''))[:10]}")
            )
        elif state == "failed":
            error = (read_json(folder / "status.json") or {}).get("error", {})
            last = str(error.get("message", "")).partition("\n")[0] or "unknown error"
            job.action, job.reason = ("retry" if retry_failed else "skip"), f"failed with {last}"
        elif (folder / "config.yaml").exists() and any(folder.glob("checkpoints/*.pt")):
            job.action, job.reason = "resume", _where(folder, state)
        elif state == "pruned":
            job.action, job.reason = "skip", f"pruned: {(read_json(folder / 'status.json') or {}).get('reason', '')}"
        elif state == "queued" or not (folder / "status.json").exists():
            job.action, job.reason = "run", "was queued, did not start"
        else:
            job.action, job.reason = "retry", f"{state} before the first checkpoint"


def _where(folder: Path, state: str) -> str:
    records = read_records(folder / "metrics.jsonl")
    return f"{state} in epoch {records[-1]['epoch'] + 1 if records else 1}"


def unreadable(folder: Path) -> str:
    """Why a job that calls itself done does not count as finished; "" where status, weights and metrics can be read."""
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
    """Whether the header is whole and the file as long as it says (without importing numpy or torch)."""
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        return os.path.getsize(path) == 8 + length + max(ends, default=0)
    except (OSError, ValueError, KeyError, TypeError, MemoryError, OverflowError):
        return False


def set_aside(folder: Path) -> None:
    """Move an older try out of the way: nothing is ever overwritten."""
    for i in range(1, 1000):
        target = folder.parent / "set_aside" / f"{folder.name}-{i}"
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            os.replace(folder, target)
            return


def estimate(jobs: Sequence[Job], outputs: Path) -> None:
    """Seconds of each job, from what epochs of the same kind took in earlier runs; None where there was none."""
    measured: dict[str, list[float]] = {}
    for path in outputs.glob("**/summary.json"):
        cost = (read_json(path) or {}).get("cost") or {}
        if cost.get("seconds") and cost.get("epochs"):
            measured.setdefault(cost["key"], []).append(cost["seconds"] / cost["epochs"])
    for job in jobs:
        if job.action in ("run", "resume", "retry"):
            per_epoch = sorted(measured.get(cost_key(job.config), []))
            epochs = (job.config["procedure"].get("trainer") or {}).get("max_epochs", 1)
            job.estimate = per_epoch[len(per_epoch) // 2] * epochs if per_epoch else None
