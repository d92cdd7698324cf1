"""What several seeds can show: mean, deviation and interval of each setting, and paired comparisons between two.

Sources: Student, "The probable error of a mean", Biometrika 6 (1908); Holm, "A simple sequentially rejective
multiple test procedure", Scandinavian Journal of Statistics 6 (1979). Imports scipy.special only when a quantile
is needed (scipy.stats takes a second).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

CONFIDENCE = 0.95
LEVEL = 0.05
MOST_FLIPS = 16  # 2**16 sign patterns are counted at most


@dataclass(frozen=True)
class Spread:
    """n values: their mean, sample standard deviation, and the interval that holds the true mean with 95 % confidence.

    std and interval are None for a single value; the interval is Student's, which assumes normal values.
    """

    n: int
    mean: float
    std: float | None = None
    low: float | None = None
    high: float | None = None


def spread(values: Sequence[float]) -> Spread:
    """Raises ValueError for no values at all."""
    n = len(values)
    if n == 0:
        raise ValueError("there are no values")
    mean = math.fsum(values) / n
    if n == 1:
        return Spread(1, mean)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = student_quantile(n - 1) * std / math.sqrt(n)
    return Spread(n, mean, std, mean - half, mean + half)


def student_quantile(degrees: int, confidence: float = CONFIDENCE) -> float:
    """t such that a Student variable lies in [-t, t] with this probability: 4.303 for 2 degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, (1 + confidence) / 2))


@dataclass(frozen=True)
class Paired:
    """Two settings over the seeds that both have: the differences `one - other`, seed by seed.

    p: two-sided paired t-test (None for a single pair; 1 where all differences are 0, 0 where all are the same).
    p_signs: share of all sign patterns of these differences whose mean is at least as far from 0, which
    assumes nothing but symmetry; it cannot be below `smallest`, 2 / 2**n.
    """

    n: int
    difference: float
    low: float | None
    high: float | None
    p: float | None
    p_signs: float | None
    smallest: float


def paired(one: Mapping[int, float], other: Mapping[int, float]) -> Paired | None:
    """The comparison over the common seeds; None where there is none."""
    seeds = sorted(one.keys() & other.keys())
    if not seeds:
        return None
    differences = [one[seed] - other[seed] for seed in seeds]
    summary, n = spread(differences), len(differences)
    return Paired(n, summary.mean, summary.low, summary.high, _t_test(summary), _sign_flips(differences), smallest_p(n))


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
    observed = abs(math.fsum(differences)) * (1 - 1e-12)  # its own pattern counts whatever the rounding
    patterns = product((1, -1), repeat=len(differences))
    far = [abs(math.fsum(s * d for s, d in zip(signs, differences, strict=True))) >= observed for signs in patterns]
    return sum(far) / len(far)


def smallest_p(n: int) -> float:
    """The least two-sided p that n pairs can reach when only their signs are used."""
    return min(1.0, 2.0 ** (1 - n))


def fewest_pairs(level: float = LEVEL) -> int:
    """How many seeds it takes until `smallest_p` is below the level: 6 for 0.05."""
    return next(n for n in range(1, 100) if smallest_p(n) < level)


def holm(values: Sequence[float | None]) -> list[float | None]:
    """p values of several comparisons, corrected so that the chance of any false alarm stays at the level."""
    order = sorted((p, i) for i, p in enumerate(values) if p is not None)
    corrected: list[float | None] = [None] * len(values)
    largest = 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        corrected[i] = largest
    return corrected


def decimals(spreads: Sequence[float | None], most: int = 6) -> int:
    """How many decimals a column of means supports: two digits of the median deviation; 4 where there is none."""
    there = sorted(value for value in spreads if value)
    if not there:
        return 4
    middle = there[(len(there) - 1) // 2]
    return min(max(1 - math.floor(math.log10(middle)), 0), most)
