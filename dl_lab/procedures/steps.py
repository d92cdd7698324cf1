"""The steps of an analysis without a training loop, shown on the screen and reported to its sweep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from dl_lab.datasets.progress import show_progress
from dl_lab.runs.recorder import Run
from dl_lab.types import Progress

Item = TypeVar("Item")


def steps(run: Run, items: Sequence[Item], what: str) -> Iterator[Item]:
    """Yield the items one by one, and report before each how many are done.

    Args:
        run: The run that does the work.
        items: One item for each step.
        what: The words in front of the progress bar.
    """
    # A bar that is redrawn all the time would disturb the measurements of some analyses.
    for done, item in enumerate(show_progress(items, len(items), what, redraw=False)):
        run.on_progress(Progress(epoch=0, max_epochs=0, done=done, total=len(items)))
        yield item
