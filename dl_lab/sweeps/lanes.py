"""A lane of a sweep as it is shown: its job, how far the job is, and one line of the screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table

from dl_lab.sweeps.backends.protocol import Progress
from dl_lab.sweeps.plan import Job

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass
class Lane:
    """What runs on a lane.

    Attributes:
        job: The job.
        device: Its GPU; "" on the CPU.
        progress: The newest progress that the job sent.
    """

    job: Job
    device: str = ""
    progress: Progress | None = None

    def share(self) -> float:
        """Return how much of the job is done, from 0 to 1."""
        return min(self.progress.done / max(self.progress.total, 1), 1.0) if self.progress else 0.0


def describe_position(progress: Progress | None) -> tuple[str, str]:
    """Return which epoch a job is in, and how many samples it trains with in a second."""
    if progress is None:
        return "starting", ""
    if not progress.max_epochs:  # an analysis
        return f"step {min(progress.done + 1, progress.total)}/{progress.total}", ""
    epoch = min(progress.epoch, progress.max_epochs)
    rate = f"{progress.samples_per_second:,.0f}/s" if progress.samples_per_second else ""
    return f"epoch {epoch}/{progress.max_epochs}", rate


def make_row(cells: Sequence[tuple[int | None, RenderableType]]) -> Table:
    """Make a line of cells of these widths; a cell without a width takes what is left."""
    grid = Table.grid(padding=(0, 1), expand=True)
    for width, _ in cells:
        grid.add_column(width=width, ratio=None if width else 1, no_wrap=True, overflow="ellipsis")
    grid.add_row(*(cell for _, cell in cells))
    return grid
