"""What came out of a sweep: its jobs as records, grouped over seeds, judged by a validation metric.

Reads the sweep's folder only; imports no torch.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dl_lab import records, tables
from dl_lab.records import Record
from dl_lab.statistics import Spread, spread
from dl_lab.sweeps.plan import read_plan
from dl_lab.types import UserError


@dataclass(frozen=True)
class Group:
    """The finished jobs that differ in nothing but their seed. values: what tells it from the other groups."""

    values: Mapping[str, Any]
    records: tuple[Record, ...]

    @property
    def seeds(self) -> list[int]:
        return [record.config["seed"] for record in self.records]

    def by_seed(self, metric: str) -> dict[int, float]:
        """The metric of each seed that measured one (a loss that became infinite is none)."""
        return {r.config["seed"]: r.metrics[metric] for r in self.records if r.metrics.get(metric) is not None}

    def spread(self, metric: str) -> Spread | None:
        """Over the seeds; None where no seed measured it."""
        values = list(self.by_seed(metric).values())
        return spread(values) if values else None

    @property
    def name(self) -> str:
        """ "model=mlp lr=0.01": what to give as a baseline."""
        titles = tables.short_names(list(self.values))
        return " ".join(f"{titles[path]}={_written(value)}" for path, value in self.values.items())


@dataclass(frozen=True)
class Outcome:
    """A sweep that was run: groups in the order of its grid, and the jobs that are not done."""

    folder: Path
    plan: Mapping[str, Any]
    groups: tuple[Group, ...]
    unfinished: tuple[Record, ...]
    not_started: int

    @property
    def records(self) -> list[Record]:
        """The finished jobs."""
        return [record for group in self.groups for record in group.records]

    @property
    def paths(self) -> list[str]:
        """The settings that tell the groups apart."""
        return list(self.groups[0].values)

    @functools.cached_property
    def metrics(self) -> list[str]:
        return records.metric_names(self.records)


def is_sweep(folder: Path) -> bool:
    return (folder / "sweep.yaml").is_file()


def find_sweep(text: str, outputs: Path) -> Path:
    """The sweep that `text` names: a folder, (the start of) the key at the end of a folder's name, or "last"."""
    if is_sweep(Path(text)):
        return Path(text)
    if Path(text).is_dir():
        raise UserError(f"{text} is not a sweep's folder: it has no sweep.yaml.")
    folders = sorted(path.parent for path in outputs.glob("**/sweep.yaml"))
    if text == "last" and folders:
        return folders[-1]
    found = [folder for folder in folders if folder.name.partition("_")[2].startswith(text)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"{text!r} fits {len(found)} sweeps: {', '.join(map(str, found[:4]))}: give the folder.")
    raise UserError(f"There is no sweep {text!r} under {outputs}: give its folder, or the key at the end of its name.")


def read(folder: Path) -> Outcome:
    """Raises UserError where the plan is not readable or no job is done."""
    plan = read_plan(folder)
    folders = [folder / f"{job['number']}_{job['id']}" for job in plan["jobs"]]
    there = [records.read(path) for path in folders if path.is_dir()]
    done = [record for record in there if record.state == "done" and record.metrics and "seed" in record.config]
    unfinished = tuple(record for record in there if record not in done)
    if not done:
        raise UserError(f"No job of {folder} is done yet ({words(unfinished, len(folders) - len(there))}).")
    return Outcome(folder, plan, tuple(group(done)), unfinished, len(folders) - len(there))


def group(found: Sequence[Record]) -> list[Group]:
    """Records that agree in all settings but the seed, in the order in which they appear."""
    paths = [path for path in records.differing(found) if not _is_seed(path)]
    groups: dict[str, list[Record]] = {}
    for record in found:
        groups.setdefault(repr([record.config.get(path) for path in paths]), []).append(record)
    shown = _telling_apart(list(groups.values()), paths)
    return [
        Group({path: members[0].config.get(path) for path in shown}, tuple(sorted(members, key=_seed)))
        for members in groups.values()
    ]


