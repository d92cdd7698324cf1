"""The YAML of a run folder, written and read key by key.

The jobs of a sweep differ in a few keys. Here each key of the outermost mapping is dumped and parsed alone, and equal
keys once: YAML took a tenth of the time of an empty job, and a third of the time to read finished ones.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from dl_lab.runs.anchors import MOST_VALUES, count_values, load_yaml

KEY = re.compile(r"^(?=\w+:)", re.MULTILINE)  # where a key of the outermost mapping begins


def to_yaml(value: object) -> str:
    """Write plain values as YAML, with the keys in the given order."""
    if not isinstance(value, Mapping) or not value:
        return _dump(_Same(value))
    return "".join(_dump(_Same({key: part})) for key, part in value.items())


class _Same:
    """A plain value that equals another one if both are written alike: 1 is neither 1.0 nor True here."""

    def __init__(self, value: object) -> None:
        self.value = value
        self.text = repr(value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


@functools.lru_cache(maxsize=256)
def _dump(value: _Same) -> str:
    import yaml

    fastest = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    # A value that stands in two places is written twice, not as an alias of the first one.
    dumper = type("Dumper", (fastest,), {"ignore_aliases": lambda self, data: True})
    return yaml.dump(value.value, Dumper=dumper, sort_keys=False, allow_unicode=True)


def read_mapping(text: str) -> dict[str, Any]:
    """Parse a YAML text that is a mapping; return {} for any other text."""
    parts = [_parse(part) for part in KEY.split(text) if part]
    if not all(isinstance(part, dict) for part in parts):  # a value of several lines may look like keys
        parts = [_parse(text)]
    found: dict[str, Any] = {}
    for part in parts:
        found |= part if isinstance(part, dict) else {}
    return found


def read_list(text: str) -> list[Any]:
    """Parse a YAML text that is a list; return [] for any other text."""
    found = _parse(text)
    return found if isinstance(found, list) else []


@functools.cache
def _parse(text: str) -> object:
    """Parse a YAML text; return None if it is none, or if its aliases stand for too many values."""
    import yaml

    try:
        value = load_yaml(text)
    except (yaml.YAMLError, RecursionError):
        return None
    return value if count_values(value) <= MOST_VALUES else None
