"""Find where each attention mechanism stops being useful: its error and its cost in one table."""

from __future__ import annotations

from dataclasses import dataclass

from dl_lab.procedures.attention_cost import AttentionCost
from dl_lab.procedures.attention_error import AttentionError
from dl_lab.procedures.protocol import Procedure
from dl_lab.procedures.rows import Row
from dl_lab.runs.recorder import Run
from dl_lab.types import Metrics


@dataclass
class AttentionLab(Procedure):
    """Run both experiments in one run; tables/limits.csv joins them by mechanism.

    Args:
        error: The experiment that measures errors.
        cost: The experiment that measures costs.
    """

    error: AttentionError
    cost: AttentionCost

    def __call__(self, run: Run) -> Metrics:
        """Run both experiments; return the metrics of both."""
        metrics = {**self.error(run), **self.cost(run)}
        run.table("limits", [self.find_limits(name, metrics) for name in self.cost.mechanisms])
        return metrics

    def find_limits(self, name: str, metrics: Metrics) -> Row:
        """Return the row of a mechanism.

        Args:
            name: Name of the mechanism.
            metrics: The metrics of both experiments.

        Returns:
            The orders of growth (at the first dim), the length from which the mechanism pays at each dim, and the norm
            of q and k up to which it is close to softmax attention. A cell is None if the measured range has no limit.
        """
        dim = self.cost.dims[0]
        row: Row = {
            "mechanism": name,
            "time_slope": _round(metrics.get(f"time_slope/dim_{dim}/{name}")),
            "memory_slope": _round(metrics.get(f"memory_slope/dim_{dim}/{name}")),
        }
        for baseline in self.cost.baselines:
            for d in self.cost.dims:
                row[f"faster_than_{baseline}_from_length_dim_{d}"] = _round(
                    metrics.get(f"crossover_{baseline}/dim_{d}/{name}"), digits=0
                )
        row["close_up_to_norm"] = metrics.get(f"useful_scale/{name}")
        return row


def _round(value: float | None, digits: int = 2) -> float | None:
    return None if value is None else round(value, digits)
