"""YAML anchors: a small file may stand for a value that is too large for any memory.

PyYAML keeps one object for all aliases of an anchor. Hydra, OmegaConf and dl-lab's own functions visit every alias.
Nine lines of nine aliases each are then 387 million values. So every YAML file of a user is measured before it is
expanded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dl_lab.types import ConfigError

MOST_VALUES = 100_000  # the largest config of dl-lab has fewer than 1,000
ANCHOR = re.compile(r"&\w")
ALIAS = re.compile(r"\*\w")


def load_yaml(text: str) -> Any:
    """Parse a YAML text of plain values, with libyaml where PyYAML has it, seven times as fast.

    Raises:
        yaml.YAMLError: It is no YAML, or asks for a Python object.
        RecursionError: Its values are nested too deeply.
    """
    import yaml

    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 (both are safe)


def count_values(value: object) -> float:
    """Count the values that a walk over all aliases would visit; infinite for a value that contains itself."""
    return _count(value, {}, set())


def _count(value: object, known: dict[int, float], inside: set[int]) -> float:
    if not isinstance(value, Mapping | list):
        return 1
    key = id(value)
    if key in inside:
        return float("inf")
    if key not in known:
        inside.add(key)
        items = value.values() if isinstance(value, Mapping) else value
        known[key] = 1 + sum(_count(item, known, inside) for item in items)
        inside.remove(key)
    return known[key]


def refuse_expansion(value: object, path: Path | str) -> None:
    """Refuse a YAML value whose aliases stand for too many values.

    Args:
        value: The content of a YAML file, before its aliases are expanded.
        path: The file, for the message.

    Raises:
        ConfigError: There are more than MOST_VALUES values.
    """
    if count_values(value) > MOST_VALUES:
        raise ConfigError(f"{path}: its YAML anchors stand for more than {MOST_VALUES:,} values.")


def refuse_expansions(config_dir: str | Path) -> None:
    """Refuse a YAML file below a user's config folder that stands for too many values.

    A file that is no YAML passes here. Its reader refuses it later and names the line.

    Raises:
        ConfigError: A file has more than MOST_VALUES values.
    """
    import yaml

    for path in sorted(Path(config_dir).rglob("*.yaml")):
        try:
            text = path.read_text(encoding="utf-8")
            if ANCHOR.search(text) and ALIAS.search(text):
                refuse_expansion(load_yaml(text), path)
        except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError):
            continue
