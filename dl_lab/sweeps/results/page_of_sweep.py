"""Collect the report of a sweep: a section for each experiment, read from the sweep's folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dl_lab.runs.records import Record
from dl_lab.show import statistics, tables
from dl_lab.show.doctor.diagnose import summarise
from dl_lab.show.judge import judge
from dl_lab.show.tables import Column
from dl_lab.sweeps.results import comparison, prose
from dl_lab.sweeps.results.comparison import Comparison
from dl_lab.sweeps.results.drawing import Curve, Dots
from dl_lab.sweeps.results.groups import Group
from dl_lab.sweeps.results.importance import as_rows, measure_importance
from dl_lab.sweeps.results.outcome import Outcome
from dl_lab.sweeps.results.page import (
    Page,
    Section,
    compare_published,
    curve_of,
    environment_of,
    epochs_of,
    facts_of,
    pictures_of,
    settings_of,
)
from dl_lab.sweeps.results.rows import Row, Rows
from dl_lab.types import UserError

MOST_CURVES = 8  # settings in a figure of curves
MOST_METRICS = 4  # figures of curves
MOST_DOTS = 24  # settings in a figure of final values
MOST_RIVALS = 4  # settings that a sentence names


@dataclass(frozen=True)
class Asked:
    """How the settings are compared.

    Attributes:
        metric: The metric that ranks; None takes the one that the trainer watches.
        baseline: The setting that the others are compared with, in words.
        on: The metric of that comparison; None takes the first of the test split.
    """

    metric: str | None = None
    baseline: str | None = None
    on: str | None = None


def collect(found: Outcome, asked: Asked, questions: Mapping[str, str], commands: Sequence[str]) -> Page:
    """Read what the page shows about a sweep.

    Args:
        found: The sweep's finished jobs.
        asked: How the settings are compared.
        questions: Experiment -> its question.
        commands: How to reproduce the sweep.

    Raises:
        UserError: A metric or a baseline is not there.
    """
    comparisons = _compare_parts(found, asked)
    sections = []
    for title, about in comparisons.items():
        if len(comparisons) > 1:
            question = questions.get(_experiment_of(about.outcome.records[0]), "")
            sections.append(_make_section(about, title, question))
        else:  # the page's title says both
            sections.append(_make_section(about, "", ""))
    return Page(
        title=_title(found, list(comparisons), questions),
        facts=facts_of(found.records, found.folder),
        sections=sections,
        settings=settings_of(found.records),
        runs=_list_runs(found, list(comparisons.values())),
        environment=environment_of(found.records[0]),
        commands=commands,
    )


# -- the sections -------------------------------------------------------------------------------------------------


def _compare_parts(found: Outcome, asked: Asked) -> dict[str, Comparison]:
    """Compare the settings of each experiment and data set, by title, in the order of the grid.

    A metric or a baseline applies to the parts that have it; it is an error where no part has it.
    """
    parts = _divide(found)
    compared = {}
    errors = []
    for title, part in parts.items():
        try:
            compared[title] = comparison.compare(part, asked.metric, asked.baseline, asked.on)
        except UserError as error:
            errors.append(error)
            if len(errors) == len(parts):
                raise errors[0] from None
            compared[title] = comparison.compare(part)
    return compared


def _divide(found: Outcome) -> dict[str, Outcome]:
    """Divide the jobs by experiment and data set."""
    parts: dict[str, Outcome] = {}
    for block in found.blocks():
        names = list(dict.fromkeys(_experiment_of(record) for record in block.records))
        for name in names:
            part = block
            if len(names) > 1:
                members = [record for record in block.records if _experiment_of(record) == name]
                unfinished = [record for record in block.unfinished if _experiment_of(record) == name]
                part = block.part(members, unfinished)
            title = name
            if not name or name in parts:  # the same experiment on another data set
                title = f"{name or block.records[0].name}, {block.records[0].data}"
            parts[title] = part
    return parts


def _experiment_of(record: Record) -> str:
    return str(record.config.get("experiment", ""))


def _title(found: Outcome, names: Sequence[str], questions: Mapping[str, str]) -> str:
    """Return the question of the one experiment, or the names of several, or what varies."""
    record = found.records[0]
    if len(names) > 1:
        return f"{len(names)} comparisons: {'; '.join(names)}"
    question = questions.get(_experiment_of(record))
    if question:
        return question
    subject = f"{record.name} on {record.dataset}" if record.dataset else record.name
    varied = " and ".join(tables.short_names(found.paths).values())
    return f"{subject}: which {varied} is best?" if varied else subject


def _make_section(about: Comparison, title: str, question: str) -> Section:
    published, sources = _compare_published(about.groups)
    best = about.groups[0].records[0]
    matters = measure_importance(about.outcome, about.by.metric) if about.by else []
    return Section(
        title=title,
        question=question,
        sentences=[*prose.sentences(about), *_judge_best(about), *summarise(_choose_examined(about))],
        notation=prose.notation(about).removeprefix(f"{comparison.MARK} best; ").removeprefix("* best."),
        table=_make_main_table(about),
        more=_list_metrics(about),
        published=published,
        sources=sources,
        curves={metric: _make_curves(about.groups[:MOST_CURVES], metric) for metric in _choose_drawn(about)},
        dots={metric: _make_dots(about.groups[:MOST_DOTS], metric) for metric in _choose_main(about)},
        matters=as_rows(matters) if matters else None,
        figures=pictures_of(best.folder),
        figures_of=f"{about.groups[0].name or best.name}, seed {best.config.get('seed')}",
    )


def _choose_examined(about: Comparison) -> list[Path]:
    """Return the jobs that the doctor examines: those of the first settings, as a large sweep has thousands."""
    folders: list[Path] = []
    for group in about.groups[:MOST_DOTS]:
        folders += [record.folder for record in group.records]
    return folders


# -- the best -----------------------------------------------------------------------------------------------------


def rivals(about: Comparison) -> list[Group]:
    """Return the settings that the seeds cannot tell from the one with the best mean."""
    best = about.best
    if best is None or about.by is None:
        return []
    metric = about.by.metric
    found = []
    for other in about.groups[1:]:
        pair = statistics.compare_pairs(best.by_replicate(metric), other.by_replicate(metric))
        if pair is None or pair.p is None or pair.p >= statistics.LEVEL:
            found.append(other)
    return found


def _judge_best(about: Comparison) -> list[str]:
    """Say whether the best setting can be told from the others."""
    if about.best is None or len(about.groups) == 1:
        return []
    close = [group.name for group in rivals(about)]
    if not close:
        return [f"{about.best.name} is clearly best: its paired difference to every other setting has p < 0.05."]
    named = ", ".join(close[:MOST_RIVALS])
    more = " and others" if len(close) > MOST_RIVALS else ""
    return [f"No setting is marked as best: these runs cannot tell {about.best.name} from {named}{more}."]


# -- the tables ---------------------------------------------------------------------------------------------------


def _choose_main(about: Comparison) -> list[str]:
    """Return the validation metric that chooses, and one metric of the test split: the accuracy, or the same one."""
    chosen = [about.by.metric] if about.by else []
    tested = [name for name in about.outcome.metrics if name.startswith("test/")]
    same = about.by.metric.replace("val/", "test/") if about.by else ""
    shown = tested[:1]
    for preferred in ("test/accuracy", same):
        if preferred in tested:
            shown = [preferred]
            break
    return [*chosen, *shown] or list(about.outcome.metrics[:1])


def _make_main_table(about: Comparison) -> Rows:
    """Make the table of the settings: n, validation, test, interval, parameters, time, difference to a baseline."""
    _, pretty = comparison.pretty(about)
    metrics = _choose_main(about)
    interval_of = metrics[-1]
    is_clear = about.best is not None and len(about.groups) > 1 and not rivals(about)
    n_groups = len(about.groups)
    rows: list[Row] = []
    for group, found in zip(about.groups, pretty[:n_groups], strict=True):
        row: Row = {"setting": group.name or "all jobs", "n": len(group.records)}
        for name in metrics:
            row[name] = str(found.get(name, "")).strip()
        row["interval"] = str(found.get(f"{interval_of} interval", "")).strip()
        row.update(comparison.costs_of(group))
        row["mark"] = comparison.MARK if is_clear and group is about.best else ""
        if about.baseline:
            p = f" (p {found['p']})" if found.get("p") else ""
            row["difference"] = f"{found.get('difference', '')}{p}"
        rows.append(row)
    for lost in about.outcome.lost:
        words = [f"{path.rpartition('.')[2]}={value}" for path, value in lost.values.items()]
        rows.append({"setting": " ".join(words), "n": 0, metrics[0]: lost.reason})
    columns = [Column("setting"), Column("n"), *map(Column, metrics)]
    if any(row.get("interval") for row in rows):
        columns.append(Column("interval", f"95 % interval of {interval_of}"))
    columns += comparison.cost_columns(about.groups)
    if about.baseline:
        columns.append(Column("difference", f"{about.on} against the baseline"))
    return columns, rows


def _list_metrics(about: Comparison) -> Rows:
    """Make the table of every metric of every setting."""
    rows: list[Row] = []
    for group in about.groups:
        _, found = comparison.metric_rows(about, group)
        for row in found:
            values = {key: str(row[key]).strip() for key in ("metric", "value", "interval")}
            rows.append({"setting": group.name or "all jobs", **values})
    if all(len(group.records) == 1 for group in about.groups):
        return [Column("setting"), Column("metric"), Column("value", "value")], rows
    columns = [Column("setting"), Column("metric"), Column("value", "mean ± deviation")]
    return [*columns, Column("interval", "95 % interval")], rows


def _compare_published(groups: Sequence[Group]) -> tuple[Rows | None, list[str]]:
    """Compare the mean of each setting with the published figures; also return where those are from."""
    rows: list[Row] = []
    sources: list[str] = []
    for group in groups:
        reference = group.records[0].reference
        means = {}
        for name in reference:
            spread = group.spread(name)
            if spread:
                means[name] = spread.mean
        is_full = all(record.label not in ("part", "generated") for record in group.records)
        named: Row = {"setting": group.name} if len(groups) > 1 else {}
        for row in compare_published(means, reference, "" if is_full else group.records[0].data):
            rows.append({**named, **row})
        sources += [f"{verdict.metric}: {verdict.source}" for verdict in judge(means, reference)]
    table = ([Column(key) for key in rows[0]], rows) if rows else None
    return table, list(dict.fromkeys(sources))


def _list_runs(found: Outcome, comparisons: Sequence[Comparison]) -> Rows:
    """Make the table of every job: setting, seed, the main metrics, folder; of one that is not done why it ended."""
    metrics = list(dict.fromkeys(name for about in comparisons for name in _choose_main(about)))
    rows: list[Row] = []
    for about in comparisons:
        for group in about.groups:
            for record in group.records:
                name = group.name if len(comparisons) == 1 else f"{_experiment_of(record)} {group.name}".strip()
                row: Row = {"setting": name, "seed": record.config["seed"]}
                row.update({metric: record.metrics.get(metric) for metric in metrics})
                row["run"] = record.folder.name
                rows.append(row)
    for record in found.unfinished:
        setting = f"{record.state}: {record.error}" if record.error else record.state
        rows.append({"setting": setting, "seed": record.config.get("seed"), "run": record.folder.name})
    return [Column("setting"), Column("seed"), *map(Column, metrics), Column("run")], rows


# -- the figures --------------------------------------------------------------------------------------------------


def _choose_drawn(about: Comparison) -> list[str]:
    """Return the metrics with curves: first the one that chooses, then validation's, then the training loss."""
    first = about.outcome.records[0]
    logged = {name for row in epochs_of(first) for name in row}
    chosen = [about.by.metric] if about.by else []
    others = sorted(name for name in logged if name.startswith("val/"))
    wanted = dict.fromkeys([*chosen, "val/loss", "val/accuracy", "train/loss", *others])
    return [name for name in wanted if name in logged][:MOST_METRICS]


def _make_curves(groups: Sequence[Group], metric: str) -> list[Curve]:
    return [curve_of(group.name or "all jobs", group.records, metric) for group in groups]


def _make_dots(groups: Sequence[Group], metric: str) -> list[Dots]:
    rows = []
    for group in groups:
        name = group.name or "all jobs"
        values = [record.metrics[metric] for record in group.records if record.metrics.get(metric) is not None]
        spread = group.spread(metric)
        if spread is None:
            rows.append(Dots(name, values, math.nan, None, None))
        else:
            rows.append(Dots(name, values, spread.mean, spread.low, spread.high))
    return rows
