"""The settings of a sweep side by side, over their seeds: a table, and what it shows in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dl_lab import statistics, tables
from dl_lab.statistics import Paired
from dl_lab.sweeps import outcome
from dl_lab.sweeps.outcome import Criterion, Group, Outcome
from dl_lab.tables import Column
from dl_lab.types import UserError

MARK = "*"
PM = " ± "


@dataclass(frozen=True)
class Comparison:
    """An outcome, best first; and how each group stands to the baseline, in the same order (None: it is it).

    by: what the best is chosen by. on: the metric that the paired comparison is about. corrected: the t-tests' p,
    corrected for their number.
    """

    outcome: Outcome
    groups: tuple[Group, ...]
    by: Criterion | None
    on: str
    baseline: Group | None
    pairs: tuple[Paired | None, ...]
    corrected: tuple[float | None, ...]

    @property
    def best(self) -> Group | None:
        """None where nothing of the validation split was measured."""
        return self.groups[0] if self.by and self.groups[0].spread(self.by.metric) else None


def compare(
    found: Outcome, metric: str | None = None, baseline: str | None = None, on: str | None = None
) -> Comparison:
    """metric: a val/* metric. baseline: "model=linear lr=0.01". on: any metric; by default the first of the test split.

    Raises UserError for a metric or a baseline that is not there.
    """
    by = outcome.criterion(found, metric)
    groups = outcome.ranked(found, by) if by else list(found.groups)
    about = on or next(iter(found.metrics), "")
    if about not in found.metrics:
        raise UserError(f"No job here has measured {about!r}; there are {', '.join(found.metrics)}.")
    base = outcome.find_group(found, baseline) if baseline is not None else None
    pairs = [
        statistics.paired(one.by_seed(about), base.by_seed(about)) if base and one is not base else None
        for one in groups
    ]
    corrected = statistics.holm([pair.p if pair else None for pair in pairs])
    return Comparison(found, tuple(groups), by, about, base, tuple(pairs), tuple(corrected))


# -- the table ----------------------------------------------------------------------------------------------------


def pretty(about: Comparison) -> tuple[list[Column], list[dict[str, Any]]]:
    """A row a setting: mean ± deviation of each metric, rounded to what the deviations support."""
    found = about.outcome
    columns = [Column("mark", " ", priority=0)] if about.by else []
    columns += tables.setting_columns(found.paths, found.paths, priority=0)
    columns.append(Column("n", priority=0))
    rows: list[dict[str, Any]] = [
        {"mark": MARK if one is about.best else "", "n": len(one.records), **one.values} for one in about.groups
    ]
    for rank, name in enumerate(_metrics(about)):
        chosen = about.by is not None and name == about.by.metric
        cells, intervals = _metric_cells(about.groups, name)
        columns.append(Column(name, priority=0 if chosen else 1 + 2 * rank))
        if any(intervals):
            columns.append(Column(f"{name} interval", f"{name}/95 % interval", priority=3 if chosen else 4 + 2 * rank))
        for row, one, interval in zip(rows, cells, intervals, strict=True):
            row |= {name: one, f"{name} interval": interval}
        if about.baseline and name == about.on:
            columns += BASELINE_COLUMNS
    if about.baseline:
        rows = [{**row, **one} for row, one in zip(rows, _pair_cells(about), strict=True)]
    return columns, rows


BASELINE_COLUMNS = (
    Column("difference", "against/baseline", priority=0),
    Column("difference interval", "difference/95 % interval", priority=2),
    Column("p", priority=0),
)


def _metrics(about: Comparison) -> list[str]:
    """What the best is chosen by, then the others in their order; nothing of the training split."""
    names = [name for name in about.outcome.metrics if not name.startswith("train/") or name == about.on]
    first = [about.by.metric] if about.by else []
    return [*first, *(name for name in names if name not in first)]


def _metric_cells(groups: Sequence[Group], name: str) -> tuple[list[str], list[str]]:
    spreads = [one.spread(name) for one in groups]
    digits = statistics.decimals([found.std for found in spreads if found])
    cells, intervals = [], []
    for one, found in zip(groups, spreads, strict=True):
        short = f" ({found.n} of {len(one.records)})" if found and found.n < len(one.records) else ""
        deviation = f"{PM}{found.std:.{digits}f}" if found and found.std is not None else ""
        cells.append(f"{found.mean:.{digits}f}{deviation}{short}" if found else "no number")
        there = found is not None and found.low is not None
        intervals.append(f"{found.low:.{digits}f} to {found.high:.{digits}f}" if found and there else "")
    return _aligned(cells), _aligned(intervals)


def _aligned(cells: Sequence[str]) -> list[str]:
    """Numbers of several lengths, so that their decimal points stand below each other."""
    size = max((len(cell.partition(".")[0]) for cell in cells if cell), default=0)
    return [" " * (size - len(cell.partition(".")[0])) + cell if cell else cell for cell in cells]


def metric_rows(about: Comparison, one: Group) -> tuple[list[Column], list[dict[str, Any]]]:
    """A single group: a row a metric."""
    rows = []
    for name in _metrics(about):
        (value,), (interval,) = _metric_cells([one], name)
        chosen = MARK if about.by is not None and name == about.by.metric else ""
        rows.append({"mark": chosen, "metric": name, "value": value, "interval": interval})
    title = f"mean ± deviation, n = {len(one.records)}" if len(one.records) > 1 else "value"
    columns = [Column("mark", " ", 0), Column("metric", "", 0), Column("value", title, 0)]
    return [*columns, Column("interval", "95 % interval", 1)], rows


def _pair_cells(about: Comparison) -> list[dict[str, str]]:
    ends = [(pair.low, pair.high) for pair in about.pairs if pair]
    digits = statistics.decimals([high - low for low, high in ends if low is not None and high is not None])
    rows = []
    for one, pair, p in zip(about.groups, about.pairs, about.corrected, strict=True):
        if one is about.baseline:
            rows.append({"difference": "baseline"})
        elif pair is None:
            rows.append({"difference": "no common seed"})
        else:
            there = pair.low is not None
            interval = f"{pair.low:+.{digits}f} to {pair.high:+.{digits}f}" if there else ""
            rows.append(
                {"difference": f"{pair.difference:+.{digits}f}", "difference interval": interval, "p": written_p(p)}
            )
    return rows


def written_p(p: float | None) -> str:
    return "" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"


def plain(about: Comparison) -> tuple[list[Column], list[dict[str, Any]]]:
    """The same as numbers in full, a column each: for CSV and JSON."""
    rows = []
    for one, pair, p in zip(about.groups, about.pairs, about.corrected, strict=True):
        row: dict[str, Any] = {**one.values, "best": one is about.best, "n": len(one.records), "seeds": one.seeds}
        for name in about.outcome.metrics:
            found = one.spread(name)
            for fact in ("mean", "std", "low", "high", "n"):
                row[f"{name}/{fact}"] = getattr(found, fact) if found else None
        if about.baseline:
            row |= {"compared": about.on, "baseline": one is about.baseline}
            row |= {f"difference/{fact}": getattr(pair, fact) if pair else None for fact in PAIR_FACTS}
            row["difference/p_corrected"] = p
        rows.append(row)
    return [Column(key) for key in rows[0]], rows


PAIR_FACTS = ("difference", "low", "high", "n", "p", "p_signs", "smallest")


# -- in words -----------------------------------------------------------------------------------------------------


def sentences(about: Comparison) -> list[str]:
    """What was run, what is the best and by how much, how often test was looked at, what n can show."""
    found = about.outcome
    lines = [_what(found)]
    if found.unfinished or found.not_started:
        states = outcome.words(found.unfinished, found.not_started)
        lines.append(f"Left out: {states}. What is not finished is in no mean.")
    labels = {record.data for record in found.records if record.label in ("part", "generated")}
    lines += [f"The data are {', '.join(sorted(labels))}: not results on the full official data."] if labels else []
    lines += _best(about)
    looks = sum(record.test_looks for record in found.records)
    if looks:
        lines.append(
            f"The test split was looked at {looks} times, once by each job; it is reported here, it chose nothing."
        )
    if about.baseline:
        lines.append(_against(about, about.baseline))
    lines += _few(about)
    return lines


def notation(about: Comparison) -> str:
    """How to read the table."""
    several = any(len(one.records) > 1 for one in about.groups)
    parts = [f"{MARK} best"] if about.best else []
    if several:
        parts += ["mean ± standard deviation over n seeds", "interval: holds the true mean with 95 % confidence (t)"]
    if about.baseline:
        parts += ["p: paired t-test, corrected for the number of comparisons (Holm)"]
    return "; ".join(parts) + "." if parts else ""


def _what(found: Outcome) -> str:
    counts = {len(one.records) for one in found.groups}
    seeds = {tuple(one.seeds) for one in found.groups}
    n = len(found.records)
    jobs = f"{n} finished job{'s' * (n != 1)}"
    if not found.paths:
        return f"{jobs} that differ in the seed only ({', '.join(map(str, found.groups[0].seeds))})."
    differ = _listed(list(tables.short_names(found.paths).values()))
    if counts == {1}:
        return f"{jobs}, one of each setting; they differ in {differ}."
    same = (
        f"seeds {', '.join(map(str, found.groups[0].seeds))} each" if len(seeds) == 1 else "not all over the same seeds"
    )
    return f"{jobs}: {len(found.groups)} settings that differ in {differ}, {same}."


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else "".join(words)


def _best(about: Comparison) -> list[str]:
    best, by = about.best, about.by
    if best is None or by is None:
        return ["No val/* metric was measured: nothing here can be called the best."]
    if len(about.groups) == 1:
        return []
    second = about.groups[1]
    line = f"Best by {by.words}: {best.name}."
    pair = statistics.paired(best.by_seed(by.metric), second.by_seed(by.metric))
    if pair is not None:
        close = f"; over {pair.n} seeds, p {written_p(pair.p)}" if pair.p is not None else ""
        gap = tables.number(abs(pair.difference))
        line += f" The next, {second.name}, is {gap} behind (paired by seed{close})."
    return [line]


def _against(about: Comparison, baseline: Group) -> str:
    pairs = [pair for pair in about.pairs if pair]
    clear = [
        one.name
        for one, pair, p in zip(about.groups, about.pairs, about.corrected, strict=True)
        if pair and p is not None and p < statistics.LEVEL
    ]
    which = f"differ at the {statistics.LEVEL:.0%} level: {'; '.join(clear)}" if clear else "none differs clearly"
    count = f"{len(pairs)} comparison{'s' * (len(pairs) != 1)}"
    return f"Against {baseline.name} in {about.on}, {count} paired by seed: {which}."


def _few(about: Comparison) -> list[str]:
    """The warning where there are too few seeds to say anything."""
    counts = [len(one.records) for one in about.groups]
    n = min([pair.n for pair in about.pairs if pair] or counts)
    if len(counts) < 2 and n > 1:
        return []
    if n == 1:
        return [
            "Warning: one seed says nothing about the spread: a difference may be luck. Give seed=0,1,2,... a sweep."
        ]
    enough = statistics.fewest_pairs()
    if n >= enough:
        return []
    chance = round(1 / statistics.smallest_p(n))
    return [
        f"Warning: {n} seeds are too few to say much. Even if all {n} point the same way, chance alone does that in "
        f"1 of {chance} cases; from {enough} seeds on it is less than 1 in 20. The t-test's p rests on the "
        f"differences being normal, which {n} of them cannot show."
    ]


def text(about: Comparison, width: int) -> str:
    """Words, table, notation, wrapped to the width."""
    columns, rows = pretty(about)
    lines = [line for sentence in sentences(about) for line in tables.wrapped(sentence, width, indent="  ")]
    note = tables.wrapped(notation(about), width)
    return "\n".join([*lines, "", tables.text(columns, rows, width, rule=True), "", *note])
