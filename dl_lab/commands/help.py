"""dl-lab help: what the command can do, on one screen."""

from __future__ import annotations

import ast
import pkgutil
from collections.abc import Sequence
from pathlib import Path

from dl_lab import __version__, catalogue, commands

WIDTH = 80
BEHIND_THE_SCENES = ("help", "train")

FLAGS = {
    "-m, --multirun": "a sweep: one run for each value in optimizer.lr=0.1,0.01",
    "--dry-run": "with -m: list the jobs, run none",
    "--cfg job": "print the config; with --resolve its final values",
    "--info defaults": "where the config comes from (defaults, searchpath, ...)",
    "--config-dir DIR": "a folder with configs of your own",
    "--config-name NAME": "another main config than config.yaml",
    "-sc install=bash": 'tab completion:  eval "$(dl-lab -sc install=bash)"',
    "--hydra-help": "everything else Hydra understands",
    "--version": "the version",
}
EXAMPLES = (
    "dl-lab",
    "dl-lab experiment=octmnist_cnn optimizer.lr=0.02 seed=1",
    "dl-lab -m dataset=mnist model=mlp,linear optimizer.lr=0.1,0.01",
)


def main(argv: Sequence[str]) -> int:
    print(screen())
    return 0


def screen() -> str:
    """The text of `dl-lab --help`, at most 80 columns wide."""
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
    """Verb -> what it does, from the first line of its module; nothing is imported."""
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
    return "\n".join(_shortened(f"  {name:<{size}}  {words}".rstrip()) for name, words in entries.items())


def _shortened(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 3].rpartition(" ")[0] + " ..."


def _groups() -> str:
    # One screen: the groups with a choice; those below another (model/attention) are found by its name.
    found = {name: options for name, options in catalogue.groups().items() if len(options) > 1 and "/" not in name}
    size = max(map(len, found))
    return "\n".join(
        f"  {group:<{size}}  {_options(group, options, WIDTH - size - 4)}" for group, options in found.items()
    )


def _options(group: str, options: Sequence[str], width: int) -> str:
    if group == "experiment":
        return f"{len(options)} experiments: see dl-lab list"
    line = ", ".join(options)
    if len(line) <= width:
        return line
    rest = f", ... ({len(options)} in all)"
    return line[: width - len(rest)].rpartition(", ")[0] + rest
