"""dl-lab list: the experiments and sweeps, and what each one asks."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dl_lab.configs import catalogue
from dl_lab.configs.catalogue import Entry, Experiment
from dl_lab.configs.words import did_you_mean
from dl_lab.show import tables
from dl_lab.show.colours import paint
from dl_lab.show.judge import Published
from dl_lab.show.options import Parser
from dl_lab.types import ConfigError

if TYPE_CHECKING:
    from dl_lab.training.summary import LayerRow


def main(argv: Sequence[str]) -> int:
    """Run `dl-lab list` and return the exit status."""
    options = parse(argv)
    problems: list[str] = []
    experiments = catalogue.experiments(options.config_dir, problems)
    for problem in problems:
        print(f"Left out: {problem}\n", file=sys.stderr)
    if options.names:
        return _list_some(options, experiments)
    counts = _count_parameters(experiments, options.config_dir) if options.params else {}
    sweeps = catalogue.entries("sweep", options.config_dir)
    if options.json:
        rows = [{**_facts(experiment), **counts.get(experiment.name, {})} for experiment in experiments]
        questions = [{"name": sweep.name, "question": sweep.question} for sweep in sweeps]
        print(json.dumps({"experiments": rows, "sweeps": questions}, indent=1))
        return 0
    width = tables.terminal_width()
    if options.params:
        for experiment in experiments:
            print("\n".join(_describe(experiment, counts.get(experiment.name), width)), end="\n\n")
    else:
        print("\n".join(_one_line_each(experiments, width)))
    _print_sweeps(sweeps, width)
    print(f"\n{len(experiments)} experiments and {len(sweeps)} sweeps. Run one:  dl-lab experiment=NAME")
    hint = "dl-lab list NAME tells all of one; dl-lab list WORD finds those that mention a word."
    print("\n".join(paint(line, "dim") for line in tables.wrap(hint, width)))
    return 0


def _print_sweeps(sweeps: Sequence[Entry], width: int) -> None:
    if sweeps:
        print(tables.paint("\nSweeps (dl-lab -m sweep=NAME)", "bold"))
        print("\n".join(_one_line_each(sweeps, width)))


LONGEST_NAME = 24  # a longer name moves its own question, not those of all others


def _one_line_each(entries: Sequence[Entry], width: int) -> list[str]:
    """Return a line for each entry: its name, and as much of its question as fits."""
    size = min(max((len(entry.name) for entry in entries), default=0), LONGEST_NAME)
    lines = []
    for entry in entries:
        line = f"{entry.name:<{size}}  {entry.question}"
        lines.append(line if len(line) <= width else f"{line[: width - 4].rpartition(' ')[0]} ...")
    return lines


def _search(words: Sequence[str], entries: Sequence[Entry]) -> list[Entry]:
    """Return the entries whose name, id, comment, data set, model or procedure mentions every word."""
    found = []
    for entry in entries:
        facts = [entry.name, entry.comment]
        if isinstance(entry, Experiment):
            facts += [entry.id, entry.dataset, entry.model, entry.procedure]
        text = " ".join(facts).lower()
        if all(word.lower() in text for word in words):
            found.append(entry)
    return found


def _list_some(options: argparse.Namespace, experiments: Sequence[Experiment]) -> int:
    """Describe the experiments of these names. Where a word is no name, list those that mention all words."""
    known = {experiment.name: experiment for experiment in experiments}
    if all(name in known for name in options.names):
        return _list_named(options, [known[name] for name in options.names])
    found = _search(options.names, experiments)
    sweeps = _search(options.names, catalogue.entries("sweep", options.config_dir))
    if not found and not sweeps:
        name = next(name for name in options.names if name not in known)
        raise ConfigError(f"There is no experiment {name!r}.{did_you_mean(name, list(known))}")
    if options.json:
        print(json.dumps({"experiments": [_facts(known[entry.name]) for entry in found]}, indent=1))
        return 0
    width = tables.terminal_width()
    print("\n".join(_one_line_each(found, width)))
    _print_sweeps(sweeps, width)
    return 0


def _list_named(options: argparse.Namespace, chosen: Sequence[Experiment]) -> int:
    """Describe these experiments; with --params, each layer of their models."""
    counts = _count_parameters(chosen, options.config_dir) if options.params else {}
    layers = {e.name: _layers(e, options.config_dir) for e in chosen} if options.params else {}
    if options.json:
        rows = []
        for experiment in chosen:
            row = {**_facts(experiment), **counts.get(experiment.name, {})}
            if experiment.name in layers:
                row["layers"] = layers[experiment.name]
            rows.append(row)
        print(json.dumps({"experiments": rows}, indent=1))
        return 0
    width = tables.terminal_width()
    sweeps = catalogue.entries("sweep", options.config_dir)
    for experiment in chosen:
        print("\n".join(_tell(experiment, counts.get(experiment.name), sweeps, width)), end="\n\n")
        if layers.get(experiment.name):
            print(_layer_table(layers[experiment.name], width), end="\n\n")
    return 0


LAYER_COLUMNS = (
    tables.Column("layer", priority=0),
    tables.Column("kind", priority=3),
    tables.Column("output", priority=1),
    tables.Column("parameters", priority=0),
    tables.Column("formula", priority=1),
    tables.Column("flops", "MFLOPs", priority=1, exact=True),
)


def _layer_table(rows: Sequence[Mapping[str, Any]], width: int) -> str:
    """Return the table of a model's layers without activations and dropout. Its last line is the sum."""
    shown = [row for row in rows if row["parameters"] or row["flops"]]
    total = {"layer": "total", **{key: sum(row[key] for row in rows) for key in ("parameters", "flops")}}
    cells = [{**row, "flops": round(row["flops"] / 1e6, 2)} for row in [*shown, total]]
    return tables.text(LAYER_COLUMNS, cells, width, whole="--json")


