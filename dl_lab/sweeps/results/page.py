"""What a report says, and the same as Markdown. `page_html` writes it as one HTML file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dl_lab.runs import records
from dl_lab.runs.files import as_mapping, read_json, read_records
from dl_lab.runs.records import Record
from dl_lab.show import tables
from dl_lab.show.judge import Published, judge
from dl_lab.show.tables import Column
from dl_lab.sweeps.results.drawing import Curve, Dots
from dl_lab.sweeps.results.rows import Row, Rows

MOST_FIGURES = 6  # of a run that the page shows
MOST_BYTES = 1_500_000  # of a figure that is put into the page
MODES = {"max": "at least", "min": "at most", "equal": "equal to"}


@dataclass
class Section:
    """What the page says about one experiment.

    Attributes:
        title: The experiment's name; "" where the page has one section.
        question: What the experiment asks; "" where it asks nothing.
        sentences: What was found.
        notation: How to read the table; "" where it explains itself.
        table: Setting, n, val, test, interval, parameters, time; the row of a clearly best setting has `mark`.
        more: Every metric of every setting, a row each.
        published: Published figures beside the measured ones.
        sources: Where the published figures are from.
        curves: Metric -> one curve for each of the first settings.
        dots: Metric -> the final values of each setting.
        figures: Figures of the best run, by file.
        figures_of: The run of these figures, in words.
        matters: Which swept keys matter for the metric that chooses the best.
    """

    title: str
    question: str
    sentences: Sequence[str]
    notation: str
    table: Rows
    more: Rows | None
    published: Rows | None
    sources: Sequence[str]
    curves: Mapping[str, Sequence[Curve]]
    dots: Mapping[str, Sequence[Dots]] = field(default_factory=dict)
    figures: Sequence[Path] = ()
    figures_of: str = ""
    matters: Rows | None = None


@dataclass
class Page:
    """Everything on the page.

    Attributes:
        title: The page's title: the question, or what was run.
        facts: Data, seeds, hardware, date and folder, in words.
        sections: One section for each experiment.
        settings: The settings that all jobs share.
        runs: Every job; None for a single run.
        environment: Where it ran: versions, devices, git.
        commands: How to reproduce it.
    """

    title: str
    facts: Mapping[str, str]
    sections: Sequence[Section]
    settings: Rows
    runs: Rows | None
    environment: Rows
    commands: Sequence[str] = field(default_factory=list)


# -- what sweeps and runs share -----------------------------------------------------------------------------------


def facts_of(found: Sequence[Record], folder: Path) -> dict[str, str]:
    """Collect the facts at the top of the page: data, seeds, hardware, date, computing time, folder.

    Args:
        found: The jobs; the first one's environment stands for all.
        folder: The folder of the sweep, or of the run.

    Returns:
        Each fact in words, by its title; "" where it is not known.
    """
    environment = read_json(found[0].folder / "env.json") or {}
    gpus = as_mapping(environment.get("devices")).get("gpus") or []
    seeds = sorted({str(record.config.get("seed")) for record in found}, key=lambda text: (len(text), text))
    started = min((record.started for record in found if record.started), default=None)
    return {
        "Data": _describe_data(found),
        "Seeds" if len(seeds) > 1 else "Seed": ", ".join(seeds),
        "Hardware": ", ".join(gpus) or str(environment.get("cpu") or ""),
        "Date": f"{started:%Y-%m-%d %H:%M}" if started else "",
        "Computing time": _write_duration(sum(record.seconds or 0 for record in found)),
        "Folder": str(folder),
    }


def _describe_data(found: Sequence[Record]) -> str:
    """Name the data sets and their labels; where all data are a part of the official ones, say which part."""
    named: dict[str, None] = {}
    labels = set()
    for record in found:
        if record.dataset:
            named[f"{record.dataset} ({record.label or 'no label'})"] = None
            labels.add(record.label)
    data = ", ".join(named)
    summary = read_json(found[0].folder / "summary.json") or {}
    note = as_mapping(summary.get("dataset")).get("note")
    return f"{data}: {note}" if note and labels == {"part"} else data


def _write_duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def compare_published(metrics: Mapping[str, float], reference: Mapping[str, Published], other_data: str) -> list[Row]:
    """Compare measured metrics with published figures.

    Args:
        metrics: The measured metrics, by their full names.
        reference: The published figure of each metric.
        other_data: What was measured on, where it is not the full official data; "" otherwise.

    Returns:
        One row for each published figure.
    """
    rows: list[Row] = []
    for verdict in judge(dict(metrics), reference):
        reached = "yes" if verdict.passed else "no"
        tolerance = f" (tolerance {verdict.tolerance:g})" if verdict.tolerance else ""
        rows.append(
            {
                "metric": verdict.metric,
                "measured": verdict.measured,
                "published": f"{MODES[verdict.mode]} {tables.number(verdict.published)}{tolerance}",
                "reached": f"not comparable: {other_data}" if other_data else reached,
            }
        )
    return rows


def epochs_of(record: Record) -> list[dict[str, Any]]:
    """Read what a run logged after each epoch: metrics by their full names, and the number of the epoch."""
    return [row for row in read_records(record.folder / "metrics.jsonl") if row.get("epoch") is not None]


def curve_of(name: str, found: Sequence[Record], metric: str) -> Curve:
    """Make the curve of a metric over the epochs.

    Args:
        name: What the curve is of.
        found: The jobs of one setting: the curve is their mean.
        metric: The metric's full name.
    """
    at: dict[float, list[float]] = {}
    for record in found:
        for row in epochs_of(record):
            value = row.get(metric)
            if isinstance(value, int | float) and math.isfinite(value):
                at.setdefault(row["epoch"], []).append(value)
    epochs = sorted(at)
    means = [(epoch, sum(at[epoch]) / len(at[epoch])) for epoch in epochs]
    low = [(epoch, min(at[epoch])) for epoch in epochs]
    high = [(epoch, max(at[epoch])) for epoch in epochs]
    return Curve(name, means, low, high)


def pictures_of(folder: Path) -> list[Path]:
    """Return the figures of a run that are small enough for the page."""
    found = sorted((folder / "figures").glob("*.png"))
    return [path for path in found if path.stat().st_size <= MOST_BYTES][:MOST_FIGURES]


def settings_of(found: Sequence[Record]) -> Rows:
    """Make the table of the settings that all jobs share."""
    differing = set(records.differing(found))
    rows: list[Row] = []
    for path, value in found[0].config.items():
        if path not in differing:
            rows.append({"setting": path, "value": value})
    return [Column("setting"), Column("value", exact=True)], rows


def environment_of(record: Record) -> Rows:
    """Make the table of a run's environment: versions, devices, git."""
    facts = read_json(record.folder / "env.json") or {}
    devices = as_mapping(facts.get("devices"))
    git = as_mapping(facts.get("git"))
    packages = as_mapping(facts.get("packages"))
    changes = ", with uncommitted changes (diff.patch in each run's folder)" if git.get("dirty") else ""
    shown = {
        "dl-lab": facts.get("dl_lab"),
        "code": facts.get("code"),
        "git": f"{git['sha']}{changes}" if git.get("sha") else None,
        "Python": facts.get("python"),
        "torch": devices.get("torch") or packages.get("torch"),
        "numpy": packages.get("numpy"),
        "GPU": ", ".join(devices.get("gpus") or []) or "none",
        "processor": facts.get("cpu"),
        "threads": devices.get("threads"),
        "platform": facts.get("platform"),
        "date": facts.get("time"),
    }
    rows: list[Row] = []
    for name, value in shown.items():
        if value is not None:
            rows.append({"what": name, "value": str(value)})
    return [Column("what"), Column("value")], rows


