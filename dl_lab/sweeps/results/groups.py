"""Group the jobs of a sweep by their settings, over replicates.

Replicates repeat a setting to show its spread. Seeds always do; so do the keys that the sweep declares or the user
names (the folds of a cross-validation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dl_lab.runs import records
from dl_lab.runs.records import Record
from dl_lab.show import tables
from dl_lab.show.statistics import Spread, scale_of, spread


@dataclass(frozen=True)
class Group:
    """The finished jobs of one setting: they differ in nothing but their replicate.

    Attributes:
        values: The setting's values that tell it from the other settings, by dotted key.
        records: Its jobs.
        over: The keys whose values name a replicate: "seed", and for a cross-validation "dataset.fold".
    """

    values: Mapping[str, object]
    records: tuple[Record, ...]
    over: tuple[str, ...] = ("seed",)

    @property
    def seeds(self) -> list[int]:
        """The seed of each job."""
        return [record.config["seed"] for record in self.records]

    @property
    def replicates(self) -> list[tuple[object, ...]]:
        """The replicate of each job: its values of `over`."""
        return [_replicate(record, self.over) for record in self.records]

    def by_replicate(self, metric: str) -> dict[tuple[object, ...], float]:
        """Return the metric of each replicate that measured it (a loss that became infinite does not count)."""
        measured = {}
        for record in self.records:
            value = record.metrics.get(metric)
            if value is not None:
                measured[_replicate(record, self.over)] = value
        return measured

    def spread(self, metric: str) -> Spread | None:
        """Return the spread of a metric over the replicates; None where none of them measured it."""
        values = list(self.by_replicate(metric).values())
        return spread(values, scale_of(metric, values)) if values else None

    @property
    def seconds(self) -> float | None:
        """The mean time of a job, from start to end; None where no job tells it."""
        times = [record.seconds for record in self.records if record.seconds is not None]
        return sum(times) / len(times) if times else None

    @property
    def name(self) -> str:
        """The setting in words, "model=mlp lr=0.01": `--baseline` takes it."""
        return tables.setting_words(self.values)


def group(found: Sequence[Record], over: Sequence[str] = (), unfinished: Sequence[Record] = ()) -> list[Group]:
    """Group the jobs that agree in all settings but their replicate, in the order in which they appear.

    Args:
        found: Finished jobs.
        over: Keys whose values are replicates, besides seeds.
        unfinished: Further jobs: the settings that are shown must tell them apart too.
    """
    varying = [path for path in dict.fromkeys(over) if not is_seed(path)]
    has_seeds = len({record.config["seed"] for record in found}) > 1
    keys = ("seed", *varying) if has_seeds or not varying else tuple(varying)
    rest = [record for record in unfinished if record.config]
    # A value that is computed from a fold's data (a scale) differs from fold to fold and is no setting.
    differing = records.telling([*found, *rest]) if varying else records.differing([*found, *rest])
    paths = [path for path in differing if not is_seed(path) and path not in varying]
    settings: dict[str, list[Record]] = {}
    for record in found:
        settings.setdefault(write_setting(record, paths), []).append(record)
    firsts = [members[0] for members in settings.values()]
    shown = _choose_shown(firsts, rest, paths)
    groups = []
    for members in settings.values():
        ordered = sorted(members, key=lambda record: repr([_sort_key(value) for value in _replicate(record, keys)]))
        values = {path: members[0].config.get(path) for path in shown}
        groups.append(Group(values, tuple(ordered), keys))
    return groups


def write_setting(record: Record, paths: Sequence[str]) -> str:
    """Write a job's values of these keys as one text, equal for equal values."""
    return repr([record.config.get(path) for path in paths])


def _replicate(record: Record, over: Sequence[str]) -> tuple[object, ...]:
    return tuple(record.config.get(path) for path in over)


def _sort_key(value: object) -> str:
    """A text by which numbers sort by size, also beside other values."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{value:020.6f}" if is_number else str(value)


def is_seed(path: str) -> bool:
    """Whether a key is the seed of a job, or of one of its parts."""
    return path.rpartition(".")[2] == "seed"


def _choose_shown(firsts: Sequence[Record], rest: Sequence[Record], paths: Sequence[str]) -> list[str]:
    """Choose the keys that a table of the settings shows.

    Args:
        firsts: One job of each setting.
        rest: The unfinished jobs.
        paths: The keys in which the settings differ.

    Returns:
        The keys that were varied; all of `paths` where those alone do not tell the settings apart.
    """
    varied = [path for path in records.telling([*firsts, *rest]) if path in paths]
    names = {write_setting(record, varied) for record in firsts}
    return varied if len(names) == len(firsts) else list(paths)
