"""A bar for what takes a while before a training starts."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def shown(items: Iterable[Item], n: int, what: str) -> Iterator[Item]:
    """The same `n` items, under a progress bar where the errors' output is a terminal."""
    from rich import progress
    from rich.console import Console

    bar = progress.Progress(
        "{task.description}",
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )
    with bar:
        task = bar.add_task(what, total=n)
        for item in items:
            yield item
            bar.advance(task)
