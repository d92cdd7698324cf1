"""What a run prints: a header before the work, and a report with the published figures after it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dl_lab import keys
from dl_lab.configs import catalogue
from dl_lab.runs import records
from dl_lab.runs.find import short_name
from dl_lab.runs.recorder import Run
from dl_lab.show import tables
from dl_lab.show.doctor.diagnose import diagnose
from dl_lab.show.doctor.evidence import VITALS_FILE, find_fits
from dl_lab.show.judge import Published
from dl_lab.show.tables import Column
from dl_lab.types import Metrics, count

MOST_METRICS = 40
MOST_COLUMNS = 40
MOST_SPARKLINES = 4


def header(run: Run, choices: Mapping[str, str], facts: Mapping[str, Any], width: int) -> list[str]:
    """Describe what is about to run: the question, the data, the model, the device and the folder.

    Args:
        run: The run.
        choices: The chosen option of each config group.
        facts: What the procedure's `describe` returned.
        width: The columns of the terminal.
    """
    experiment = _find_shipped(choices)
    lines = tables.wrap(experiment.question, width) if experiment else []
    about = {
        "Experiment": title(run.config, choices),
        "Data": _data(facts["dataset"]) if "dataset" in facts else "",
        "Model": _model(choices, facts) if "parameters" in facts else "",
        "Device": _device(facts.get("device", ""), run.config.get("threads")),
        "Run folder": str(run.folder),
    }
    understood = facts.get("dataset", {}).get("about", [])
    return [*lines, *_pairs(about, width), *_describe_data(understood, width)]


def _describe_data(about: Sequence[str], width: int) -> list[str]:
    """Say how a data set understood a file or folder of the user."""
    if not about:
        return []
    lines = ["Your data"]
    for line in about[:MOST_COLUMNS]:
        lines.append(f"  {line}" if len(line) <= width - 2 else f"  {line[: width - 5]}...")
    if len(about) > MOST_COLUMNS:
        lines.append(f"  ... {len(about) - MOST_COLUMNS} more in summary.json")
    return lines


def report(run: Run, choices: Mapping[str, str], metrics: Metrics, width: int) -> list[str]:
    """Describe the result: measured figures beside published ones, notes about them, and where to look further.

    Args:
        run: The run.
        choices: The chosen option of each config group.
        metrics: The final metrics.
        width: The columns of the terminal.
    """
    facts = run.summary
    reference = run.config.get("reference") or {}
    dataset = facts.get("dataset") or {}
    lines = [*tables.wrap(_heading(run, choices, dataset), width, indent="  "), ""]
    measured = [name for name in records.in_order(metrics) if isinstance(metrics[name], int | float)]
    shown = [name for name in measured if name in reference]
    comparison: Sequence[Mapping[str, Any]] = facts.get("comparison") or []
    if comparison:  # a procedure's own table, its most important columns first
        columns = [Column(key, key.replace("_", " "), i) for i, key in enumerate(comparison[0])]
        lines += [*tables.text(columns, comparison, width, rule=True, whole="tables/").splitlines(), ""]
    elif len(measured) <= MOST_METRICS:
        shown = measured
    else:
        shown = (shown or measured)[:MOST_METRICS]
    if shown:
        lines += result_table(metrics, shown, reference, width)
    if len(shown) < len(measured):
        lines += [f"... {len(measured) - len(shown)} more in summary.json"]
    lines += _sparklines(run, width)
    for note in [*_sources(reference, shown), *_notes(run, choices, dataset, reference)]:
        lines += tables.wrap(note, width, indent="  ")
    lines += _doctor_lines(run, width)
    links = {"Run folder": str(run.folder), "TensorBoard": f"dl-lab tensorboard {_handle(run.folder)}"}
    return [*lines, "", *_pairs(links, width)]


def _heading(run: Run, choices: Mapping[str, str], dataset: Mapping[str, str]) -> str:
    parts = [title(run.config, choices)]
    if dataset:
        parts.append(f"{dataset['name']} ({dataset['label']})")
    parts.append(f"seed {run.config['seed']}")
    epochs = run.summary.get("epochs")
    if epochs:
        parts.append(count(epochs, "epoch"))
    return ", ".join(part for part in parts if part)


def _doctor_lines(run: Run, width: int) -> list[str]:
    """Say what the doctor found, a line each; [] where it found nothing or did not watch."""
    lines: list[str] = []
    for fit in find_fits(run.folder):
        where = "" if fit == run.folder else f" in {fit.name}"
        findings = diagnose(fit) if (fit / VITALS_FILE).exists() else []
        for finding in findings:
            lines += tables.wrap(f"Doctor: {finding.words}{where}. {finding.seen}", width, indent="  ")
    if lines:
        lines.append(f"  What to try:  dl-lab doctor {short_name(run.folder)}")
    return lines


def _handle(folder: Path) -> str:
    """Return what a verb takes for a run: its short name below the default folder, else its path."""
    return short_name(folder) if folder.parts[:1] == ("outputs",) else str(folder)


def _sparklines(run: Run, width: int) -> list[str]:
    """Draw the loss and the main metrics over the epochs: first value, bars, last value."""
    epochs = [row for row in run.records() if row.get("epoch") is not None]
    monitor = str((run.config.get("trainer") or {}).get("monitor", ""))
    wanted = dict.fromkeys((monitor, "train/loss", "val/loss", "val/accuracy"))
    lines = []
    for name in wanted:
        values = [row[name] for row in epochs if isinstance(row.get(name), int | float)]
        if len(values) > 1 and len(lines) < MOST_SPARKLINES:
            ends = f"{tables.number(values[0])} -> {tables.number(values[-1])}"
            lines.append(f"{name:<13} {tables.sparkline(values, max(8, min(24, width - 40)))}  {ends}")
    return ["", *lines] if lines else []


def title(config: Mapping[str, object], choices: Mapping[str, str]) -> str:
    """Return `octmnist_cnn (IST2-CNN)` for an experiment, else the parts: `mlp on digits`."""
    if "experiment" not in choices:
        return " on ".join(choices[group] for group in ("model", "dataset") if group in choices)
    name = choices["experiment"]
    return f"{name} ({config['id']})" if config.get("id") else name


def result_table(metrics: Metrics, names: Sequence[str], reference: Mapping[str, Published], width: int) -> list[str]:
    """Return a table with one row a metric, with the published figure and the difference where there is one."""
    rows: list[dict[str, object]] = []
    for name in names:
        rows.append({"metric": name, "measured": float(metrics[name])})
        if name in reference:
            expected = float(reference[name]["value"])
            rows[-1] |= {"reference": expected, "difference": _with_sign(metrics[name] - expected)}
    columns = [Column("metric", priority=0), Column("measured", priority=0)]
    if any("reference" in row for row in rows):
        columns += [Column("reference", priority=0), Column("difference", priority=0)]
    return tables.text(columns, rows, width, rule=True).splitlines()


def _with_sign(difference: float) -> str:
    text = tables.number(difference)
    return text if text.startswith("-") else f"+{text}"


def _sources(reference: Mapping[str, Published], names: Sequence[str]) -> list[str]:
    """Return `Reference (test/accuracy): SOURCE`, one line a source."""
    by_source: dict[str, list[str]] = {}
    for name in names:
        source = reference[name].get("source") if name in reference else None
        if source:
            by_source.setdefault(source, []).append(name)
    return [f"Reference ({', '.join(about)}): {source}" for source, about in by_source.items()]


def _notes(
    run: Run, choices: Mapping[str, str], dataset: Mapping[str, object], reference: Mapping[str, Published]
) -> list[str]:
    """Say why these figures are no result, or cannot be compared with the published ones."""
    notes = []
    if dataset.get("label") == "generated":
        notes.append("Note: the data are generated. These figures say nothing about the real data set.")
    if dataset.get("label") == "part":
        notes.append(f"Note: measured on a part of {dataset['name']} ({dataset['note']}), not on the full data set.")
    if not reference:
        return notes
    experiment = _find_shipped(choices)
    if experiment is not None and experiment.dataset != catalogue.UNUSED:
        chosen = choices.get("dataset", "")
        if chosen not in ("", experiment.dataset) and dataset.get("name") != experiment.dataset:
            notes.append(f"Note: the reference figures are for {experiment.dataset}, these for {chosen}.")
    own = experiment.content if experiment else {}
    changed = [word for word in records.overrides(run.folder) if _is_deviation(word, own)]
    if changed:
        notes.append(f"Note: the settings are not the experiment's own: {' '.join(changed)}")
    return notes


def _is_deviation(override: str, own: Mapping[str, object]) -> bool:
    """Whether a word of the command line makes a run differ from the published experiment.

    A value that the experiment's own file sets is no deviation. Another data set has a note of its own.

    Args:
        override: A word like optimizer.lr=0.01.
        own: What the file of the experiment sets.
    """
    key = keys.of_word(override)
    if key == "dataset" or not keys.counts(key).published:
        return False
    return not _is_set(own, key, override.partition("=")[2])


def _is_set(own: Mapping[str, object], key: str, text: str) -> bool:
    """Whether a file sets a key to the value that a text stands for."""
    import yaml

    node: object = own
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return False
        node = node[part]
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return False
    if value == node:
        return True
    try:
        return float(text) == float(str(node))  # for YAML, 1e-3 is a text
    except ValueError:
        return False


def _find_shipped(choices: Mapping[str, str]) -> catalogue.Experiment | None:
    """Return the experiment as dl-lab ships it; None where none is chosen, and for a user's own."""
    return _find_experiment(choices.get("experiment", ""))


