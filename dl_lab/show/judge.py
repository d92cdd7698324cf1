"""Compare measured with published figures: does a result reach what an experiment's `reference:` says?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Required, TypedDict

from dl_lab.types import Metrics


class Published(TypedDict, total=False):
    """One figure of a `reference:`. Only the value must be given."""

    value: Required[float]
    tolerance: float
    mode: Literal["max", "min", "equal"]
    source: str


@dataclass(frozen=True)
class Verdict:
    """The verdict on one published figure.

    Attributes:
        metric: The name of the metric.
        measured: The run's value; None where the run has no such metric.
        published: The published value.
        tolerance: How far the measured value may fall short.
        mode: "max" (larger is better), "min" (smaller is better) or "equal".
        source: Where the value was published.
    """

    metric: str
    measured: float | None
    published: float
    tolerance: float
    mode: str
    source: str

    @property
    def passed(self) -> bool:
        """Whether the measured value falls short of the published one by no more than the tolerance."""
        if self.measured is None:
            return False
        excess = self.measured - self.published
        if self.mode == "equal":
            return abs(excess) <= self.tolerance
        shortfall = -excess if self.mode == "max" else excess
        return shortfall <= self.tolerance


def judge(metrics: Metrics, reference: Mapping[str, Published]) -> list[Verdict]:
    """Return a verdict for each published figure, in the order of `reference`."""
    return [
        Verdict(
            metric=name,
            measured=metrics.get(name),
            published=float(entry["value"]),
            tolerance=float(entry.get("tolerance", 0.0)),
            mode=entry.get("mode", "max"),
            source=entry.get("source", ""),
        )
        for name, entry in reference.items()
    ]
