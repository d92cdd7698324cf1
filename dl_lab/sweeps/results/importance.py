"""Measure which of the swept keys matter for a metric, by how much, and how sure that is.

For a grid: the share of the metric's variance that a key explains by itself (the main effect of a functional analysis
of variance, eta squared), with an interval over resampled jobs (Efron 1979). For a search: Optuna's fANOVA (Hutter,
Hoos and Leyton-Brown 2014), with the range over several seeds of its forest.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dl_lab.show import tables
from dl_lab.show.tables import Column
from dl_lab.sweeps.results.outcome import Outcome
from dl_lab.sweeps.results.rows import Row, Rows

FEWEST_JOBS = 4
MOST_VALUES = 6  # a number with more values is divided into quarters of its range
N_RESAMPLED = 200
N_FORESTS = 5
TAIL = 0.05  # share of the resampled values that is left out at each end of the interval


@dataclass(frozen=True)
class Importance:
    """How much of a metric's variance one key explains.

    Attributes:
        key: The swept key.
        share: The explained share, between 0 and 1.
        low: The lower end of its 90 % interval; for a search the least share over the forests.
        high: The upper end; for a search the greatest share over the forests.
        slices: The mean of the metric for each value of the key, or for each quarter of its range.
    """

    key: str
    share: float
    low: float
    high: float
    slices: Mapping[str, float]


def measure_importance(found: Outcome, metric: str) -> list[Importance]:
    """Measure the importance of each swept key.

    Args:
        found: The finished jobs.
        metric: The metric's full name.

    Returns:
        The keys, the most important first; [] where too few jobs measured the metric.
    """
    jobs = [record for record in found.records if record.metrics.get(metric) is not None]
    values = [float(record.metrics[metric]) for record in jobs]
    if len(jobs) < FEWEST_JOBS or len(set(values)) < 2:
        return []
    keys = list(found.paths)
    if len({record.config["seed"] for record in jobs}) > 1:
        keys.append("seed")
    searched = _measure_search(found, keys) if found.plan.get("search") else {}
    result = []
    for key in keys:
        labels = _label([record.config.get(key) for record in jobs])
        if len(set(labels)) < 2:
            continue
        if key in searched:
            share, low, high = searched[key]
        else:
            share = _compute_share(labels, values)
            low, high = _resample(labels, values)
        result.append(Importance(key, share, low, high, _average(labels, values)))
    return sorted(result, key=lambda importance: -importance.share)


def _label(values: Sequence[object]) -> list[str]:
    """Write the value of each job as a word; for a number with many values, the quarter that the value lies in."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(values) or len(set(numbers)) <= MOST_VALUES:
        return [tables.write_value(value) for value in values]
    ordered = sorted(set(numbers))
    edges = [ordered[min(len(ordered) - 1, i * len(ordered) // 4)] for i in range(5)]
    names = [f"{low:.3g} to {high:.3g}" for low, high in itertools.pairwise(edges)]
    labels = []
    for number in numbers:
        quarter = sum(number >= edge for edge in edges[1:4])  # how many of the inner edges lie at or below it
        labels.append(names[quarter])
    return labels


def _average(labels: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    """Return the mean of the values with each label."""
    groups: dict[str, list[float]] = {}
    for label, value in zip(labels, values, strict=True):
        groups.setdefault(label, []).append(value)
    return {label: math.fsum(members) / len(members) for label, members in groups.items()}


def _compute_share(labels: Sequence[str], values: Sequence[float]) -> float:
    """Return the variance between the means of the labels, as a share of all variance."""
    mean = math.fsum(values) / len(values)
    total = math.fsum((value - mean) ** 2 for value in values)
    means = _average(labels, values)
    between = math.fsum((means[label] - mean) ** 2 for label in labels)
    return between / total if total > 0 else 0.0


def _resample(labels: Sequence[str], values: Sequence[float]) -> tuple[float, float]:
    """Return the 90 % interval of the explained share over resampled jobs."""
    draw = random.Random(0)
    shares = []
    for _ in range(N_RESAMPLED):
        chosen = draw.choices(range(len(values)), k=len(values))
        shares.append(_compute_share([labels[i] for i in chosen], [values[i] for i in chosen]))
    shares.sort()
    cut = int(TAIL * N_RESAMPLED)
    return shares[cut], shares[-1 - cut]


def _measure_search(found: Outcome, keys: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """Let Optuna measure the importance of each key: the mean, least and greatest over several forests."""
    from dl_lab.sweeps.journal import JOURNAL, load_study

    forests = []
    try:
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances

        study = load_study(found.folder / JOURNAL)
        for seed in range(N_FORESTS):
            forests.append(get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=seed)))
    except (ImportError, OSError, KeyError, ValueError, RuntimeError):  # no Optuna, no journal, too few trials
        return {}
    result = {}
    for key in keys:
        shares = [forest[key] for forest in forests if key in forest]
        if shares:
            result[key] = (math.fsum(shares) / len(shares), min(shares), max(shares))
    return result


def as_rows(found: Sequence[Importance]) -> Rows:
    """Make the table of the importances.

    Returns:
        The columns, and one row for each key: its share, the interval, and the mean of the metric for each value.
    """
    titles = tables.short_names([importance.key for importance in found])
    rows: list[Row] = []
    for importance in found:
        slices = list(importance.slices.items())[:MOST_VALUES]
        rows.append(
            {
                "key": titles[importance.key],
                "share": f"{importance.share:.2f}",
                "interval": f"{importance.low:.2f} to {importance.high:.2f}",
                "means": ", ".join(f"{label}: {tables.number(mean)}" for label, mean in slices),
            }
        )
    columns = [
        Column("key", priority=0),
        Column("share", priority=0),
        Column("interval", "90 % interval", 1),
        Column("means", "mean by value", 2),
    ]
    return columns, rows
