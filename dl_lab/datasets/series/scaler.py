"""Scaling of a series: fitted on the training rows only, saved with the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Scaling = Literal["standard", "minmax"]


@dataclass(frozen=True)
class Scaler:
    """(values - shift) / scale, for each feature.

    Args:
        shift: (features,).
        scale: (features,), above 0.
    """

    shift: tuple[float, ...]
    scale: tuple[float, ...]

    @classmethod
    def fit(cls, values: np.ndarray, names: Sequence[str], kind: Scaling, constant: bool = False) -> Scaler:
        """Fit a scaler to rows.

        Args:
            values: (n, features), training rows only.
            names: The names of the features, for errors.
            kind: "standard" (mean 0, deviation 1) or "minmax" (to [0, 1]).
            constant: Whether a column may never change. Such a column is only shifted.

        Raises:
            ValueError: A column never changes, and `constant` is false.
        """
        spread = np.ptp(values, axis=0)
        flat = np.flatnonzero(spread == 0)
        if len(flat) and not constant:
            raise ValueError(
                f"the column {names[flat[0]]} is constant ({values[0, flat[0]]:g}) in the training part"
                " (add constant to dataset.layout.repair to use it all the same, or leave the column out)"
            )
        if kind == "standard":
            shift = values.mean(axis=0)
            scale = values.std(axis=0)
        else:
            shift = values.min(axis=0)
            scale = spread
        scale = np.where(spread == 0, 1.0, scale)
        return cls(tuple(shift.tolist()), tuple(scale.tolist()))

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Return scaled values of the same shape (..., features)."""
        return (values - np.array(self.shift)) / np.array(self.scale)

    def undo(self, values: np.ndarray) -> np.ndarray:
        """Return values (..., features) in their own units."""
        return values * np.array(self.scale) + np.array(self.shift)

    def of(self, places: Sequence[int]) -> Scaler:
        """Return the scaler of the features at these places."""
        return Scaler(tuple(self.shift[i] for i in places), tuple(self.scale[i] for i in places))

    def to_plain(self) -> dict[str, list[float]]:
        """Return plain JSON values, from which `from_plain` makes the same scaler."""
        return {"shift": list(self.shift), "scale": list(self.scale)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Sequence[float]]) -> Scaler:
        """Return the scaler that `to_plain` describes."""
        return cls(tuple(plain["shift"]), tuple(plain["scale"]))
