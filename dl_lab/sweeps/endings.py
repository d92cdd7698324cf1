"""How a job of a sweep ended. Its run folder tells, whatever state that folder is in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dl_lab.runs.files import as_mapping, error_line, read_json
from dl_lab.show import tables
from dl_lab.types import Interrupted, Pruned


@dataclass(frozen=True)
class Ending:
    """How one job ended.

    Attributes:
        reason: Why the job did not finish, in one line; "" for a job that is done.
        metrics: The final metrics; None for a metric that is not finite.
        not_finite: What each metric that is not finite was: {"val/loss": "nan"}.
    """

    reason: str = ""
    metrics: Mapping[str, object] = field(default_factory=dict)
    not_finite: Mapping[str, str] = field(default_factory=dict)

    def value_of(self, metric: str) -> str:
        """Write a metric in words: "val/loss 0.1234", "val/loss is nan"; "" where the job did not measure it."""
        if metric not in self.metrics:
            return ""
        value = self.metrics[metric]
        if isinstance(value, int | float):
            return f"{metric} {tables.number(float(value))}"
        return f"{metric} is {self.not_finite.get(metric, 'not a number')}"


def read_ending(folder: Path, exit_status: int) -> Ending:
    """Read how a job ended. Any program may have written the files: nothing in them raises.

    Args:
        folder: The job's run folder.
        exit_status: The exit status of the job's process.
    """
    status = read_json(folder / "status.json") or {}
    if exit_status == Pruned.exit_code:
        return Ending(f"pruned {status.get('reason', '')}".strip())
    if exit_status == Interrupted.exit_code:
        return Ending(str(status.get("reason", "")))
    if exit_status != 0:
        return Ending(error_line(status))
    summary = read_json(folder / "summary.json") or {}
    return Ending("", as_mapping(summary.get("metrics")), as_mapping(summary.get("not_finite")))
