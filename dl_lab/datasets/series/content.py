"""The content of a data set of a series beside its splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from dl_lab.datasets.series.scaler import Scaler
from dl_lab.datasets.series.tables import Series


@dataclass(frozen=True)
class SeriesContent:
    """The series itself, which figures and naive forecasts need.

    Attributes:
        series: The whole series, in its own units.
        scaler: The scaler of the training rows.
        ends: The row after the last one of train, val and test.
        labelled: The first and the last row of each window that is known to be anomalous. None: unknown.
        units: The units of features by name, where they are known.
    """

    words: ClassVar[str] = "a series"
    series: Series
    scaler: Scaler
    ends: Sequence[int]
    labelled: Sequence[tuple[int, int]] | None = None
    units: Mapping[str, str] = field(default_factory=dict)

    @property
    def titles(self) -> list[str]:
        """Each feature with its unit, "T (°C)"."""
        return [f"{name} ({self.units[name]})" if name in self.units else name for name in self.series.names]
