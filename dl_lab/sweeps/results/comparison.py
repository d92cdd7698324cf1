"""The settings of a sweep side by side, over their seeds or folds: the figures, and the table of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dl_lab.runs import records
from dl_lab.show import statistics, tables
from dl_lab.show.statistics import Paired, Spread
from dl_lab.show.tables import Column
from dl_lab.sweeps.results import choice
from dl_lab.sweeps.results.choice import Criterion
from dl_lab.sweeps.results.groups import Group
from dl_lab.sweeps.results.outcome import Outcome
from dl_lab.sweeps.results.rows import Row, Rows
from dl_lab.types import UserError

MARK = "*"
PM = " ± "


@dataclass(frozen=True)
class Comparison:
    """The settings of an outcome, ranked, and compared with a baseline.

    Attributes:
        outcome: The finished jobs.
        groups: The settings, the best first.
        by: What the best is chosen by; None where the jobs have no validation metric.
        on: The metric that the comparison with the baseline is about.
        baseline: The setting that the others are compared with, where the user named one.
        pairs: The comparison of each setting with the baseline, in the order of `groups`; None for the baseline
            itself, and for a setting that shares no replicate with it.
        corrected: The p of each comparison's t-test, corrected for the number of comparisons.
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
        """The best setting; None where no job measured a validation metric."""
        return self.groups[0] if self.by and self.groups[0].spread(self.by.metric) else None

    @property
    def loss_caution(self) -> str:
        """A sentence where a loss chooses the best, and the settings make it different quantities; else ""."""
        if self.by is None or self.by.metric.rpartition("/")[2] != "loss" or len(self.groups) < 2:
            return ""
        changing = [path for path in self.outcome.paths if path == "task" or _changes_the_loss(path)]
        if not changing:
            return ""
        names = ", ".join(changing)
        return f"The settings differ in {names}, so {self.by.metric} is not the same quantity in all of them."

    @property
    def tied(self) -> tuple[Group, ...]:
        """The best setting and those whose mean equals its mean exactly; () where there is no best."""
        if self.best is None or self.by is None:
            return ()
        best = self.best.spread(self.by.metric)
        n_missing = _count_missing(self.best, best)
        tied = []
        for group in self.groups:
            spread = group.spread(self.by.metric)
            is_tied = spread and best and spread.mean == best.mean and _count_missing(group, spread) == n_missing
            if is_tied:
                tied.append(group)
        return tuple(tied)


def _changes_the_loss(path: str) -> bool:
    """Whether the reported loss depends on a setting of the task: it leaves penalties on the weights out."""
    return path.startswith("task.") and path not in ("task.norm", "task.strength")


def _count_missing(group: Group, spread: Spread | None) -> int:
    """Count the jobs of a setting that gave no finite value."""
    return len(group.records) - (spread.n if spread else 0)


def compare(
    found: Outcome, metric: str | None = None, baseline: str | None = None, on: str | None = None
) -> Comparison:
    """Rank the settings, and compare each with a baseline.

    Args:
        found: The finished jobs.
        metric: The val/* metric that ranks; None takes the one that the trainer watches.
        baseline: A setting in words, "model=linear lr=0.01"; None compares with none.
        on: The metric of the comparison with the baseline; None takes the first of the test split.

    Raises:
        UserError: No job measured the metric, or no setting is the baseline.
    """
    by = choice.choose_criterion(found, metric)
    groups = choice.rank(found, by) if by else list(found.groups)
    about = on or next(iter(found.metrics), "")
    if about not in found.metrics:
        raise UserError(f"No job here measured {about!r}; there are {', '.join(found.metrics)}.")
    base = choice.find_group(found, baseline) if baseline is not None else None
    pairs: list[Paired | None] = []
    for group in groups:
        if base is None or group is base:
            pairs.append(None)
        else:
            pairs.append(statistics.compare_pairs(group.by_replicate(about), base.by_replicate(about)))
    corrected = statistics.holm([pair.p if pair else None for pair in pairs])
    return Comparison(found, tuple(groups), by, about, base, tuple(pairs), tuple(corrected))


# -- the table ----------------------------------------------------------------------------------------------------


