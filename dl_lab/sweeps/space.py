"""The space of a search. Hydra's words for a range become Optuna's distributions, and values become words again."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dl_lab.sweeps.values import check_range
from dl_lab.types import ConfigError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import IntervalSweep, Override
    from optuna.distributions import BaseDistribution


@dataclass(frozen=True)
class Space:
    """What a search varies, and in which range.

    Attributes:
        words: What the user wrote for each key: "tag(log, interval(1e-4, 0.1))".
        distributions: The same as Optuna's distributions.
    """

    words: Mapping[str, str]
    distributions: Mapping[str, BaseDistribution]

    def overrides(self, values: Mapping[str, object]) -> list[str]:
        """Write the values of a trial as the words of a job."""
        return [f"{key}={values[key]}" for key in self.words]

    def probes(self) -> list[list[str]]:
        """Make jobs in which every alternative and both ends of every range occur: they are checked before any starts.

        Returns:
            The words of each job.
        """
        corners = {key: _corners(distribution) for key, distribution in self.distributions.items()}
        n_probes = max(len(values) for values in corners.values())
        probes = []
        for i in range(n_probes):
            chosen = {key: values[i % len(values)] for key, values in corners.items()}
            probes.append(self.overrides(chosen))
        return probes

    def combinations(self) -> list[dict[str, object]]:
        """List every combination of values; the last key varies fastest.

        Raises:
            ConfigError: A range is continuous.
        """
        values = [_all_values(key, distribution) for key, distribution in self.distributions.items()]
        return [dict(zip(self.distributions, chosen, strict=True)) for chosen in itertools.product(*values)]


def parse_space(overrides: Sequence[Override]) -> Space:
    """Read the space of a search from parsed overrides.

    `interval(0, 1)` is uniform, `tag(log, interval(1e-4, 1e-1))` log-uniform, `int(interval(1, 8))` whole numbers,
    `range(8, 65, 8)` steps; `choice(a, b)` and `a,b` are alternatives.

    Args:
        overrides: The parsed overrides with several values.

    Raises:
        ConfigError: There is none, or one cannot be searched.
    """
    if not overrides:
        raise ConfigError(
            "This search has nothing to vary: write, for instance, 'optimizer.lr=tag(log, interval(1e-4, 1e-1))'."
        )
    words = {}
    distributions = {}
    for override in overrides:
        key = override.get_key_element()
        words[key] = str(override.input_line).partition("=")[2]
        distributions[key] = _make_distribution(override)
    return Space(words, distributions)


def _make_distribution(override: Override) -> BaseDistribution:
    from hydra.core.override_parser.types import IntervalSweep, RangeSweep
    from optuna.distributions import CategoricalDistribution

    key = override.get_key_element()
    value = override.value()
    tags = set(getattr(value, "tags", ()))
    unknown = tags - {"log"}
    if unknown:
        raise ConfigError(f"{key}: there is no tag {min(unknown)!r}; tag(log, ...) is for a logarithmic scale.")
    is_log = "log" in tags
    try:
        if isinstance(value, IntervalSweep):
            return _from_interval(value, is_log, str(override.input_line))
        if isinstance(value, RangeSweep):
            check_range(str(override.input_line), value)
        if isinstance(value, RangeSweep) and not value.shuffle:
            steps = list(value.range())
            if not steps:
                raise ValueError("this range is empty")
            if all(isinstance(step, int) for step in steps):
                return _from_whole_steps([int(step) for step in steps], is_log)
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from error


def _from_interval(value: IntervalSweep, is_log: bool, word: str) -> BaseDistribution:
    from optuna.distributions import FloatDistribution, IntDistribution

    low = value.start
    high = value.end
    if low is None or high is None:
        raise ValueError("an interval needs two ends")
    # Hydra reads interval(1, 8) as whole numbers too: only int(...) asks for them.
    if isinstance(low, int) and isinstance(high, int) and "int(" in word:
        return IntDistribution(low, high, log=is_log)
    return FloatDistribution(float(low), float(high), log=is_log)


def _from_whole_steps(steps: Sequence[int], is_log: bool) -> BaseDistribution:
    from optuna.distributions import IntDistribution

    width = abs(steps[1] - steps[0]) if len(steps) > 1 else 1
    return IntDistribution(min(steps), max(steps), step=width, log=is_log)


def _corners(distribution: BaseDistribution) -> list[object]:
    """Return the alternatives, or both ends of a range."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return [distribution.low, distribution.high]


def _all_values(key: str, distribution: BaseDistribution) -> list[object]:
    """Return all values of a range of whole numbers, or all alternatives."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, IntDistribution) and not distribution.log:
        return list(range(distribution.low, distribution.high + 1, distribution.step or 1))
    raise ConfigError(f"search=grid needs values for {key}, not a range: {key}=0.1,0.01.")