_find_experiment = functools.cache(catalogue.experiment)  # a lane runs many jobs of one experiment


def _data(dataset: Mapping[str, Any]) -> str:
    sizes = ", ".join(f"{size:,} {split}" for split, size in dataset["sizes"].items())
    note = f": {dataset['note']}" if dataset["label"] != "generated" and dataset["note"] else ""
    return f"{dataset['name']} ({dataset['label']}{note}), {sizes}"


def _model(choices: Mapping[str, str], facts: Mapping[str, Any]) -> str:
    counts = f"{facts['parameters']:,} parameters"
    if facts["trainable"] != facts["parameters"]:
        counts += f", {facts['trainable']:,} of them trained"
    return f"{choices['model']}, {counts}" if "model" in choices else counts


def _device(device: str, threads: int | None) -> str:
    if device != "cpu" or not threads:
        return device
    return f"{device}, 1 thread" if threads == 1 else f"{device}, {threads} threads"


def _pairs(pairs: Mapping[str, str], width: int) -> list[str]:
    """Return aligned `name  value` lines. The name of a folder or a command is not broken, so that it can be copied."""
    there = {name: value for name, value in pairs.items() if value}
    size = max(map(len, there))
    lines = []
    for name, value in there.items():
        line = f"{name:<{size}}  {value}"
        fits = len(line) <= width or name in ("Run folder", "TensorBoard")
        lines += [line] if fits else tables.wrap(line, width, indent=" " * (size + 2))
    return lines
