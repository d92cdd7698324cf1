"""Overrides that change nothing: keys of a part that the chosen procedure does not read.

A procedure reads a part by an interpolation, `learner: ${learner}`. Where the user's own learner has no optimizer,
nothing reads `optimizer.lr`. A value for it would silently change nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dl_lab import keys
from dl_lab.types import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

READ_BY_DL_LAB = ("experiment", "predictor", "procedure")
REFERENCE = re.compile(r"\$\{(?:oc\.select:\s*)?([\w.\[\]/@-]+)")
NOTHING = ("null", "none", "")


def unread_keys(config: DictConfig, overrides: Sequence[str], groups: Sequence[str]) -> tuple[str, ...]:
    """Return the keys among the overrides that nothing in a composed config reads.

    Args:
        config: The composed config, not resolved.
        overrides: The words of the command line.
        groups: The names of the config groups.
    """
    from omegaconf import OmegaConf

    asked = {key: path for key, path in _keys_and_paths(overrides) if keys.counts(path).identity}
    if not asked:
        return ()
    raw: Any = OmegaConf.to_container(config, resolve=False)
    own = {key for key, value in raw.items() if isinstance(value, Mapping) and key not in keys.KEYS}
    names = ({name.partition("/")[0] for name in groups} | own) - set(READ_BY_DL_LAB)
    parts = {name for name in names if name in own or keys.counts(name).kind in ("choice", "part")}
    read = _follow(raw, [key for key in raw if key not in parts and key != "predictor"])
    # The predictor works after the training: a model that it alone names is not trained.
    read |= {path for path in _follow(raw, ["predictor"]) if path.partition(".")[0] in own}
    return tuple(key for key, path in asked.items() if path.partition(".")[0] in parts and not _is_read(path, read))


def refuse_unread(unread: Sequence[str]) -> None:
    """Refuse keys that nothing reads.

    Raises:
        ConfigError: There is such a key.
    """
    if unread:
        raise ConfigError(f"{unread[0]}: this key changes nothing here: no part that is chosen reads it.")


def _keys_and_paths(overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (key, its path in the config) for the overrides that set a value."""
    for word in overrides:
        key, _, value = word.lstrip("+").partition("=")
        if not word.startswith("~") and "@" not in key and value not in NOTHING:
            yield key, key.replace("/", ".")


def _is_read(path: str, read: set[str]) -> bool:
    """Whether anything reads a path, a part that holds it, or something in it."""
    return any(path == one or path.startswith(f"{one}.") or one.startswith(f"{path}.") for one in read)


def _follow(raw: Mapping[str, object], roots: Sequence[str]) -> set[str]:
    """Return every path that interpolations reach from the roots."""
    read: set[str] = set()
    waiting = list(roots)
    while waiting:
        path = waiting.pop()
        if path in read:
            continue
        read.add(path)
        node: object = raw
        parts = path.split(".")
        for i, part in enumerate(parts):
            if isinstance(node, str):  # the rest of the path lies below an interpolation
                above = ".".join(parts[:i])
                waiting += [".".join([target, *parts[i:]]) for target in _targets(node, above)]
                node = None
                break
            node = _step(node, part)
        waiting += _all_targets(node, path)
    return read


def _step(node: object, part: str) -> object:
    """Return the item of a mapping or a list; None where there is none."""
    if isinstance(node, Mapping):
        return node.get(part)
    if isinstance(node, list) and part.isdigit() and int(part) < len(node):
        return node[int(part)]
    return None


def _all_targets(node: object, path: str) -> Iterator[str]:
    """Yield the paths that the interpolations in a node and below it name."""
    if isinstance(node, str):
        yield from _targets(node, path)
    elif isinstance(node, Mapping):
        for key, item in node.items():
            yield from _all_targets(item, f"{path}.{key}")
    elif isinstance(node, list):
        for i, item in enumerate(node):
            yield from _all_targets(item, f"{path}.{i}")


def _targets(text: str, path: str) -> Iterator[str]:
    """Yield the paths that the interpolations of a text name. `${.x}` starts from the mapping that holds the text."""
    for name in REFERENCE.findall(text):
        full = name.replace("[", ".").replace("]", "")
        dots = len(full) - len(full.lstrip("."))
        if dots:
            above = path.split(".")[:-dots]
            full = ".".join([*above, full.lstrip(".")])
        yield full
