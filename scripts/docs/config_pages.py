"""The reference of the config groups: every option with its keys, types, defaults and meanings."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import sources
import yaml
from sources import ROOT, Key, Target

from dl_lab.runs.anchors import load_yaml

CONF = ROOT / "conf"
PAGES_OF_THEIR_OWN = ("experiment", "sweep")
GLOSSARY: dict[str, str] = load_yaml((Path(__file__).parent / "glossary.yaml").read_text(encoding="utf-8"))
WHAT_IT_CHOOSES = {
    "adapt": "Small changes that experiments share.",
    "callbacks": "What else happens during a fit: progress bar, early stopping, figures.",
    "dataset": "The data, their splits and how they are laid out.",
    "launcher": "Where the jobs of a sweep run.",
    "learner": "How one batch changes the model.",
    "logger": "Where metrics can be watched.",
    "model": "The model.",
    "optimizer": "The optimizer. `_partial_: true`: the learner adds the parameters.",
    "predictor": "What `dl-lab predict` does with a finished run.",
    "procedure": "What the experiment does when it runs.",
    "profile": "Many values at once: `profile=smoke` makes everything small.",
    "pruner": "When a search ends a job that is not promising.",
    "scheduler": "How the learning rate moves.",
    "search": "How a search proposes jobs.",
    "task": "What is optimised and what is measured.",
    "trainer": "The training loop.",
    "vectors": "Word vectors that a text model starts from.",
}


def group_names() -> list[str]:
    """The top-level groups, in the order of their names, without those that have pages of their own."""
    folders = sorted(path.name for path in CONF.iterdir() if path.is_dir() and any(path.glob("**/*.yaml")))
    return [name for name in folders if name not in PAGES_OF_THEIR_OWN and not name.startswith(("_", "."))]


def overview() -> str:
    """The groups with their default and options, and the keys of config.yaml."""
    main = load_yaml((CONF / "config.yaml").read_text(encoding="utf-8"))
    chosen: dict[str, Any] = {}
    for item in main["defaults"]:
        if isinstance(item, dict):
            chosen |= item
    lines = ["| group | chooses | default | options |", "|---|---|---|---|"]
    for name in group_names():
        options = ", ".join(f"`{path.stem}`" for path in _files(name))
        default = f"`{chosen[name]}`" if chosen.get(name) else "none"
        lines.append(f"| [{name}](configs/{name}.md) | {WHAT_IT_CHOOSES.get(name, '')} | {default} | {options} |")
    own = [key for key in sources.keys(CONF / "config.yaml") if not key.path.startswith("hydra")]
    return "\n".join([*lines, "", "## Keys of every job", "", *_table(own, {}, "")])


def page(group: str) -> str:
    """One group: a section an option, those of its subgroups after them."""
    parts = [f"# {group}", WHAT_IT_CHOOSES.get(group, "")]
    parts.append("The page is made from the YAML files and the signatures of what they build.")
    parts += [_option(group, path) for path in _files(group)]
    for folder in sorted({path.parent for path in (CONF / group).glob("*/**/*.yaml")}):
        name = folder.relative_to(CONF).as_posix()
        parts.append(f"## Subgroup {name}")
        if group == "profile":
            files = ", ".join(f"`{path.stem}`" for path in sorted(folder.glob("*.yaml")))
            parts.append(f"What this profile changes in one experiment besides: {files}.")
            continue
        parts += [_option(name, path, level=3) for path in sorted(folder.glob("*.yaml"))]
    return "\n\n".join(part for part in parts if part) + "\n"


def _files(group: str) -> list[Path]:
    return sorted((CONF / group).glob("*.yaml"))


def _option(group: str, path: Path, level: int = 2) -> str:
    text = path.read_text(encoding="utf-8")
    content = load_yaml(text) or {}
    dotted = content.get("_target_", "")
    comment = " ".join(_opening(text))
    shown = [f"{'#' * level} {path.stem}", comment]
    builds = f" Builds `{dotted}`." if dotted else ""
    shown.append(f"`{group}={path.stem}`.{builds}")
    based = [item for item in content.get("defaults", []) if item != "_self_"]
    if based:
        shown.append(f"Starts from {', '.join(f'`{_words(item)}`' for item in based)}.")
    keys = sources.keys(path)
    if keys:
        shown.append("\n".join(_table(keys, content, group)))
    return "\n\n".join(part for part in shown if part)


def _words(item: Any) -> str:
    return item if isinstance(item, str) else ", ".join(f"{key}: {value}" for key, value in item.items())


def _opening(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if not line.startswith("#"):
            return
        if "@package" not in line:
            yield line.lstrip("# ").rstrip()


def _table(keys: Sequence[Key], content: Mapping[str, Any], group: str) -> list[str]:
    lines = ["| key | type | default | meaning |", "|---|---|---|---|"]
    for key in keys:
        codes = [_code(text) for text in (key.path, kind(key, content), _default(key.default))]
        lines.append("| " + " | ".join([*codes, meaning(key, content, group).replace("|", "\\|")]) + " |")
    return lines


def _code(text: str) -> str:
    """As code in a cell of a table, where a bar would end the cell."""
    return f"<code>{escape(text, quote=False).replace('|', '&#124;')}</code>"


def kind(key: Key, content: Mapping[str, Any]) -> str:
    """The annotation of the argument that the key fills, else the kind of its default."""
    found, name = _owner(key, content)
    if name in found.types:
        return found.types[name]
    if isinstance(key.default, str) and key.default.startswith("${"):
        return "reference"
    if key.default is None:
        return "any"
    if isinstance(key.default, str) and re.fullmatch(r"[+-]?[\d.]+e[+-]?\d+", key.default):
        return "float"
    return type(key.default).__name__.replace("NoneType", "null")


def meaning(key: Key, content: Mapping[str, Any], group: str) -> str:
    """The comment beside the key, what the docstring says, what another option's comment says, or the glossary."""
    found, name = _owner(key, content)
    last = key.path.rpartition(".")[2]
    first = group.partition("/")[0]
    choices = (
        key.comment,
        found.meanings.get(name, ""),
        GLOSSARY.get(f"{first}/{key.path}", ""),
        _elsewhere(first).get(key.path, ""),
        GLOSSARY.get(key.path, ""),
        GLOSSARY.get(last, ""),
    )
    for text in choices:
        if text:
            sentence = text.strip()
            return sentence[:1].upper() + sentence[1:]
    return ""


