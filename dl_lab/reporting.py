"""What a run says on the screen: what is about to happen, and what came out beside the reference figures."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from dl_lab import catalogue, records, tables
from dl_lab.run import Run
from dl_lab.tables import Column
from dl_lab.types import Metrics

MOST_METRICS = 40
NO_DEVIATION = (
    "experiment",
    "threads",
    "seed",
    "logger",
    "profile",
    "paths",
    "hydra",
    "trainer.device",
    "callbacks",
)


def header(run: Run, choices: Mapping[str, str], facts: Mapping[str, Any], width: int) -> list[str]:
    """What is about to run: the question, data, model, device and folder. facts: of `Fit.describe`, if any."""
    question = _shipped(choices)
    lines = tables.wrapped(question.question, width) if question else []
    about = {
        "Experiment": title(run.config, choices),
        "Data": _data(facts["dataset"]) if "dataset" in facts else "",
        "Model": _model(choices, facts) if "parameters" in facts else "",
        "Device": _device(facts.get("device", ""), run.config.get("threads")),
        "Run folder": str(run.folder),
    }
    return [*lines, *_pairs(about, width)]


def report(run: Run, choices: Mapping[str, str], metrics: Metrics, width: int) -> list[str]:
    """The result: measured beside the reference, what must be said about it, and where to look."""
    facts, reference = run.summary, run.config.get("reference") or {}
    dataset = facts.get("dataset") or {}
    heading = [title(run.config, choices)]
    heading += [f"{dataset['name']} ({dataset['label']})"] if dataset else []
    heading += [f"seed {run.config['seed']}"]
    heading += [f"{facts['epochs']} epochs" if facts["epochs"] != 1 else "1 epoch"] if facts.get("epochs") else []
    measured = [name for name in records.in_order(metrics) if isinstance(metrics[name], int | float)]
    shown = [name for name in measured if name in reference]
    compared: Sequence[Mapping[str, Any]] = facts.get("comparison") or []
    if not compared:
        shown = measured if len(measured) <= MOST_METRICS else (shown or measured)[:MOST_METRICS]
    lines = [*tables.wrapped(", ".join(heading), width, indent="  "), ""]
    if compared:
        columns = [Column(key, key.replace("_", " "), i) for i, key in enumerate(compared[0])]  # what matters, first
        lines += [*tables.text(columns, compared, width, rule=True, whole="tables/").splitlines(), ""]
    if shown:
        lines += result_table(metrics, shown, reference, width)
    if len(shown) < len(measured):
        lines += [f"... {len(measured) - len(shown)} more in summary.json"]
    notes = [*_sources(reference, shown), *_notes(run, choices, dataset, reference)]
    for note in notes:
        lines += tables.wrapped(note, width, indent="  ")
    outputs = (run.config.get("paths") or {}).get("output_dir", "outputs")
    return [
        *lines,
        "",
        *_pairs({"Run folder": str(run.folder), "TensorBoard": f"tensorboard --logdir {outputs}"}, width),
    ]


def title(config: Mapping[str, Any], choices: Mapping[str, str]) -> str:
    """`octmnist_cnn (IST2-CNN)`; without an experiment the parts: `mlp on digits`."""
    if "experiment" in choices:
        return choices["experiment"] + (f" ({config['id']})" if config.get("id") else "")
    return " on ".join(choices[group] for group in ("model", "dataset") if group in choices)


def result_table(metrics: Metrics, names: Sequence[str], reference: Mapping[str, Any], width: int) -> list[str]:
    """One row a metric; the reference figure and the difference where there is one."""
    rows: list[dict[str, Any]] = []
    for name in names:
        rows.append({"metric": name, "measured": float(metrics[name])})
        if name in reference:
            expected = float(reference[name]["value"])
            rows[-1] |= {"reference": expected, "difference": _signed(metrics[name] - expected)}
    columns = [Column("metric", priority=0), Column("measured", priority=0)]
    if any("reference" in row for row in rows):
        columns += [Column("reference", priority=0), Column("difference", priority=0)]
    return tables.text(columns, rows, width, rule=True).splitlines()


def _signed(difference: float) -> str:
    text = tables.number(difference)
    return text if text.startswith("-") else f"+{text}"


def _sources(reference: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """`Reference (test/accuracy): where`, one line a source."""
    by_source: dict[str, list[str]] = {}
    for name in names:
        if name in reference and reference[name].get("source"):
            by_source.setdefault(reference[name]["source"], []).append(name)
    return [f"Reference ({', '.join(about)}): {source}" for source, about in by_source.items()]


def _notes(run: Run, choices: Mapping[str, str], dataset: Mapping[str, Any], reference: Mapping[str, Any]) -> list[str]:
    """What keeps these figures from being a result, or from being comparable with the reference."""
    notes = []
    if dataset.get("label") == "generated":
        notes.append("Note: the data are generated. These figures say nothing about the real data set.")
    if dataset.get("label") == "part":
        notes.append(f"Note: measured on a part of {dataset['name']} ({dataset['note']}), not on the full data set.")
    experiment = _shipped(choices)
    other = choices.get("dataset", "") not in ("", getattr(experiment, "dataset", ""))
    if reference and experiment and other and dataset.get("name") != experiment.dataset:
        notes.append(f"Note: the reference figures are for {experiment.dataset}, these for {choices['dataset']}.")
    changed = [word for word in records.overrides(run.folder) if not _harmless(word)]
    if reference and changed:
        notes.append(f"Note: the settings are not the experiment's own: {' '.join(changed)}")
    return notes


def _harmless(override: str) -> bool:
    key = override.lstrip("+~").partition("=")[0]
    return key in NO_DEVIATION or key.startswith(tuple(f"{name}." for name in NO_DEVIATION)) or key == "dataset"


def _shipped(choices: Mapping[str, str]) -> catalogue.Experiment | None:
    """The experiment as dl-lab ships it; None for none, and for a user's own."""
    return _experiment(choices.get("experiment", ""))


_experiment = functools.cache(catalogue.experiment)  # a lane runs many jobs of one


def _data(dataset: Mapping[str, Any]) -> str:
    sizes = ", ".join(f"{size:,} {split}" for split, size in dataset["sizes"].items())
    note = f": {dataset['note']}" if dataset["label"] == "part" and dataset["note"] else ""
    return f"{dataset['name']} ({dataset['label']}{note}), {sizes}"


def _model(choices: Mapping[str, str], facts: Mapping[str, Any]) -> str:
    every, trainable = facts["parameters"], facts["trainable"]
    counts = f"{every:,} parameters" + (f", {trainable:,} of them trained" if trainable != every else "")
    return f"{choices.get('model', '')}, {counts}".lstrip(", ")


def _device(device: str, threads: int | None) -> str:
    return f"{device}, {threads} thread{'s' * (threads > 1)}" if device == "cpu" and threads else device


def _pairs(pairs: Mapping[str, str], width: int) -> list[str]:
    """Aligned `name  value` lines; a long value is not broken, so that it can be copied."""
    there = {name: value for name, value in pairs.items() if value}
    size = max(map(len, there))
    lines = []
    for name, value in there.items():
        line = f"{name:<{size}}  {value}"
        fits = len(line) <= width or name in ("Run folder", "TensorBoard")
        lines += [line] if fits else tables.wrapped(line, width, indent=" " * (size + 2))
    return lines