def _layers(experiment: Experiment, config_dir: str | None) -> list[LayerRow]:
    from dl_lab import configs
    from dl_lab.jobs import inspect

    config = configs.Composer(config_dir).compose([f"experiment={experiment.name}"]).config
    configs.check(config)
    return inspect.describe_layers(config)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(prog="dl-lab list", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME|WORD", help="all of these experiments; or those that mention a word"
    )
    parser.add_argument(
        "--params",
        action="store_true",
        help="count each model's parameters too (builds it); of named experiments also layer by layer",
    )
    parser.add_argument("--json", action="store_true", help="everything, as JSON")
    parser.add_argument("--config-dir", "-cd", metavar="DIR", help="a folder with configs of your own")
    return parser.parse_args(list(argv))


def _facts(experiment: Experiment) -> dict[str, object]:
    names = ("name", "id", "question", "dataset", "model", "procedure", "reference")
    return {name: getattr(experiment, name) for name in names}


def _describe(experiment: Experiment, counts: Mapping[str, int | str] | None, width: int) -> list[str]:
    facts = _list_parts(experiment, counts)
    if experiment.reference:
        facts.append(_describe_reference(experiment.reference))
    head = f"{experiment.name}  ({experiment.id})" if experiment.id else experiment.name
    return [head, *_indent(experiment.question, width), *_indent("; ".join(facts), width)]


def _list_parts(experiment: Experiment, counts: Mapping[str, int | str] | None) -> list[str]:
    """Name the model, the data set and the procedure, and count the parameters."""
    parts = [part for part in (experiment.model, experiment.dataset) if part != catalogue.UNUSED]
    facts = [" on ".join(parts)] if parts else []
    if experiment.procedure != "fit":
        facts.append(f"procedure {experiment.procedure}")
    if counts:
        facts.append(_describe_counts(counts))
    return facts


