"""Where each attention mechanism stops being useful: its error and its cost in one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dl_lab.experiments.attention_cost import AttentionCost
from dl_lab.experiments.attention_error import AttentionError
from dl_lab.run import Run
from dl_lab.types import Metrics


@dataclass
class AttentionLab:
    """Both experiments in one run; tables/limits.csv joins them by mechanism."""

    error: AttentionError
    cost: AttentionCost

    def __call__(self, run: Run) -> Metrics:
        metrics = {**self.error(run), **self.cost(run)}
        run.table("limits", [self.limits(name, metrics) for name in self.cost.mechanisms])
        return metrics

    def limits(self, name: str, metrics: Metrics) -> dict[str, Any]:
        """A mechanism's row: orders of growth, from which length it pays, up to which norm of q and k it is close.

        Empty where nothing was found within what was measured; costs of the first dim for the orders of growth.
        """
        dim = self.cost.dims[0]
        row: dict[str, Any] = {
            "mechanism": name,
            "time_slope": _rounded(metrics.get(f"time_slope/dim_{dim}/{name}")),
            "memory_slope": _rounded(metrics.get(f"memory_slope/dim_{dim}/{name}")),
        }
        for baseline in self.cost.baselines:
            for d in self.cost.dims:
                row[f"faster_than_{baseline}_from_length_dim_{d}"] = _rounded(
                    metrics.get(f"crossover_{baseline}/dim_{d}/{name}"), digits=0
                )
        row["close_up_to_norm"] = metrics.get(f"useful_scale/{name}")
        return row


def _rounded(value: float | None, digits: int = 2) -> float | None:
    return None if value is None else round(value, digits)
