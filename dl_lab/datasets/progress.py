"""Progress of slow work beside the training: decoding, features, downloads, analyses."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

Item = TypeVar("Item")
LINE_SECONDS = 10.0  # between two lines if there is no terminal


def show_progress(items: Iterable[Item], n: int | None, what: str, redraw: bool = True) -> Iterator[Item]:
    """Yield the items, and show how many of them are done: a bar on a terminal, elsewhere a line every ten seconds.

    Args:
        items: The items.
        n: The number of items. None: unknown.
        what: The words in front of the bar.
        redraw: Whether a thread redraws the bar several times a second, also while one item takes long.
    """
    if not sys.stderr.isatty():
        yield from _print_lines(items, n, what)
        return
    from rich.progress import MofNCompleteColumn

    with progress_bar(MofNCompleteColumn(), redraw=redraw) as bar:
        task = bar.add_task(what, total=n)
        drawn = -1.0
        for item in items:
            if not redraw and time.monotonic() - drawn > 0.2:
                drawn = time.monotonic()
                bar.refresh()
            yield item
            bar.advance(task)


def _print_lines(items: Iterable[Item], n: int | None, what: str) -> Iterator[Item]:
    """Yield the items, and print a line every `LINE_SECONDS`."""
    printed = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - printed >= LINE_SECONDS:
            printed = time.monotonic()
            total = f" of {n:,}" if n else ""
            print(f"{what}: {done:,}{total}", file=sys.stderr, flush=True)
        yield item


def download_bar() -> Progress:
    """Return a bar that counts bytes."""
    from rich.progress import DownloadColumn, TransferSpeedColumn

    return progress_bar(DownloadColumn(), TransferSpeedColumn(), transient=False)


def progress_bar(*columns: ProgressColumn, transient: bool = True, redraw: bool = True) -> Progress:
    """Return a bar that shows itself on a terminal only.

    Args:
        *columns: The columns between the bar and the time that remains.
        transient: Whether the bar disappears at its end.
        redraw: Whether a thread redraws the bar several times a second.
    """
    from rich import progress  # imported here, because most calls find everything in place and need no bar
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        *columns,
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=transient,
        auto_refresh=redraw,
    )