def _tell(
    experiment: Experiment, counts: Mapping[str, int | str] | None, sweeps: Sequence[Entry], width: int
) -> list[str]:
    """Tell all of one experiment: its comment, parts, own settings, published figures, sweeps and commands."""
    head, *_ = _describe(experiment, counts, width)
    lines = [paint(head, "bold"), *_indent(experiment.comment, width), ""]
    facts = {"Parts": "; ".join(_list_parts(experiment, counts)), "Settings": _write_settings(experiment.content)}
    facts["Sweeps"] = ", ".join(sweep.name for sweep in sweeps if _names(sweep.content, experiment.name))
    facts["Run"] = f"dl-lab experiment={experiment.name}"
    facts["Try out"] = f"dl-lab experiment={experiment.name} profile=smoke"
    facts["All keys"] = f"dl-lab experiment={experiment.name} --help"
    if experiment.reference:
        facts["Judge"] = f"dl-lab reproduce {experiment.name}"
    for title, fact in facts.items():
        if fact:
            lines += tables.wrap(f"  {title:<{LONGEST_TITLE}}  {fact}", width, indent=" " * (LONGEST_TITLE + 4))
    if experiment.reference:
        lines += ["", "  Published figures"]
    for metric, published in experiment.reference.items():
        tolerance = f" ± {published['tolerance']:g}" if "tolerance" in published else ""
        source = f": {published['source']}" if "source" in published else ""
        lines += tables.wrap(f"    {metric} {published['value']:g}{tolerance}{source}", width, indent=" " * 6)
    return lines


LONGEST_TITLE = len("All keys")


def _write_settings(content: Mapping[str, Any]) -> str:
    """Write what an experiment's own file sets, as words: "seed=42 optimizer.lr=0.01"."""
    from dl_lab.runs.settings import flatten

    own = {key: value for key, value in content.items() if key not in ("defaults", "id", "reference")}
    if not own:
        return ""
    settings = {key: value for key, value in flatten(own).items() if "_target_" not in key}
    return " ".join(f"{key}={tables.write_value(value)}" for key, value in settings.items())


def _names(content: object, name: str) -> bool:
    """Whether a sweep's content has this experiment among its values."""
    if isinstance(content, Mapping):
        return any(_names(value, name) for value in content.values())
    if isinstance(content, list):
        return any(_names(value, name) for value in content)
    return isinstance(content, str) and name in re.split(r"[,\s]+", content)


def _indent(sentence: str, width: int) -> list[str]:
    return tables.wrap("  " + sentence, width, indent="  ")


def _describe_reference(reference: Mapping[str, Published]) -> str:
    return "reference " + ", ".join(f"{metric} {entry['value']:g}" for metric, entry in reference.items())


def _describe_counts(counts: Mapping[str, int | str]) -> str:
    if "problem" in counts:
        return f"parameters: {counts['problem']}"
    n_parameters = counts["parameters"]
    n_trainable = counts["trainable"]
    part = f" ({n_trainable:,} trainable)" if n_trainable != n_parameters else ""
    return f"{n_parameters:,} parameters{part}"


def _count_parameters(experiments: Sequence[Experiment], config_dir: str | None) -> dict[str, dict[str, int | str]]:
    """Count all and the trainable parameters of each experiment's model.

    Returns:
        Experiment -> "parameters" and "trainable"; or "problem", where the model cannot be built.
    """
    from dl_lab import configs
    from dl_lab.datasets.progress import show_progress
    from dl_lab.jobs.inspect import ParameterCounts
    from dl_lab.types import UserError

    composer = configs.Composer(config_dir)
    counts: dict[str, dict[str, int | str]] = {}
    known = ParameterCounts()
    for experiment in show_progress(experiments, len(experiments), "counting parameters"):
        try:
            config = composer.compose([f"experiment={experiment.name}"]).config
            counted = known.of(config)
            counts[experiment.name] = dict(zip(("parameters", "trainable"), counted or (), strict=False))
        except UserError as error:
            counts[experiment.name] = {"problem": str(error).partition("\n")[0]}
    known.save()
    return counts