# -- Markdown -----------------------------------------------------------------------------------------------------


def markdown(page: Page) -> str:
    """Write the page as Markdown, without its curves and pictures (they are in the HTML)."""
    facts = [f"- {name}: {value}" for name, value in page.facts.items() if value]
    parts = [f"# {page.title}", "\n".join(facts)]
    for section in page.sections:
        parts += _write_section(section)
    parts += ["## How to reproduce", "```console\n" + "\n".join(page.commands) + "\n```"]
    for title, rows in (("Every job", page.runs), ("The same in all", page.settings), ("Where", page.environment)):
        if rows:
            parts += [f"## {title}", tables.markdown(*rows)]
    return "\n\n".join(parts) + "\n"


def _write_section(section: Section) -> list[str]:
    parts = [f"## {section.title or 'Result'}"]
    if section.question:
        parts.append(f"> {section.question}")
    parts.append("\n".join(f"- {sentence}" for sentence in section.sentences))
    columns, rows = section.table
    shown = []
    for row in rows:
        is_best = row.get("mark") and "setting" in row  # the table of a single run has metrics as rows
        shown.append({**row, "setting": f"**{row['setting']}**"} if is_best else dict(row))
    parts.append(tables.markdown(columns, shown))
    if section.notation:
        parts.append(section.notation)
    if section.matters:
        parts += ["### What matters", tables.markdown(*section.matters)]
    if section.published:
        parts += ["### Published figures", tables.markdown(*section.published)]
        parts += [f"Source of {source}" for source in section.sources]
    if section.more:
        parts += ["### Every metric", tables.markdown(*section.more)]
    return parts
