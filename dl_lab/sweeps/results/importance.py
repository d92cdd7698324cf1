"""Measure which of the swept keys matter for a metric, by how much, and how sure that is.

For a grid: the share of the metric's variance that a key explains by itself (the main effect of a functional analysis
of variance, eta squared), with an interval from resampled residuals (Efron and Tibshirani 1993, section 9.4). For a
search: Optuna's fANOVA (Hutter, Hoos and Leyton-Brown 2014), with the range over several seeds of its forest.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dl_lab.show import tables
from dl_lab.show.tables import Column
from dl_lab.sweeps.results.outcome import Outcome
from dl_lab.sweeps.results.rows import Row, Rows

FEWEST_JOBS = 4
MOST_VALUES = 6  # a number with more values is divided into quarters of its range
N_RESAMPLED = 400
N_FORESTS = 5
TAIL = 0.05  # share of the resampled values that is left out at each end of the interval


@dataclass(frozen=True)
class Importance:
    """How much of a metric's variance one key explains.

    Attributes:
        key: The swept key.
        share: The explained share, between 0 and 1.
        interval: The ends of its 90 % interval; for a search the least and the greatest share over the forests. None
            where the jobs say nothing about noise: as many effects as jobs.
        slices: The mean of the metric for each value of the key, or for each quarter of its range.
    """

    key: str
    share: float
    interval: tuple[float, float] | None
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
    labels = {key: _label([record.config.get(key) for record in jobs]) for key in keys}
    labels = {key: own for key, own in labels.items() if len(set(own)) > 1}
    intervals = _resample([own for key, own in labels.items() if key not in searched], values)
    result = []
    for key, own in labels.items():
        share, interval = searched[key] if key in searched else (_compute_share(own, values), next(intervals))
        result.append(Importance(key, share, interval, _average(own, values)))
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


def _resample(factors: Sequence[Sequence[str]], values: Sequence[float]) -> Iterator[tuple[float, float] | None]:
    """Give the 90 % interval of each factor's explained share.

    The factors' main effects are fitted by least squares. Their sum and noise drawn from the residuals make new values,
    whose shares are measured. So each new sample has every job once: where jobs themselves are drawn, a factor with few
    jobs for each label explains much by chance.

    Args:
        factors: The label of each job, for each factor.
        values: The metric of each job.
    """
    import numpy as np

    found = np.asarray(values)
    groups = []  # of each factor: job x label, 1 where the job has the label
    for labels in factors:
        names = sorted(set(labels))
        groups.append(np.array([[float(label == name) for name in names] for label in labels]))
    design = np.hstack([np.ones((len(found), 1)), *groups])
    effects, _, rank, _ = np.linalg.lstsq(design, found)
    n_left = len(found) - int(rank)
    if n_left < 1:
        yield from [None] * len(factors)
        return
    fitted = design @ effects
    residuals = (found - fitted) * math.sqrt(len(found) / n_left)
    drawn = fitted + np.random.default_rng(0).choice(residuals, (N_RESAMPLED, len(found)))
    distances = drawn - drawn.mean(axis=1, keepdims=True)
    total = (distances**2).sum(axis=1)
    for group in groups:
        sizes = group.sum(axis=0)
        between = ((distances @ group) ** 2 / sizes).sum(axis=1)
        low, high = np.quantile(between / np.maximum(total, np.finfo(float).tiny), (TAIL, 1 - TAIL))
        yield float(low), float(high)


def _measure_search(found: Outcome, keys: Sequence[str]) -> dict[str, tuple[float, tuple[float, float]]]:
    """Let Optuna measure the importance of each key: the mean over several forests, and the least and the greatest."""
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
            result[key] = math.fsum(shares) / len(shares), (min(shares), max(shares))
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
                "interval": "-" if importance.interval is None else "{:.2f} to {:.2f}".format(*importance.interval),
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