@functools.cache
def _elsewhere(group: str) -> dict[str, str]:
    """Key -> the first comment or docstring that another option of the group has for it."""
    found: dict[str, str] = {}
    for path in sorted((CONF / group).glob("**/*.yaml")) if group else ():
        content = load_yaml(path.read_text(encoding="utf-8")) or {}
        for key in sources.keys(path):
            target, name = _owner(key, content)
            text = key.comment or target.meanings.get(name, "")
            if text:
                found.setdefault(key.path, text)
    return found


def _owner(key: Key, content: Mapping[str, Any]) -> tuple[Target, str]:
    """The innermost `_target_` above the key, and the name of the argument that the key fills in it."""
    parts = key.path.split(".")
    inner: Any = content
    dotted, name = content.get("_target_", ""), key.path
    for i, part in enumerate(parts[:-1]):
        inner = inner.get(part) if isinstance(inner, Mapping) else None
        if isinstance(inner, Mapping) and "_target_" in inner:
            dotted = str(inner["_target_"])
            name = ".".join(parts[i + 1 :])
    return (sources.target(dotted) if isinstance(dotted, str) and dotted else Target()), name


def _default(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000).replace("\n...", "").strip()
    return re.sub(r"\s+", " ", text) if len(text) <= 60 else text[:57] + "..."


def undocumented() -> list[str]:
    """Every key that has no meaning anywhere: `group/option: key`."""
    missing = []
    for group in group_names():
        if group == "profile":
            continue
        for path in sorted((CONF / group).glob("**/*.yaml")):
            content = load_yaml(path.read_text(encoding="utf-8")) or {}
            own = path.parent.relative_to(CONF).as_posix()
            missing += [
                f"{own}/{path.stem}: {key.path}" for key in sources.keys(path) if not meaning(key, content, own)
            ]
    return missing
