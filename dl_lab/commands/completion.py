"""dl-lab completion: print the Tab-completion script for bash, zsh or fish.

Put it into the start file of your shell:
  bash  eval "$(dl-lab completion bash)"         in ~/.bashrc
  zsh   eval "$(dl-lab completion zsh)"          in ~/.zshrc, after compinit
  fish  dl-lab completion fish | source          in ~/.config/fish/config.fish
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import pkgutil
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from dl_lab import commands, keys
from dl_lab.configs import catalogue
from dl_lab.runs.find import find_runs, short_name
from dl_lab.show.options import Parser
from dl_lab.types import UserError

OF_RUNS = ("compare", "diff", "export", "predict", "resume", "tensorboard", "verify")
OF_SWEEPS = ("best", "compare", "doctor", "report", "tensorboard")
SWEEP_FLAGS = ("-m", "--multirun")

SCRIPTS = {
    "bash": r"""_dl_lab() {
  local line="${COMP_LINE:0:COMP_POINT}" IFS=$' \t\n' words current
  read -r -a words <<< "$line"
  [[ "$line" == *[[:space:]] ]] && words+=("")
  current="${words[${#words[@]}-1]}"
  local IFS=$'\n'
  COMPREPLY=($("${words[0]}" completion --words "${words[@]:1}" 2>/dev/null))
  if [[ "$current" == *=* && "$COMP_WORDBREAKS" == *"="* ]]; then
    COMPREPLY=("${COMPREPLY[@]#"${current%"${current##*=}"}"}")
  fi
}
complete -o nospace -F _dl_lab dl-lab
""",
    "zsh": r"""_dl_lab() {
  local -a found
  found=(${(f)"$("${words[1]}" completion --words "${(@)words[2,CURRENT]}" 2>/dev/null)"})
  (( $#found )) && compadd -Q -S '' -- $found
}
compdef _dl_lab dl-lab
""",
    "fish": r"""function __dl_lab
  set -l words (commandline -opc)
  $words[1] completion --words $words[2..-1] (commandline -ct) 2>/dev/null | string trim --right
end
complete -c dl-lab -f -a '(__dl_lab)'
""",
}


def main(argv: Sequence[str]) -> int:
    """Run `dl-lab completion` and return the exit status."""
    if argv[:1] == ["--words"]:  # a shell asks; an error would be printed into the user's prompt
        with contextlib.suppress(UserError, OSError):
            print("\n".join(complete(list(argv[1:]))))
        return 0
    parser = Parser(prog="dl-lab completion", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shell", choices=sorted(SCRIPTS))
    print(SCRIPTS[parser.parse_args(list(argv)).shell], end="")
    return 0


def complete(words: Sequence[str], outputs: Path | None = None) -> list[str]:
    """List what the last word may become. A complete word ends with a blank.

    Args:
        words: The words after `dl-lab`. The last one may be empty or half typed.
        outputs: The folder of the runs. None: the one that the words name, else "outputs".
    """
    before = list(words[:-1])
    current = words[-1] if words else ""
    if current.startswith("-"):
        found = [f"{flag} " for flag in _flags(_verb_of(before), before)]
    elif "=" in current:
        found = list(_values(current))
    else:
        found = [*_names(before, outputs or _outputs(before)), *_keys_to_set(current, before)]
    return sorted({word for word in found if word.startswith(current)})


def _verb_of(before: Sequence[str]) -> str:
    return before[0] if before and before[0] in _verbs() else ""


def _names(before: Sequence[str], folder: Path) -> Iterator[str]:
    """Yield the verbs, runs, sweeps and experiments that may stand here, each with a blank after it."""
    verb = _verb_of(before)
    names: list[str] = []
    if not before:
        names += _verbs()
    if verb in OF_RUNS:
        names += _ids(folder)
    if verb in OF_SWEEPS:
        names += _sweep_keys(folder)
    if verb in ("list", "reproduce", "check"):
        names += _experiments()
    yield from (f"{name} " for name in names)


def _keys_to_set(current: str, before: Sequence[str]) -> Iterator[str]:
    """Yield the config keys that may stand here, each with "=" after it."""
    if _verb_of(before) in ("", "sweep", "check", "reproduce", "tune"):
        names = _keys_of_group(current, before) if "." in current else _keys()
        yield from (f"{name}=" for name in names)


def _verbs() -> list[str]:
    names = [module.name.rstrip("_") for module in pkgutil.iter_modules(commands.__path__)]
    return sorted(name for name in names if not name.startswith("_") and name != "train")


def _flags(verb: str, before: Sequence[str]) -> list[str]:
    """List the flags of a verb, read from its own --help."""
    name = verb or ("sweep" if any(word in SWEEP_FLAGS for word in before) else "")
    if not name:
        return ["--help", "--version", "--multirun", "--config-dir", "--config-name"]
    modules = {module.name.rstrip("_"): module.name for module in pkgutil.iter_modules(commands.__path__)}
    shown = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(shown):
        importlib.import_module(f"dl_lab.commands.{modules[name]}").main(["--help"])
    return re.findall(r"(?<![\w-])--[a-z][a-z-]*", shown.getvalue())


def _values(current: str) -> Iterator[str]:
    """Yield "experiment=octmnist_cnn " for "experiment=oct"; after a comma, the next alternative of a sweep."""
    key, _, value = current.partition("=")
    head = value[: value.rfind(",") + 1]
    group = key.lstrip("+")
    options = [entry.name for entry in catalogue.entries("sweep")] if group == "sweep" else []
    options += catalogue.groups().get(group, [])
    yield from (f"{key}={head}{option} " for option in options)


def _keys() -> list[str]:
    return [*catalogue.groups(), "sweep", *keys.settings()]


def _keys_of_group(current: str, before: Sequence[str]) -> Iterator[str]:
    """Yield "optimizer.lr" for "optimizer.l": the keys of the group's chosen option, else of all its options."""
    group = current.partition(".")[0]
    chosen = [word.partition("=")[2] for word in before if word.startswith(f"{group}=")]
    for entry in catalogue.entries(group):
        if chosen and entry.name != chosen[-1]:
            continue
        for key in entry.content:
            if key != "defaults" and not key.startswith("_"):
                yield f"{group}.{key}"


def _experiments() -> list[str]:
    return catalogue.groups().get("experiment", [])


def _ids(outputs: Path) -> list[str]:
    return ["last", *(short_name(run) for run in find_runs(outputs))]


def _sweep_keys(outputs: Path) -> list[str]:
    parents = dict.fromkeys(run.parent for run in find_runs(outputs))
    return [short_name(folder) for folder in parents if (folder / "sweep.yaml").is_file()]


def _outputs(before: Sequence[str]) -> Path:
    if "--outputs" in before[:-1]:
        return Path(before[before.index("--outputs") + 1])
    return Path("outputs")
