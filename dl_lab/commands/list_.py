"""dl-lab list: the experiments and sweeps, and what each one asks."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from dl_lab import catalogue, tables
from dl_lab.catalogue import Experiment
from dl_lab.targets import did_you_mean
from dl_lab.types import ConfigError


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    experiments = catalogue.experiments(options.config_dir)
    if options.names:
        return _named(options, {experiment.name: experiment for experiment in experiments})
    counts = _counts(experiments, options.config_dir) if options.params else {}
    sweeps = catalogue.entries("sweep", options.config_dir)
    if options.json:
        described = [{**_described(e), **counts.get(e.name, {})} for e in experiments]
        print(
            json.dumps(
                {
                    "experiments": described,
                    "sweeps": [{"name": s.name, "question": s.question} for s in sweeps],
                },
                indent=1,
            )
        )
        return 0
    width = tables.terminal_width()
    for experiment in experiments:
        print("\n".join(_lines(experiment, counts.get(experiment.name), width)), end="\n\n")
    if sweeps:
        print("Sweeps (dl-lab -m sweep=NAME)\n")
    for sweep in sweeps:
        print("\n".join([sweep.name, *_indented(sweep.question, width)]), end="\n\n")
    print(f"{len(experiments)} experiments and {len(sweeps)} sweeps. Run one:  dl-lab experiment=NAME")
    return 0


def _named(options: argparse.Namespace, known: Mapping[str, Experiment]) -> int:
    """Only these experiments, with --params each layer of their models."""
    for name in options.names:
        if name not in known:
            raise ConfigError(f"There is no experiment {name!r}.{did_you_mean(name, list(known))}")
    chosen = [known[name] for name in options.names]
    counts = _counts(chosen, options.config_dir) if options.params else {}
    rows = {e.name: _layers(e, options.config_dir) for e in chosen} if options.params else {}
    if options.json:
        layers = {name: {"layers": found} for name, found in rows.items()}
        described = [{**_described(e), **counts.get(e.name, {}), **layers.get(e.name, {})} for e in chosen]
        print(json.dumps({"experiments": described}, indent=1))
        return 0
    width = tables.terminal_width()
    for experiment in chosen:
        print("\n".join(_lines(experiment, counts.get(experiment.name), width)), end="\n\n")
        if rows.get(experiment.name):
            print(_layer_table(rows[experiment.name], width), end="\n\n")
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
    """Layers without parameters or operations (activations, dropout) are left out; the last line is the sum."""
    shown = [row for row in rows if row["parameters"] or row["flops"]]
    total = {"layer": "total", **{key: sum(row[key] for row in rows) for key in ("parameters", "flops")}}
    cells = [{**row, "flops": round(row["flops"] / 1e6, 2)} for row in [*shown, total]]
    return tables.text(LAYER_COLUMNS, cells, width, whole="--json")


def _layers(experiment: Experiment, config_dir: str | None) -> list[dict[str, Any]]:
    from dl_lab import config as configs

    config = configs.Composer(config_dir).compose([f"experiment={experiment.name}"]).config
    configs.check(config)
    return configs.describe_layers(config)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dl-lab list", description=__doc__, allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT", help="only these")
    parser.add_argument(
        "--params",
        action="store_true",
        help="count each model's parameters too (builds it); of named experiments also layer by layer",
    )
    parser.add_argument("--json", action="store_true", help="everything, as JSON")
    parser.add_argument("--config-dir", "-cd", metavar="DIR", help="a folder with configs of your own")
    return parser.parse_args(list(argv))


def _described(experiment: Experiment) -> dict[str, Any]:
    names = ("name", "id", "question", "dataset", "model", "procedure", "reference")
    return {name: getattr(experiment, name) for name in names}


def _lines(experiment: Experiment, counts: Mapping[str, Any] | None, width: int) -> list[str]:
    parts = [part for part in (experiment.model, experiment.dataset) if part != catalogue.UNUSED]
    facts = [" on ".join(parts)] if parts else []
    facts += [] if experiment.procedure == "fit" else [f"procedure {experiment.procedure}"]
    facts += [_counted(counts)] if counts else []
    facts += [_published(experiment.reference)] if experiment.reference else []
    head = f"{experiment.name}  ({experiment.id})" if experiment.id else experiment.name
    return [head, *_indented(experiment.question, width), *_indented("; ".join(facts), width)]


def _indented(sentence: str, width: int) -> list[str]:
    return tables.wrapped("  " + sentence, width, indent="  ")


def _published(reference: Mapping[str, Any]) -> str:
    return "reference " + ", ".join(f"{metric} {entry['value']:g}" for metric, entry in reference.items())


def _counted(counts: Mapping[str, Any]) -> str:
    if "problem" in counts:
        return f"parameters: {counts['problem']}"
    every, trainable = counts["parameters"], counts["trainable"]
    return f"{every:,} parameters" + (f" ({trainable:,} trainable)" if trainable != every else "")


def _counts(experiments: Sequence[Experiment], config_dir: str | None) -> dict[str, dict[str, Any]]:
    """All and trainable parameters of each experiment's model; why not, where it cannot be built."""
    from dl_lab import config as configs
    from dl_lab.types import UserError

    composer, counts = configs.Composer(config_dir), {}
    for experiment in experiments:
        try:
            config = composer.compose([f"experiment={experiment.name}"]).config
            configs.check(config)
            counted = configs.count_parameters(config)
            counts[experiment.name] = dict(zip(("parameters", "trainable"), counted or (), strict=False))
        except UserError as error:
            counts[experiment.name] = {"problem": str(error).partition("\n")[0]}
    return counts
