"""Choose the best setting of a sweep, and find the setting that a text names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dl_lab.runs import records
from dl_lab.show import tables
from dl_lab.sweeps.results.groups import Group
from dl_lab.sweeps.results.outcome import Outcome
from dl_lab.types import UserError

MOST_LISTED = 20  # settings in a message


@dataclass(frozen=True)
class Criterion:
    """What the best setting is chosen by: always a metric of the validation split.

    Attributes:
        metric: Its full name.
        smaller: A smaller value is better.
    """

    metric: str
    smaller: bool

    @property
    def words(self) -> str:
        """The criterion in words: "lowest mean val/loss"."""
        return f"{'lowest' if self.smaller else 'highest'} mean {self.metric}"


def choose_criterion(outcome: Outcome, asked: str | None) -> Criterion | None:
    """Choose the metric that ranks the settings.

    Args:
        outcome: The finished jobs.
        asked: The metric that the user asked for; None takes the one that the jobs' trainer watches.

    Returns:
        The criterion; None where the jobs have no validation metric.

    Raises:
        UserError: The metric asked for is of another split, or no job measured it.
    """
    if asked is None:
        return _find_watched(outcome)
    if not asked.startswith("val/"):
        raise UserError(
            f"{asked} cannot choose the best: selection may look at val/* only. The test split judges the choice, and "
            "the training split says nothing about new data."
        )
    if asked not in outcome.metrics:
        known = [name for name in outcome.metrics if name.startswith("val/")]
        raise UserError(f"No job here measured {asked!r}; there are {', '.join(known) or 'no val/* metrics'}.")
    return Criterion(asked, records.smaller_is_better(asked))


def _find_watched(outcome: Outcome) -> Criterion | None:
    """Return the metric that the trainer watches, else the first validation metric."""
    config = outcome.records[0].config
    monitor = config.get("trainer.monitor")
    if isinstance(monitor, str) and monitor.startswith("val/") and monitor in outcome.metrics:
        return Criterion(monitor, config.get("trainer.mode", "min") == "min")
    measured = [name for name in outcome.metrics if name.startswith("val/")]
    return Criterion(measured[0], records.smaller_is_better(measured[0])) if measured else None


def rank(outcome: Outcome, by: Criterion) -> list[Group]:
    """Sort the settings, the best mean first.

    A setting with a replicate that gave no finite value comes after the whole ones: its mean is over the replicates
    that went well, which makes the setting look better than it is.
    """

    def key(group: Group) -> tuple[bool, bool, float]:
        spread = group.spread(by.metric)
        if spread is None:
            return True, True, 0.0
        is_partial = spread.n < len(group.records)
        return False, is_partial, spread.mean if by.smaller else -spread.mean

    return sorted(outcome.groups, key=key)


def find_group(outcome: Outcome, text: str) -> Group:
    """Find the one setting that agrees with a text.

    Args:
        outcome: The finished jobs.
        text: Some keys and values, "model=linear lr=0.01". The last part of a key is enough.

    Raises:
        UserError: No setting agrees, or several do. The message lists the settings.
    """
    wanted = [word.partition("=")[::2] for word in text.split()]
    titles = tables.short_names(outcome.paths)
    found = [group for group in outcome.groups if all(_agrees(group, titles, key, value) for key, value in wanted)]
    if len(found) == 1 and wanted:
        return found[0]
    listed = "\n".join(f"  {group.name}" for group in outcome.groups[:MOST_LISTED])
    count = f"{len(found)} settings of this sweep fit" if found else "No setting of this sweep fits"
    raise UserError(f"{count} {text!r}. There are:\n{listed}")


def _agrees(group: Group, titles: Mapping[str, str], key: str, value: str) -> bool:
    """Whether the setting has this value. The key is a whole path or its title."""
    for path, found in group.values.items():
        if key in (path, titles[path]):
            return value == tables.write_value(found) or _is_same_number(value, found)
    return False


def _is_same_number(text: str, value: object) -> bool:
    try:
        return not isinstance(value, bool) and float(text) == float(str(value))
    except ValueError:
        return False