def pretty(about: Comparison) -> Rows:
    """Make the table for people: mean ± deviation of each metric, rounded to what the deviations support; and costs.

    Returns:
        The columns, and one row for each setting.
    """
    found = about.outcome
    columns = [Column("mark", " ", priority=0)] if about.by else []
    columns += tables.setting_columns(found.paths, found.paths, priority=0)
    columns.append(Column("n", priority=0))
    tied = about.tied
    rows: list[Row] = []
    for group in about.groups:
        mark = MARK if group in tied else ""
        rows.append({"mark": mark, "n": len(group.records), **group.values})
    metrics = _order_metrics(about)
    for i, name in enumerate(metrics):
        is_criterion = about.by is not None and name == about.by.metric
        # The metric that chooses keeps its place longest where the table is too wide.
        priority = 0 if is_criterion else 1 + 2 * i
        cells, intervals = _write_metric(about.groups, name)
        columns.append(Column(name, priority=priority))
        if any(intervals):
            columns.append(Column(f"{name} interval", f"{name}/95 % interval", priority=priority + 3))
        for row, cell, interval in zip(rows, cells, intervals, strict=True):
            row[name] = cell
            row[f"{name} interval"] = interval
        if about.baseline and name == about.on:
            columns += BASELINE_COLUMNS
    columns += cost_columns(about.groups)
    for row, group in zip(rows, about.groups, strict=True):
        row.update(costs_of(group))
    if about.baseline:
        for row, pair_cells in zip(rows, _write_pairs(about), strict=True):
            row.update(pair_cells)
    first = metrics[0] if metrics else "n"
    for lost in found.lost:
        rows.append({"mark": "", "n": 0, **lost.values, first: tables.Spanning(lost.reason)})
    return columns, rows


def cost_columns(groups: Sequence[Group]) -> list[Column]:
    """Return the columns of what a setting costs: its parameters and the mean time of a job, where they are known.

    They matter most where the settings are architectures of different sizes. Else a report shows them on request.
    """
    sizes = {group.records[0].parameters for group in groups} - {None}
    has_one_size = len(sizes) < 2
    columns = []
    if sizes:
        columns.append(Column("parameters", priority=2, on_request=has_one_size))
    if any(group.seconds is not None for group in groups):
        columns.append(Column("time", "time of a job", priority=2, on_request=has_one_size))
    return columns


def costs_of(group: Group) -> dict[str, str]:
    """Return the cells of `cost_columns` for a setting."""
    parameters = group.records[0].parameters
    seconds = group.seconds
    return {
        "parameters": "" if parameters is None else f"{parameters:,}",
        "time": "" if seconds is None else records.duration(seconds),
    }


BASELINE_COLUMNS = (
    Column("difference", "against/baseline", priority=0),
    Column("difference interval", "difference/95 % interval", priority=2),
    Column("p", priority=0),
)


def _order_metrics(about: Comparison) -> list[str]:
    """Return the metrics of the table: first the one that chooses, and none of the training split."""
    names = [name for name in about.outcome.metrics if not name.startswith("train/") or name == about.on]
    first = [about.by.metric] if about.by else []
    return list(dict.fromkeys([*first, *names]))


def _write_metric(groups: Sequence[Group], name: str) -> tuple[list[str], list[str]]:
    """Write a metric of each setting as mean ± deviation, and its interval ("" where there is none)."""
    spreads = [group.spread(name) for group in groups]
    known = [spread for spread in spreads if spread]
    digits = statistics.decimals([spread.std for spread in known], [spread.mean for spread in known])
    cells = []
    intervals = []
    for group, spread in zip(groups, spreads, strict=True):
        if spread is None:
            cells.append("no number")
            intervals.append("")
            continue
        deviation = f"{PM}{spread.std:.{digits}f}" if spread.std is not None else ""
        is_partial = spread.n < len(group.records)
        count = f" ({spread.n} of {len(group.records)})" if is_partial else ""
        cells.append(f"{spread.mean:.{digits}f}{deviation}{count}")
        has_interval = spread.low is not None
        intervals.append(f"{spread.low:.{digits}f} to {spread.high:.{digits}f}" if has_interval else "")
    return _align(cells), _align(intervals)


