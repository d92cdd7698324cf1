"""Measured against published: what an experiment's `reference:` says, and whether a result reaches it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dl_lab.types import ConfigError, Metrics

MODES = ("max", "min", "equal")
FACTS = ("value", "tolerance", "source", "mode")


@dataclass(frozen=True)
class Verdict:
    """One published figure. measured is None where the run has no such metric."""

    metric: str
    measured: float | None
    published: float
    tolerance: float
    mode: str
    source: str

    @property
    def passed(self) -> bool:
        """max: at least the value less the tolerance; min: at most the value plus it; equal: within it."""
        if self.measured is None:
            return False
        excess = self.measured - self.published
        if self.mode == "equal":
            return abs(excess) <= self.tolerance
        return -excess <= self.tolerance if self.mode == "max" else excess <= self.tolerance


def judge(metrics: Metrics, reference: Mapping[str, Mapping[str, Any]]) -> list[Verdict]:
    """A verdict for each published figure, in the order of `reference`."""
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


def check_reference(reference: Any) -> None:
    """Raises ConfigError, with the config path, for a `reference:` that cannot be judged."""
    if not isinstance(reference, Mapping):
        raise ConfigError(f"reference: {reference!r} is not a mapping of metrics to published figures.")
    for name, entry in reference.items():
        path = f"reference.{name}"
        if not isinstance(entry, Mapping) or not _is_number(entry.get("value")):
            raise ConfigError(
                f"{path}: must be a mapping with a number as value, like {{value: 0.95, tolerance: 0.01}}."
            )
        unknown = [key for key in entry if key not in FACTS]
        if unknown:
            raise ConfigError(f"{path}.{unknown[0]}: a published figure has only {', '.join(FACTS)}.")
        if not _is_number(entry.get("tolerance", 0)) or entry.get("tolerance", 0) < 0:
            raise ConfigError(f"{path}.tolerance: {entry['tolerance']!r} is not a number of at least 0.")
        if entry.get("mode", "max") not in MODES:
            raise ConfigError(f"{path}.mode: {entry['mode']!r} must be one of {', '.join(MODES)}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
