"""Collect the report of a single run."""

from __future__ import annotations

from collections.abc import Sequence

from dl_lab.runs import records
from dl_lab.runs.records import Record
from dl_lab.show.doctor.diagnose import summarise
from dl_lab.show.judge import judge
from dl_lab.show.tables import Column
from dl_lab.sweeps.results.drawing import Curve
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
from dl_lab.sweeps.results.rows import Row
from dl_lab.types import UserError

MOST_CURVES = 4


def collect(record: Record, question: str, commands: Sequence[str]) -> Page:
    """Read what the page shows about one run.

    Args:
        record: The run.
        question: What its experiment asks; "" where it asks nothing.
        commands: How to reproduce the run.

    Raises:
        UserError: The run measured nothing yet.
    """
    if not record.metrics:
        raise UserError(f"{record.folder} is {record.state} and measured nothing yet.")
    numbers: dict[str, float] = {}
    for name in records.in_order(record.metrics):
        value = record.metrics[name]
        if isinstance(value, int | float):  # a metric that is not finite is null in the record
            numbers[name] = float(value)
    rows: list[Row] = [{"metric": name, "value": value} for name, value in numbers.items()]
    other_data = record.data if record.label in ("part", "generated") else ""
    reference = compare_published(numbers, record.reference, other_data)
    sources = [f"{verdict.metric}: {verdict.source}" for verdict in judge(numbers, record.reference)]
    subject = f"{record.name} on {record.dataset}" if record.dataset else record.name
    section = Section(
        title="",
        question="",
        sentences=_write_sentences(record),
        notation="",
        table=([Column("metric"), Column("value")], rows),
        more=None,
        published=([Column(key) for key in reference[0]], reference) if reference else None,
        sources=list(dict.fromkeys(sources)),
        curves=_make_curves(record),
        figures=pictures_of(record.folder),
        figures_of="this run",
    )
    return Page(
        title=question or subject,
        facts=facts_of([record], record.folder),
        sections=[section],
        settings=settings_of([record]),
        runs=None,
        environment=environment_of(record),
        commands=commands,
    )


def _write_sentences(record: Record) -> list[str]:
    lines = []
    if record.state != "done":
        lines.append(f"Warning: the run is {record.state}; the metrics are those of its last epoch.")
    if record.label in ("part", "generated"):
        lines.append(f"The data are {record.data}: not a result on the full official data.")
    lines += summarise([record.folder])
    lines.append("Warning: one run with one seed says nothing about the spread: a difference may be luck.")
    return lines


def _make_curves(record: Record) -> dict[str, list[Curve]]:
    """Make the curves of training and validation for each measure: first the loss, then the accuracy."""
    splits: dict[str, dict[str, None]] = {}  # measure -> the splits that logged it, in their order
    for row in epochs_of(record):
        for name in row:
            split, _, measure = name.partition("/")
            if measure and split != "test":
                splits.setdefault(measure, {})[split] = None
    measures = sorted(splits, key=lambda name: (name != "loss", name != "accuracy"))
    figures = {}
    for measure in measures[:MOST_CURVES]:
        shown = [split for split in ("train", "val") if split in splits[measure]]
        figures[measure] = [curve_of(split, [record], f"{split}/{measure}") for split in shown]
    return figures
