"""Settings beside each other: interleaved rounds, medians of the ratios, and whether the machine is too noisy to tell.

Nothing here knows what a setting is. A contestant works when it is told to, and says how fast it was.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

CONTROL = "the same again"  # the base, once more in every round: its ratio would be 1 on a silent machine
LEAST_ROUNDS = 3
MOST_ROUNDS = 15
LEAST_GAIN = 0.03  # a smaller gain is not worth a setting
TOO_NOISY = 0.15  # of the control's ratios: above it, a small difference says nothing
HOPELESS = 0.6  # a contestant with such a ratio in its first two rounds works no more
ROUNDS_HOPED_FOR = 7
LONGEST_TURN = 2.0  # seconds

Verdict = Literal["faster", "slower", "same speed", "too noisy", "few rounds"]


class Contestant(Protocol):
    """One setting at work."""

    def work(self, n_updates: int) -> tuple[float, float]:
        """Do some updates; return how many samples they were, and the seconds they took."""
        ...


@dataclass
class Rounds:
    """What was measured of one group of contestants.

    Attributes:
        speeds: For each contestant its samples a second, a value for each round it took part in.
        base: The name of the contestant that the others are compared with.
    """

    base: str
    speeds: dict[str, list[float]] = field(default_factory=dict)

    @property
    def n_rounds(self) -> int:
        """The rounds that are complete."""
        return len(self.speeds.get(self.base, []))

    def speed(self, name: str) -> float:
        """The median of the samples a second."""
        return statistics.median(self.speeds[name])

    def ratios(self, name: str) -> list[float]:
        """How many times as fast as the base, round by round."""
        return [own / base for own, base in zip(self.speeds[name], self.speeds[self.base], strict=False)]

    def ratio(self, name: str) -> float:
        """The median of the ratios."""
        return statistics.median(self.ratios(name))

    def noise(self) -> float:
        """How far the control is from 1 in three of four rounds: a smaller difference of a setting says nothing."""
        distances = sorted(abs(ratio - 1) for ratio in self.ratios(CONTROL))
        return distances[(3 * len(distances)) // 4] if len(distances) > 3 else max(distances, default=0.0)

    def verdict(self, name: str) -> Verdict:
        """What the rounds say of a contestant."""
        ratios = sorted(self.ratios(name))
        if len(ratios) >= 2 and ratios[-1] < HOPELESS:
            return "slower"
        if len(ratios) < LEAST_ROUNDS:
            return "few rounds"
        noise = self.noise()
        needed = max(LEAST_GAIN, 2 * noise)
        if noise > TOO_NOISY:  # only a difference that each round shows, beyond the noise
            odd, margin = 0, noise
        else:
            odd, margin = len(ratios) // 4, 0.0
        if self.ratio(name) >= 1 + needed and ratios[odd] > 1 + margin:
            return "faster"
        if self.ratio(name) <= 1 - needed and ratios[-1 - odd] < 1 - margin:
            return "slower"
        return "too noisy" if noise > TOO_NOISY else "same speed"


def compare(
    contestants: Mapping[str, Contestant],
    base: str,
    deadline: float,
    seconds_per_update: float,
    clock: Callable[[], float] = time.monotonic,
    drop: Callable[[str, Exception], None] = lambda name, error: None,
) -> Rounds:
    """Let the contestants work in turn until the time is over.

    Every round holds each contestant once, and the base twice: as itself and as CONTROL. Every second round runs
    backwards, so that a machine that becomes slower or faster favours nobody.

    Args:
        contestants: By name. All of them work the same number of updates a turn.
        base: The name of the one that the others are compared with.
        deadline: No round begins that would end after this time of `clock`.
        seconds_per_update: Of the base, roughly: decides how many updates a turn has.
        clock: Seconds.
        drop: Told of a contestant that raised an exception; it works no more.

    Returns:
        The speeds. A round that a failed contestant left is complete for the others.
    """
    order = [base, *(name for name in contestants if name != base), CONTROL]
    rounds = Rounds(base, {name: [] for name in order})
    turn = min((deadline - clock()) / (len(order) * ROUNDS_HOPED_FOR), LONGEST_TURN)
    n_updates = max(1, round(turn / max(seconds_per_update, 1e-6)))
    longest = 0.0
    while rounds.n_rounds < MOST_ROUNDS:
        began = clock()
        if began + longest > deadline:
            break
        active = [name for name in order if name == base or name not in _hopeless(rounds)]
        _one_round(contestants, active[:: 1 if rounds.n_rounds % 2 == 0 else -1], n_updates, rounds, order, drop)
        longest = clock() - began
    return rounds


def _one_round(
    contestants: Mapping[str, Contestant],
    names: Sequence[str],
    n_updates: int,
    rounds: Rounds,
    order: list[str],
    drop: Callable[[str, Exception], None],
) -> None:
    for name in names:
        try:
            samples, seconds = contestants[rounds.base if name == CONTROL else name].work(n_updates)
        except Exception as error:
            if name in (rounds.base, CONTROL):
                raise
            drop(name, error)
            order.remove(name)
            del rounds.speeds[name]
            continue
        rounds.speeds[name].append(samples / max(seconds, 1e-9))


def _hopeless(rounds: Rounds) -> set[str]:
    found = set()
    for name, speeds in rounds.speeds.items():
        if name not in (rounds.base, CONTROL) and len(speeds) >= 2 and max(rounds.ratios(name)) < HOPELESS:
            found.add(name)
    return found