def _align(cells: Sequence[str]) -> list[str]:
    """Pad numbers on the left, so that their decimal points stand below each other."""
    widest = max((len(cell.partition(".")[0]) for cell in cells), default=0)
    aligned = []
    for cell in cells:
        before, point, after = cell.partition(".")
        aligned.append(f"{before:>{widest}}{point}{after}" if cell else "")
    return aligned


def metric_rows(about: Comparison, group: Group) -> Rows:
    """Make the table of a single setting.

    Returns:
        The columns, and one row for each metric.
    """
    rows: list[Row] = []
    for name in _order_metrics(about):
        (value,), (interval,) = _write_metric([group], name)
        mark = MARK if about.by is not None and name == about.by.metric else ""
        rows.append({"mark": mark, "metric": name, "value": value, "interval": interval})
    title = f"mean ± deviation, n = {len(group.records)}" if len(group.records) > 1 else "value"
    columns = [Column("mark", " ", 0), Column("metric", "", 0), Column("value", title, 0)]
    return [*columns, Column("interval", "95 % interval", 1)], rows


def _write_pairs(about: Comparison) -> list[Row]:
    """Write the comparison of each setting with the baseline."""
    widths = []
    for pair in about.pairs:
        if pair and pair.low is not None and pair.high is not None:
            widths.append(pair.high - pair.low)
    digits = statistics.decimals(widths, [pair.difference for pair in about.pairs if pair])
    rows: list[Row] = []
    for group, pair, p in zip(about.groups, about.pairs, about.corrected, strict=True):
        if group is about.baseline:
            rows.append({"difference": "baseline"})
            continue
        if pair is None:
            rows.append({"difference": f"no common {name_plural(about.outcome).removesuffix('s')}"})
            continue
        interval = f"{pair.low:+.{digits}f} to {pair.high:+.{digits}f}" if pair.low is not None else ""
        difference = f"{pair.difference:+.{digits}f}"
        rows.append({"difference": difference, "difference interval": interval, "p": write_p(p)})
    return rows


def write_p(p: float | None) -> str:
    """Write a p-value with as many digits as it deserves; "" for None."""
    if p is None:
        return ""
    if p < 0.001:
        return "<0.001"
    return f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"


def plain(about: Comparison) -> Rows:
    """Make the table for programs (CSV and JSON): numbers in full, one in each column.

    Returns:
        The columns, and one row for each setting.
    """
    tied = about.tied
    rows: list[Row] = []
    for group, pair, p in zip(about.groups, about.pairs, about.corrected, strict=True):
        row: Row = {**group.values, "best": group in tied, "n": len(group.records), "seeds": group.seeds}
        first = group.records[0]
        row |= {"parameters": first.parameters, "trainable": first.trainable, "seconds/mean": group.seconds}
        for name in about.outcome.metrics:
            spread = group.spread(name)
            for fact in SPREAD_FACTS:
                row[f"{name}/{fact}"] = getattr(spread, fact, None)
        if about.baseline:
            row["compared"] = about.on
            row["baseline"] = group is about.baseline
            for fact in PAIR_FACTS:
                row[f"difference/{fact}"] = getattr(pair, fact, None)
            row["difference/p_corrected"] = p
        rows.append(row)
    for lost in about.outcome.lost:
        rows.append({**lost.values, "best": False, "n": 0, "reason": lost.reason})
    keys = dict.fromkeys(key for row in rows for key in row)
    return [Column(key) for key in keys], rows


SPREAD_FACTS = ("mean", "std", "low", "high", "n")
PAIR_FACTS = ("difference", "low", "high", "n", "p", "p_signs", "smallest")


# -- words --------------------------------------------------------------------------------------------------------


def name_replicates(found: Outcome) -> list[str]:
    """Return what a replicate is called: the last part of each key, "seed" or "fold"."""
    return [path.rpartition(".")[2] for path in found.groups[0].over]


def name_plural(found: Outcome) -> str:
    """Return what several replicates are called: "seeds", "folds"; "replicates" where both vary."""
    names = name_replicates(found)
    return f"{names[0]}s" if len(names) == 1 else "replicates"
