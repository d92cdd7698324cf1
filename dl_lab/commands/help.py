"""dl-lab help: what the command can do, on one screen."""

from __future__ import annotations

import argparse
import ast
import pkgutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dl_lab import commands
from dl_lab.configs import catalogue
from dl_lab.show.colours import emphasise
from dl_lab.version import __version__

WIDTH = 80
BEHIND_THE_SCENES = ("help", "train")

FLAGS = {
    "-m, --multirun": "a sweep: one run for each value in optimizer.lr=0.1,0.01",
    "--dry-run": "with -m: list the jobs, run none",
    "--cfg job": "print the config; with --resolve its final values",
    "--info defaults": "where the config comes from (defaults, searchpath, ...)",
    "--config-dir DIR": "a folder with configs of your own",
    "--config-name NAME": "another main config than config.yaml",
    "--hydra-help": "everything else Hydra understands",
    "--version": "the version",
}
EXAMPLES = (
    "dl-lab experiment=octmnist_cnn optimizer.lr=0.02 seed=1",
    "dl-lab -m dataset=mnist model=mlp,linear optimizer.lr=0.1,0.01",
)


def main(argv: Sequence[str]) -> int:
    """Run `dl-lab help` and return the exit status."""
    words = [word for word in argv if word not in ("--help", "-h")]
    if any("=" in word for word in words):
        print(emphasise(settings_screen(words)))
    else:
        print(emphasise(screen()))
    return 0


def settings_screen(words: Sequence[str]) -> str:
    """Describe an experiment, or a choice of parts: its question, its parts, its keys with their values.

    Args:
        words: The words of the command line, without --help.
    """
    from dl_lab import configs
    from dl_lab.show import tables

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd")
    parser.add_argument("--config-name", "-cn", default="config")
    options, others = parser.parse_known_args(list(words))
    overrides = [word for word in others if not word.startswith("-")]
    composed = configs.Composer(options.config_dir, options.config_name).compose(overrides)
    width = tables.terminal_width()
    experiment = catalogue.experiment(composed.choices.get("experiment", ""), options.config_dir)
    parts = []
    if experiment:
        head = f"{experiment.name}  ({experiment.id})" if experiment.id else experiment.name
        parts.append("\n".join([head, *tables.wrap(experiment.comment, width)]))
    chosen = {group: option for group, option in composed.choices.items() if group != "experiment"}
    parts.append("Parts (change one with GROUP=OPTION)\n" + _table(chosen))
    parts.append("Keys (change one with KEY=VALUE)\n" + _table(_plain_keys(composed.config)))
    typed = " ".join(["dl-lab", *words])
    parts.append(f"Examples\n  {typed} trainer.max_epochs=1\n  {typed} profile=smoke\n  {typed} --cfg job")
    return "\n\n".join(parts)


GROUPS_WITH_KEYS = ("dataset", "model", "task", "optimizer", "scheduler", "learner", "trainer", "procedure")
LEFT_OUT = ("trainer.seed",)  # set for all parts


def _plain_keys(config: Mapping[str, Any]) -> dict[str, str]:
    """Map the settings of the chosen parts that are plain values, by dotted key, to their values."""
    from dl_lab.show import tables

    found = {"seed": str(config["seed"])}
    for group in GROUPS_WITH_KEYS:
        for name, value in (config.get(group) or {}).items():
            key = f"{group}.{name}"
            if not name.startswith("_") and not isinstance(value, Mapping) and key not in LEFT_OUT:
                found[key] = "null" if value is None else tables.cell(value, exact=True)
    return found


def screen() -> str:
    """Return the text of `dl-lab --help`, at most 80 columns wide."""
    parts = [
        f"dl-lab {__version__}: deep-learning experiments from YAML, recorded to be repeated.",
        "Usage\n"
        + _table(
            {
                "dl-lab [group=option] [key=value] [flags]": "train",
                "dl-lab VERB [...]": "see dl-lab VERB --help",
            }
        ),
        "Verbs\n" + _table(verbs()),
        "Config groups (group=option)\n" + _groups(),
        "Flags\n" + _table(FLAGS),
        "Examples\n" + "\n".join(f"  {line}" for line in EXAMPLES),
    ]
    return "\n\n".join(parts)


def verbs() -> dict[str, str]:
    """Map each verb to what it does, from the first line of its module. This imports no verb."""
    folder = Path(next(iter(commands.__path__)))
    found = {}
    for module in pkgutil.iter_modules(commands.__path__):
        if module.name in BEHIND_THE_SCENES or module.name.startswith("_"):
            continue
        docstring = ast.get_docstring(ast.parse((folder / f"{module.name}.py").read_text(encoding="utf-8"))) or ""
        found[module.name.rstrip("_")] = docstring.partition("\n")[0].partition(": ")[2].rstrip(".")
    return found


def _table(entries: dict[str, str]) -> str:
    size = max(map(len, entries))
    return "\n".join(_shorten(f"  {name:<{size}}  {words}".rstrip()) for name, words in entries.items())


def _shorten(line: str) -> str:
    if len(line) <= WIDTH:
        return line
    return line[: WIDTH - 3].rpartition(" ")[0] + " ..."


def _groups() -> str:
    """Return the lines of the groups with a choice. Those below another group (model/attention) do not fit here."""
    found = {name: options for name, options in catalogue.groups().items() if len(options) > 1 and "/" not in name}
    size = max(map(len, found))
    lines = [f"  {group:<{size}}  {_options(group, options, WIDTH - size - 4)}" for group, options in found.items()]
    return "\n".join(lines)


def _options(group: str, options: Sequence[str], width: int) -> str:
    if group == "experiment":
        return f"{len(options)} experiments: see dl-lab list"
    line = ", ".join(options)
    if len(line) <= width:
        return line
    rest = f", ... ({len(options)} in all)"
    return line[: width - len(rest)].rpartition(", ")[0] + rest
