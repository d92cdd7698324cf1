"""The settings of a resolved config by dotted path, as tables show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dl_lab import keys
from dl_lab.runs.files import as_mapping


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a config by dotted path, each one once.

    A resolved config repeats its parts: procedure.learner.model.hidden is model.hidden. The shorter path stands for
    both. Class names are left out, because the chosen groups tell them, and so are keys that no table shows.
    """
    flat = {path: value for path, value in flatten(config).items() if not path.rpartition(".")[2].startswith("_")}
    found = {}
    for path, value in flat.items():
        is_repeated = any(tail in flat and flat[tail] == value for tail in _tails(path))
        if not is_repeated and keys.counts(path).shown:
            found[path] = value
    return found


def name_parts(values: Mapping[str, Any], config: Mapping[str, Any], asked: Iterable[str]) -> dict[str, Any]:
    """Give each part that the command line wrote out a value of its own: task.loss is "HuberLoss(delta=0.5)".

    No chosen group tells the class of such a part. Groups themselves have no dot in their names.
    """
    named = dict(values)
    for path in asked:
        part: Any = config
        for key in path.split("."):
            part = as_mapping(part).get(key)
        if "." in path and isinstance(part, Mapping) and part and keys.counts(path).shown:
            named = {key: value for key, value in named.items() if not key.startswith(f"{path}.")}
            named[path] = _describe_part(part)
    return named


def _describe_part(part: Mapping[str, Any]) -> str:
    kind = str(part.get("_target_", "")).rpartition(".")[2]
    arguments = [f"{key}={value}" for key, value in part.items() if not str(key).startswith("_")]
    return f"{kind}({', '.join(arguments)})" if arguments else kind


def _tails(path: str) -> list[str]:
    """Return the shorter ends of a path: ["b.c", "c"] of "a.b.c"."""
    parts = path.split(".")
    return [".".join(parts[i:]) for i in range(1, len(parts))]


def flatten(value: Any, path: str = "") -> dict[str, Any]:
    """Turn {"a": {"b": 1}} into {"a.b": 1}. Lists, scalars and empty mappings are leaves."""
    if not isinstance(value, Mapping) or not value:
        return {path: value}
    flat = {}
    for key, item in value.items():
        flat |= flatten(item, f"{path}.{key}" if path else str(key))
    return flat
