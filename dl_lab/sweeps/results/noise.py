"""The doctor's rule about a sweep: is the best setting ahead by more than chance?"""

from __future__ import annotations

import math
from pathlib import Path
from statistics import stdev

from dl_lab.show import statistics
from dl_lab.show.doctor.evidence import read_evidence
from dl_lab.show.doctor.findings import Finding
from dl_lab.sweeps.results import comparison, outcome
from dl_lab.sweeps.results.groups import Group
from dl_lab.types import UserError


def find_noise(sweep: Path) -> Finding | None:
    """Find a best setting that is ahead by less than its seeds differ; None where there is none.

    With one seed for each setting, the lead is compared with what one training shows of its noise: the sampling error
    of an accuracy, and how much the last epochs differ.
    """
    try:
        about = comparison.compare(outcome.read(sweep))
    except UserError:
        return None
    best = about.best
    if best is None or about.by is None or len(about.groups) < 2:
        return None
    second = about.groups[1]
    metric = about.by.metric
    pair = statistics.compare_pairs(best.by_replicate(metric), second.by_replicate(metric))
    if pair is None or (pair.p is not None and pair.p < statistics.LEVEL):
        return None
    gap = abs(pair.difference)
    spreads = [group.spread(metric) for group in (best, second)]
    deviations = [spread.std for spread in spreads if spread is not None and spread.std is not None]
    if pair.n > 1 and deviations:
        noise = max(deviations)
        words = f"the seeds of one setting have a standard deviation of {noise:.4g} (n = {pair.n})."
    else:
        noise, words = _estimate_noise(best, metric)
    if not 0 < gap <= 2 * noise:
        return None
    return Finding(
        "difference-within-the-noise",
        f"{best.name} is {gap:.4g} ahead of {second.name}; {words}",
        "Another seed may reverse the order. The sweep does not show which setting is better.",
        ("seed=0,1,2,3,4",),
        0.6,
    )


def _estimate_noise(group: Group, metric: str) -> tuple[float, str]:
    """Return the noise that a single training shows in a metric, and words about it; 0 where it shows none."""
    evidence = read_evidence(group.records[0].folder)
    epochs = [value for value in evidence.curve(metric) if math.isfinite(value)]
    last = epochs[-max(4, len(epochs) // 4) :]
    of_epochs = stdev(last) if len(last) >= 4 else 0.0
    n_items = evidence.size(metric.partition("/")[0])
    spread = group.spread(metric)
    share = spread.mean if spread else 0.0
    is_share = metric.endswith("accuracy") and n_items > 0 and 0 <= share <= 1
    of_sampling = math.sqrt(2 * share * (1 - share) / n_items) if is_share else 0.0  # of the difference of two shares
    if of_sampling > of_epochs:
        words = f"there is one seed each, and {n_items:,} items leave a standard error of {of_sampling:.4g}."
        return of_sampling, words
    return of_epochs, f"there is one seed each, and the best's last epochs have a deviation of {of_epochs:.4g}."