def _is_seed(path: str) -> bool:
    return path.rpartition(".")[2] == "seed"


def _seed(record: Record) -> int:
    return record.config["seed"]


def _telling_apart(groups: Sequence[Sequence[Record]], paths: Sequence[str]) -> list[str]:
    """The settings that were varied; all that differ where those alone do not tell the groups apart."""
    telling = [path for path in records.telling([members[0] for members in groups]) if path in paths]
    names = {repr([members[0].config.get(path) for path in telling]) for members in groups}
    return telling if len(names) == len(groups) else list(paths)


def words(unfinished: Sequence[Record], not_started: int = 0) -> str:
    """ "1 failed, 2 killed, 3 not started"."""
    states = [record.state if record.state != "done" else "without a result" for record in unfinished]
    parts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    return ", ".join([*parts, *([f"{not_started} not started"] if not_started else [])])


# -- which is the best --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Criterion:
    """What the best is chosen by: always a metric of the validation split."""

    metric: str
    smaller: bool

    @property
    def words(self) -> str:
        return f"{'lowest' if self.smaller else 'highest'} mean {self.metric}"


def criterion(outcome: Outcome, asked: str | None) -> Criterion | None:
    """The metric asked for, else the one the jobs' trainer watches; None where the jobs have no validation metric.

    Raises UserError for a metric of another split, or one that was not measured.
    """
    if asked is None:
        return _watched(outcome)
    if not asked.startswith("val/"):
        raise UserError(
            f"{asked} cannot choose the best: selection may look at val/* only, "
            "test is for judging what was chosen, and train for nothing of it."
        )
    if asked not in outcome.metrics:
        known = [name for name in outcome.metrics if name.startswith("val/")]
        raise UserError(f"No job here has measured {asked!r}; there are {', '.join(known) or 'no val/* metrics'}.")
    return Criterion(asked, records.smaller_is_better(asked))


def _watched(outcome: Outcome) -> Criterion | None:
    config = outcome.records[0].config
    monitor = config.get("trainer.monitor")
    if isinstance(monitor, str) and monitor.startswith("val/") and monitor in outcome.metrics:
        return Criterion(monitor, config.get("trainer.mode", "min") == "min")
    measured = [name for name in outcome.metrics if name.startswith("val/")]
    return Criterion(measured[0], records.smaller_is_better(measured[0])) if measured else None


def ranked(outcome: Outcome, by: Criterion) -> list[Group]:
    """The groups with the best mean first; those without the metric last."""

    def key(one: Group) -> tuple[bool, float]:
        found = one.spread(by.metric)
        return found is None, (found.mean if by.smaller else -found.mean) if found else 0.0

    return sorted(outcome.groups, key=key)


def find_group(outcome: Outcome, text: str) -> Group:
    """The one group whose settings agree with "model=linear lr=0.01" (the last part of a name is enough).

    Raises UserError, with the settings there are, where none or several do.
    """
    wanted = [word.partition("=")[::2] for word in text.split()]
    titles = tables.short_names(outcome.paths)
    found = [one for one in outcome.groups if all(_agrees(one, titles, key, value) for key, value in wanted)]
    if len(found) == 1 and wanted:
        return found[0]
    listed = "\n".join(f"  {one.name}" for one in outcome.groups[:20])
    count = "No setting" if not found else f"{len(found)} settings"
    raise UserError(f"{count} of this sweep fit{'s' if not found else ''} {text!r}. There are:\n{listed}")


def _agrees(one: Group, titles: Mapping[str, str], key: str, value: str) -> bool:
    for path, there in one.values.items():
        if key in (path, titles[path]):
            return value == _written(there) or _same_number(value, there)
    return False


def _written(value: Any) -> str:
    """A setting's value as one word."""
    return "none" if value is None else tables.cell(value, exact=True).replace(" ", "")


def _same_number(text: str, value: Any) -> bool:
    try:
        return not isinstance(value, bool) and float(text) == float(value)
    except (TypeError, ValueError):
        return False
