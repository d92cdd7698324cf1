"""Read a sweep file (`conf/sweep/NAME.yaml`), and say in a sentence what is wrong in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from dl_lab.configs.words import did_you_mean
from dl_lab.types import ConfigError

Entry = Mapping[str, object]  # {"optimizer.lr": 0.1, "seed": 1}
Lists = Mapping[str, list[object]]  # {"optimizer.lr": [0.1, 0.01]}


@dataclass(frozen=True)
class SweepFile:
    """The parts of a sweep file; values are YAML values.

    Attributes:
        grid: The values of each key; all combinations are jobs.
        zip: The values of each key; the keys change together.
        list: Further jobs.
        exclude: Jobs of the grid that are left out.
        where: The only jobs of the grid that are kept.
        space: The range of each key, written as on the command line; for a search.
        replicates: Keys whose values repeat a setting, as seeds do: the folds of a cross-validation.
    """

    grid: Lists = field(default_factory=dict)
    zip: Lists = field(default_factory=dict)
    list: tuple[Entry, ...] = ()
    exclude: tuple[Entry, ...] = ()
    where: tuple[Entry, ...] = ()
    space: Mapping[str, str] = field(default_factory=dict)
    replicates: tuple[str, ...] = ()


PARTS = tuple(part.name for part in fields(SweepFile))


def read_spec(spec: object) -> SweepFile:
    """Check the content of a sweep file, and return its parts.

    Args:
        spec: The content.

    Raises:
        ConfigError: A part is unknown, or has a wrong shape.
    """
    if not isinstance(spec, Mapping):
        raise ConfigError(f"sweep: {spec!r} is not a mapping with {', '.join(PARTS)}.")
    for name in spec:
        if name not in PARTS:
            hint = did_you_mean(str(name), PARTS)
            raise ConfigError(f"A sweep has no part {name!r}; there are {', '.join(PARTS)}.{hint}")
    for key in spec.get("grid") or {}:
        if key in (spec.get("zip") or {}):
            raise ConfigError(f"sweep.zip.{key}: sweep.grid has this key too; a key varies in one of them.")
    return SweepFile(
        grid=_read_lists("grid", spec.get("grid")),
        zip=_read_lists("zip", spec.get("zip")),
        list=_read_entries("list", spec.get("list")),
        exclude=_read_entries("exclude", spec.get("exclude")),
        where=_read_entries("where", spec.get("where")),
        space=_read_space(spec.get("space")),
        replicates=_read_keys("replicates", spec.get("replicates")),
    )


def _read_lists(part: str, value: object) -> Lists:
    """Read a mapping of keys to lists of values."""
    lists: dict[str, list[object]] = {}
    for key, items in _read_mapping(f"sweep.{part}", value, "{optimizer.lr: [0.1, 0.01]}").items():
        where = f"sweep.{part}.{key}"
        if isinstance(items, Mapping):
            inner = next(iter(items), "key")
            raise ConfigError(f"{where}: write the whole key with dots, {key}.{inner}: [value, value].")
        if not isinstance(items, list):
            raise ConfigError(f"{where}: {items!r} is not a list of values; a single one is [{items}].")
        if not items:
            raise ConfigError(f"{where}: the list of values is empty.")
        lists[key] = items
    return lists


def _read_entries(part: str, value: object) -> tuple[Entry, ...]:
    """Read a list of mappings of keys to values."""
    example = "{optimizer.lr: 0.1, seed: 1}"
    if value is None:
        return ()
    if not isinstance(value, list):
        kind = "mapping" if isinstance(value, Mapping) else f"{value!r}"
        raise ConfigError(f"sweep.{part}: a list of jobs is needed, not the {kind}: {part}: [{example}].")
    entries = []
    for i, item in enumerate(value):
        entry = _read_mapping(f"sweep.{part}[{i}]", item, example)
        if not entry:
            raise ConfigError(f"sweep.{part}[{i}] is empty: write {example}.")
        entries.append(entry)
    return tuple(entries)


def _read_keys(part: str, value: object) -> tuple[str, ...]:
    """Read a list of keys."""
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"sweep.{part}: {value!r} is not a list of keys, like [dataset.fold].")
    return tuple(value)


def _read_space(value: object) -> Mapping[str, str]:
    """Read a mapping of keys to ranges."""
    space = {}
    for key, text in _read_mapping("sweep.space", value, "{optimizer.lr: 'interval(0.01, 0.1)'}").items():
        if isinstance(text, list | Mapping):
            raise ConfigError(f"sweep.space.{key}: {text!r} is not a range like 'interval(0.01, 0.1)'.")
        space[key] = str(text)
    return space


def _read_mapping(where: str, value: object, example: str) -> Mapping[str, object]:
    """Read a mapping whose keys are texts; {} where the part is not given."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: {value!r} is not a mapping like {example}.")
    for key in value:
        if not isinstance(key, str):
            raise ConfigError(f"{where}: {key!r} is not the name of a key.")
    return value
