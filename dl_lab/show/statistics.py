"""Statistics over seeds: mean, deviation and interval of each setting, and paired comparisons of two settings.

Sources: Student, "The probable error of a mean", Biometrika 6 (1908); Holm, "A simple sequentially rejective multiple
test procedure", Scandinavian Journal of Statistics 6 (1979). This module imports scipy.special, and only for a
quantile: scipy.stats takes a second to import.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, TypeAlias, TypeVar

CONFIDENCE = 0.95
LEVEL = 0.05
Scale: TypeAlias = Literal["plain", "log", "logit"]
PROPORTIONS = (  # names of metrics between 0 and 1 begin so
    "accuracy",
    "balanced_accuracy",
    "cosine",
    "damerau_levenshtein",
    "f1",
    "jaccard",
    "precision",
    "recall",
    "roc_auc",
)
POSITIVE = (  # names of metrics above 0 end so
    "loss",
    "error",
    "mse",
    "mae",
    "rmse",
    "mape",
    "perplexity",
    "nll",
    "entropy",
    "seconds",
)
MOST_FLIPS = 16  # more pairs have more than 2**16 sign patterns, too many to count


@dataclass(frozen=True)
class Spread:
    """Mean, deviation and interval of some values.

    Attributes:
        n: The number of values.
        mean: Their mean.
        std: Their sample standard deviation; None for a single value.
        low: The lower end of Student's interval, which holds the true mean with 95 % confidence where the values are
            normal on their scale (see `spread`); None for a single value.
        high: Its upper end.
    """

    n: int
    mean: float
    std: float | None = None
    low: float | None = None
    high: float | None = None


def spread(values: Sequence[float], scale: Scale = "plain") -> Spread:
    """Compute mean, deviation and interval of some values.

    Args:
        values: At least one finite value.
        scale: Where the interval is symmetric. "logit" keeps it between 0 and 1, "log" above 0 (delta method: the
            standard error of the mean is carried to that scale, and the ends are carried back).

    Raises:
        ValueError: There are no values.
    """
    n = len(values)
    if n == 0:
        raise ValueError("there are no values")
    mean = math.fsum(values) / n
    if n == 1:
        return Spread(1, mean)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = student_quantile(n - 1) * std / math.sqrt(n)
    low, high = _ends(mean, half, scale)
    return Spread(n, mean, std, low, high)


def _ends(mean: float, half: float, scale: Scale) -> tuple[float, float]:
    if scale == "log" and mean > 0:
        factor = math.exp(min(half / mean, 700.0))  # exp(710) is too large for a float
        return mean / factor, mean * factor
    if scale == "logit" and 0 < mean < 1:
        odds = mean / (1 - mean)
        factor = math.exp(min(half / (mean * (1 - mean)), 300.0))
        return odds / factor / (1 + odds / factor), odds * factor / (1 + odds * factor)
    return mean - half, mean + half


def scale_of(metric: str, values: Sequence[float]) -> Scale:
    """Choose the scale on which the interval of a metric stays in the metric's bounds."""
    name = metric.rpartition("/")[2]
    if name.startswith(PROPORTIONS) and all(0 <= value <= 1 for value in values):
        return "logit"
    if name.endswith(POSITIVE) and all(value > 0 for value in values):
        return "log"
    return "plain"


def student_quantile(degrees: int, confidence: float = CONFIDENCE) -> float:
    """Return t: a Student variable lies in [-t, t] with this probability. It is 4.303 for 2 degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + confidence) / 2))


@dataclass(frozen=True)
class Paired:
    """A comparison of two settings over the seeds (or folds) that both have, by the differences `one - other`.

    Attributes:
        n: The number of pairs.
        difference: The mean of the differences.
        low: The lower end of its interval; None for a single pair.
        high: The upper end.
        p: Of the two-sided paired t-test; None for a single pair, 1 where all differences are 0, 0 where all are the
            same number.
        p_signs: The share of all sign patterns of these differences whose mean is at least as far from 0. It assumes
            only that the differences are symmetric. None for too many pairs.
        smallest: The least value that `p_signs` can have, 2 / 2**n.
    """

    n: int
    difference: float
    low: float | None
    high: float | None
    p: float | None
    p_signs: float | None
    smallest: float


Replicate = TypeVar("Replicate", bound=Hashable)


def compare_pairs(one: Mapping[Replicate, float], other: Mapping[Replicate, float]) -> Paired | None:
    """Compare two settings over their common replicates (seeds, folds), in the order of `one`.

    Args:
        one: Replicate -> value of the one setting.
        other: Replicate -> value of the other setting.

    Returns:
        The comparison; None where they have no common replicate.
    """
    differences = [one[name] - other[name] for name in one if name in other]
    if not differences:
        return None
    summary = spread(differences)
    return Paired(
        n=summary.n,
        difference=summary.mean,
        low=summary.low,
        high=summary.high,
        p=_t_test(summary),
        p_signs=_sign_flips(differences),
        smallest=smallest_p(summary.n),
    )


def _t_test(differences: Spread) -> float | None:
    if differences.std is None:
        return None
    if differences.std == 0:
        return 1.0 if differences.mean == 0 else 0.0
    from scipy.special import stdtr

    t = differences.mean / (differences.std / math.sqrt(differences.n))
    return float(2 * stdtr(differences.n - 1, -abs(t)))


def _sign_flips(differences: Sequence[float]) -> float | None:
    if len(differences) > MOST_FLIPS:
        return None
    observed = abs(math.fsum(differences)) * (1 - 1e-12)  # the observed pattern itself counts, in spite of rounding
    n_far = 0
    for signs in product((1, -1), repeat=len(differences)):
        total = math.fsum(sign * value for sign, value in zip(signs, differences, strict=True))
        n_far += abs(total) >= observed
    return n_far / 2 ** len(differences)


def smallest_p(n: int) -> float:
    """Return the least two-sided p that n pairs can reach by their signs alone."""
    return min(1.0, 2.0 ** (1 - n))


def fewest_pairs(level: float = LEVEL) -> int:
    """Return the number of seeds from which on `smallest_p` is below the level: 6 for 0.05."""
    return next(n for n in range(1, 100) if smallest_p(n) < level)


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Correct the p values of several comparisons, so that the chance of any false alarm stays at the level."""
    order = sorted((p, i) for i, p in enumerate(values) if p is not None)
    corrected: list[float | None] = [None] * len(values)
    largest = 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        corrected[i] = largest
    return corrected


def decimals(spreads: Sequence[float | None], means: Sequence[float] = (), most: int = 6) -> int:
    """Return the number of decimals for a column of means: two digits of the median deviation.

    Args:
        spreads: The standard deviations; None and 0 do not count.
        means: Without a deviation they decide: four decimals, or four digits where the median is below 0.01.
        most: The largest answer.
    """
    known = sorted(value for value in spreads if value)
    if known:
        return min(max(1 - _magnitude(known), 0), most)
    sizes = sorted(abs(value) for value in means if value and math.isfinite(value))
    return min(max(3 - _magnitude(sizes), 4), most) if sizes and sizes[(len(sizes) - 1) // 2] < 0.01 else 4


def _magnitude(ordered: Sequence[float]) -> int:
    """Return the power of ten of the median, -3 for 0.0036."""
    return math.floor(math.log10(ordered[(len(ordered) - 1) // 2]))
