"""What came out of a sweep: its jobs as records, grouped by their settings.

This file reads the sweep's folder only; it imports no torch.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dl_lab.runs import records
from dl_lab.runs.find import find_newest_run, find_run, find_runs, short_name, started_of
from dl_lab.runs.records import Record
from dl_lab.sweeps.plan_file import Plan, empty_plan, read_plan
from dl_lab.sweeps.results.groups import Group, group, write_setting
from dl_lab.types import UserError


@dataclass(frozen=True)
class Outcome:
    """The jobs of a sweep, or of several together.

    Attributes:
        folder: The sweep's folder; of several, the first one's.
        plan: The sweep's plan; of several, the first one's.
        groups: The settings with a finished job, in the order of the grid.
        unfinished: The jobs that began and are not done.
        not_started: How many jobs have not begun.
        over: The keys whose values are replicates, besides seeds.
    """

    folder: Path
    plan: Plan
    groups: tuple[Group, ...]
    unfinished: tuple[Record, ...]
    not_started: int
    over: tuple[str, ...] = ()

    @property
    def records(self) -> list[Record]:
        """The finished jobs."""
        return [record for group in self.groups for record in group.records]

    @property
    def paths(self) -> list[str]:
        """The keys that tell the settings apart."""
        return list(self.groups[0].values)

    @functools.cached_property
    def metrics(self) -> list[str]:
        """The metrics that any finished job measured."""
        return records.metric_names(self.records)

    @functools.cached_property
    def lost(self) -> list[Lost]:
        """The settings without a finished job."""
        known = {repr(list(group.values.values())) for group in self.groups}
        found: dict[str, list[Record]] = {}
        for record in self.unfinished:
            name = write_setting(record, self.paths)
            if name not in known:
                found.setdefault(name, []).append(record)
        lost = []
        for same in found.values():
            values = {path: same[0].config.get(path) for path in self.paths}
            lost.append(Lost(values, _reason(same[0]), len(same)))
        return lost

    def blocks(self) -> list[Outcome]:
        """Divide the jobs by data set and watched metric: only what was measured alike can be ranked."""
        parts: dict[tuple[str, str], list[Record]] = {}
        for record in self.records:
            parts.setdefault(_data_and_metric(record), []).append(record)
        if len(parts) < 2:
            return [self]
        blocks = []
        for name, members in parts.items():
            unfinished = [record for record in self.unfinished if _data_and_metric(record) == name]
            blocks.append(self.part(members, unfinished))
        return blocks

    def part(self, found: Sequence[Record], unfinished: Sequence[Record]) -> Outcome:
        """Return the outcome of some of the jobs alone.

        Args:
            found: The finished jobs of the part.
            unfinished: Its jobs that are not done.
        """
        groups = tuple(group(found, self.over, unfinished))
        return replace(self, groups=groups, unfinished=tuple(unfinished), not_started=0)


@dataclass(frozen=True)
class Lost:
    """A setting without a finished job.

    Attributes:
        values: The setting's values that tell it from the others, by dotted key.
        reason: Why its first job ended.
        n: How many jobs it has.
    """

    values: Mapping[str, object]
    reason: str
    n: int


def _data_and_metric(record: Record) -> tuple[str, str]:
    """Return the data set of a job, and the metric that it watches."""
    return record.data, str(record.config.get("trainer.monitor", ""))


def _reason(record: Record) -> str:
    return f"{record.state}: {record.error}" if record.error else record.state


# -- find and read ------------------------------------------------------------------------------------------------


def is_sweep(folder: Path) -> bool:
    """Whether a folder is that of a sweep."""
    return (folder / "sweep.yaml").is_file()


def find_sweep(text: str, outputs: Path) -> Path:
    """Find the sweep that a text names.

    Args:
        text: A folder, (the start of) a folder's short name (see `short_name`), or "last": the sweep whose job
            started last.
        outputs: The folder of all runs.

    Raises:
        UserError: No sweep has this name, or several have.
    """
    if is_sweep(Path(text)):
        return Path(text)
    if Path(text).is_dir():
        raise UserError(f"{text} is not a sweep's folder: it has no sweep.yaml.")
    folders = sorted(path.parent for path in outputs.glob("**/sweep.yaml"))
    if not folders:
        raise UserError(f"There are no sweeps under {outputs} yet. Make one:  dl-lab -m seed=0,1,2")
    if text == "last":
        jobs = [run for run in find_runs(outputs) if is_sweep(run.parent)]
        newest = max(jobs, key=lambda run: (started_of(run), run), default=None)
        return newest.parent if newest is not None else folders[-1]
    found = [folder for folder in folders if short_name(folder) == text]
    found = found or [folder for folder in folders if short_name(folder).startswith(text)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{text!r} fits {len(found)} sweeps: {', '.join(map(str, found[:4]))}: give the folder.")
    raise UserError(f"There is no sweep {text!r} under {outputs}: give its folder, or the key at the end of its name.")


def find_sweep_or_none(text: str, outputs: Path) -> Path | None:
    """Find the sweep that a text names; None where the text names none (a run, perhaps).

    "last" is the sweep of the run that started last, where that run is a job of one.

    Args:
        text: See `find_sweep`.
        outputs: The folder of all runs.

    Raises:
        UserError: Several sweeps have this name.
    """
    if is_sweep(Path(text)):
        return Path(text)
    if text == "last":
        newest = find_newest_run(outputs)
        return newest.parent if newest is not None and is_sweep(newest.parent) else None
    names = [short_name(path.parent) for path in outputs.glob("**/sweep.yaml")]
    if Path(text).is_dir() or not any(name.startswith(text) for name in names):
        return None
    return find_sweep(text, outputs)


def find_sweep_or_run(text: str, outputs: Path) -> Path:
    """Find the folder of the sweep or of the run that a text names.

    Args:
        text: A folder, a key or an id; "last" is the run that started last, or the sweep to which it belongs.
        outputs: The folder of all runs.

    Raises:
        UserError: No sweep and no run has this name, or several have.
    """
    return find_sweep_or_none(text, outputs) or find_run(text, outputs)


def read(folder: Path, over: Sequence[str] = ()) -> Outcome:
    """Read the outcome of a sweep.

    Args:
        folder: The sweep's folder.
        over: Keys whose values are replicates, besides seeds and those that the sweep declares. The last part of a
            key is enough.

    Raises:
        UserError: The plan is not readable, no job is done, or no such key varies.
    """
    return read_several([folder], (), over)


def read_several(sweeps: Sequence[Path], runs: Sequence[Path] = (), over: Sequence[str] = ()) -> Outcome:
    """Read several sweeps and single runs as one. A job that two sweeps share (a link) counts once.

    Args:
        sweeps: The folders of the sweeps.
        runs: The folders of single runs.
        over: See `read`.

    Raises:
        UserError: A plan is not readable, no job is done, or no such key varies.
    """
    plans = [read_plan(folder) for folder in sweeps]
    folders = _find_folders(sweeps, plans, runs)
    there = [records.read(folder) for folder in folders if folder.is_dir()]
    done: list[records.Record] = []
    others: list[records.Record] = []
    for record in there:
        is_done = record.state == "done" and record.metrics and "seed" in record.config
        (done if is_done else others).append(record)
    unfinished = tuple(others)
    n_missing = len(folders) - len(there)
    if not done:
        named = ", ".join(map(str, sweeps))
        reason = next((f" The first error: {record.error}" for record in unfinished if record.error), "")
        raise UserError(f"No job of {named} is done yet ({words(unfinished, n_missing)}).{reason}")
    declared: list[str] = []
    for plan in plans:
        declared += [key for key in plan.get("replicates", []) if key in done[0].config]
    keys = tuple(dict.fromkeys([*declared, *_find_keys(over, done)]))
    groups = tuple(group(done, keys, unfinished))
    first = [*sweeps, *runs][0]
    return Outcome(first, plans[0] if plans else empty_plan(), groups, unfinished, n_missing, keys)


def _find_folders(sweeps: Sequence[Path], plans: Sequence[Plan], runs: Sequence[Path]) -> list[Path]:
    """Return the folder of each job and run once, in their order."""
    folders: dict[Path, Path] = {}
    for sweep, plan in zip(sweeps, plans, strict=True):
        seen: set[str] = set()
        for job in plan["jobs"]:
            if job["id"] in seen:  # two spellings of one job, in a sweep of an older version
                continue
            seen.add(job["id"])
            folder = sweep / f"{job['number']}_{job['id']}"
            folders.setdefault(folder.resolve(), folder)
    for folder in runs:
        folders.setdefault(folder.resolve(), folder)
    return list(folders.values())


def _find_keys(names: Sequence[str], found: Sequence[Record]) -> list[str]:
    """Return the full keys that the user's names stand for."""
    differing = records.differing(found)
    keys = []
    for name in names:
        fitting = [path for path in differing if path == name or path.endswith(f".{name}")]
        if not fitting:
            known = ", ".join(differing) or "nothing"
            raise UserError(f"--over {name}: no key of this name varies in this sweep; {known} does.")
        keys += fitting
    return keys


# -- words --------------------------------------------------------------------------------------------------------


def words(unfinished: Sequence[Record], not_started: int = 0) -> str:
    """Count the jobs that are not done, in words: "1 failed, 2 killed, 3 not started".

    Args:
        unfinished: The jobs that began and are not done.
        not_started: How many jobs have not begun.
    """
    counts: dict[str, int] = {}
    for record in unfinished:
        state = "without a result" if record.state == "done" else record.state
        counts[state] = counts.get(state, 0) + 1
    parts = [f"{count} {state}" for state, count in counts.items()]
    if not_started:
        parts.append(f"{not_started} not started")
    return ", ".join(parts)
