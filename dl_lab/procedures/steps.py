"""The steps of an analysis without a training loop, shown on the screen and reported to its sweep."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from dl_lab.datasets.progress import show_progress
from dl_lab.runs.recorder import Run
from dl_lab.types import Progress

Item = TypeVar("Item")


def steps(run: Run, items: Iterable[Item], what: str, n: int | None = None) -> Iterator[Item]:
    """Yield the items one by one, and report before each how many are done.

    Args:
        run: The run that does the work.
        items: One item for each step.
        what: The words in front of the progress bar.
        n: The number of items. None: `items` knows it.
    """
    if n is None:
        assert isinstance(items, Sized), "items of unknown number"
        n = len(items)
    # A bar that is redrawn all the time would disturb the measurements of some analyses.
    for done, item in enumerate(show_progress(items, n, what, redraw=False)):
        run.on_progress(Progress(epoch=0, max_epochs=0, done=done, total=n))
        yield item
