"""The end of a sweep in one sentence: the best setting and its spread over seeds, and what is not done."""

from __future__ import annotations

from pathlib import Path

from dl_lab.show import statistics, tables
from dl_lab.sweeps.plan_file import read_plan
from dl_lab.sweeps.results import outcome
from dl_lab.sweeps.results.comparison import PM, Comparison, compare, name_plural
from dl_lab.sweeps.results.outcome import Outcome
from dl_lab.types import UserError


def summarise(folder: Path, metric: str) -> list[str]:
    """Say in one sentence for each data set of a sweep which setting is the best, and which jobs are not done.

    Args:
        folder: The sweep's folder.
        metric: The metric that chooses the best, where it is one of validation and was measured.
    """
    try:
        found = outcome.read(folder)
    except UserError as error:  # no job is done; the message says what became of them
        return [f"0 of {len(read_plan(folder)['jobs'])} jobs done. {error}"]
    blocks = found.blocks()
    abouts = [_compare(block, metric) for block in blocks]
    parts = [name_best(about, with_data=len(blocks) > 1) for about in abouts]
    counted = f"{len(found.records)} of {len(found.plan['jobs'])} jobs done"
    unfinished = outcome.words(found.unfinished, found.not_started)
    if unfinished:
        counted = f"{counted}, {unfinished}"
    sentences = [f"{part}." for part in parts[:-1] if part]
    last = f"{parts[-1]}; {counted}" if parts[-1] else counted
    cautions = dict.fromkeys(caution for about in abouts if (caution := about.loss_caution))
    return [*sentences, f"{last}.", *cautions]


def _compare(found: Outcome, metric: str) -> Comparison:
    watched = found.records[0].config.get("trainer.monitor")
    is_usable = metric != watched and metric.startswith("val/") and metric in found.metrics
    return compare(found, metric if is_usable else None)


def name_best(about: Comparison, with_data: bool = False) -> str:
    """Return "The best of 4 settings by val/accuracy is lr=0.01 with 0.9712 ± 0.0020 over 3 seeds".

    Without a metric of validation, return "".

    Args:
        about: The settings, best first.
        with_data: Name the data set.
    """
    best = about.best
    spread = best.spread(about.by.metric) if best is not None and about.by is not None else None
    if best is None or about.by is None or spread is None:
        return ""
    on = f"On {best.records[0].data}, the" if with_data else "The"
    value = tables.number(spread.mean)
    if spread.std is not None and abs(spread.mean) < 1e6:
        digits = statistics.decimals([spread.std])
        value = f"{spread.mean:.{digits}f}{PM}{spread.std:.{digits}f}"
    value += f" over {spread.n} {name_plural(about.outcome)}" if spread.n > 1 else ""
    if len(about.groups) == 1:
        return f"{on} {'mean ' if spread.n > 1 else ''}{about.by.metric} is {value}"
    others = len(about.tied) - 1
    tie = f", the same mean as {others} other{'s' * (others > 1)}" if others else ""
    return f"{on} best of {len(about.groups)} settings by {about.by.metric} is {best.name} with {value}{tie}"
