"""Which jobs a sweep has: Hydra's sweep overrides, and a sweep file's grid, zip, list, exclude and where.

A job is a list of overrides. The grid is the product of all its axes, the last one varying fastest (as Hydra's); a
zip is one axis whose keys change together; every entry of the list is a further job; exclude takes away, and where
keeps, the jobs that agree with all keys of an entry.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dl_lab.types import ConfigError

Axis = list[list[str]]  # the alternatives of an axis, each a list of overrides
PARTS = ("grid", "zip", "list", "exclude", "where", "space")


@dataclass
class Grid:
    """fixed: overrides of every job. axes: what varies. extra: further jobs beside the product.

    launcher, search, pruner: the settings of these words; {} for this machine, for a grid.
    ranges: in a search, the parsed overrides that it varies.
    """

    fixed: list[str] = field(default_factory=list)
    axes: list[Axis] = field(default_factory=list)
    extra: list[list[str]] = field(default_factory=list)
    exclude: list[dict[str, str]] = field(default_factory=list)
    where: list[dict[str, str]] = field(default_factory=list)
    launcher: dict[str, Any] = field(default_factory=dict)
    search: dict[str, Any] = field(default_factory=dict)
    pruner: dict[str, Any] = field(default_factory=dict)
    ranges: list[Any] = field(default_factory=list)

    def jobs(self) -> list[list[str]]:
        """The overrides of every job beside the fixed ones; of a search, of jobs that may come (`Space.probes`).

        Raises ConfigError where none is left.
        """
        if self.search:
            from dl_lab.sweeps import search

            with search.needed():
                return search.parse_space(self.ranges).probes()
        product = [list(itertools.chain(*choice)) for choice in itertools.product(*self.axes)] if self.axes else []
        jobs = [job for job in product if self._kept(job)] + self.extra
        if not jobs:
            raise ConfigError("This sweep has no job: nothing varies, or everything is excluded.")
        repeated = {tuple(job) for job in jobs if jobs.count(job) > 1} if len(jobs) < 2000 else set()
        if repeated:
            raise ConfigError(f"This sweep has the same job twice: {' '.join(min(repeated))}.")
        return jobs

    def keys(self) -> list[str]:
        """The names of what varies."""
        if self.ranges:
            return [override.get_key_element().lstrip("+~") for override in self.ranges]
        words = itertools.chain(*itertools.chain(*self.axes), *self.extra)
        return sorted({word.partition("=")[0].lstrip("+~") for word in words})

    def _kept(self, job: Sequence[str]) -> bool:
        values = {**as_mapping(self.fixed), **as_mapping(job)}

        def agrees(entry: Mapping[str, str]) -> bool:
            return all(values.get(key) == value for key, value in entry.items())

        return not any(map(agrees, self.exclude)) and (not self.where or any(map(agrees, self.where)))


def expand(
    loader: Any,
    overrides: Sequence[str],
    flags: Mapping[str, Sequence[str]],
    spec: Mapping[str, Any] | None,
    searching: bool = False,
) -> Grid:
    """The grid of a command line.

    loader: Hydra's config loader (it knows the groups, for glob). flags: "zip", "list", "exclude", "where" -> the
    texts given on the command line, each like "optimizer.lr=0.1,0.01 seed=1". spec: the mapping of a sweep file.
    searching: what varies becomes `ranges` of a search instead of axes. Raises ConfigError for what cannot be read.
    """
    if searching:
        return _expand_search(loader, overrides, flags, spec or {})
    grid = Grid()
    for override in _parse(loader, overrides):
        if override.is_interval_sweep():
            raise ConfigError(f"{override.input_line}: an interval is for a search: add search=tpe (or random, cmaes).")
        if override.is_sweep_override():
            grid.axes.append([[word] for word in _alternatives(override)])
        else:
            grid.fixed.append(str(override.input_line))
    if spec:
        _add_spec(grid, spec)
    for text in flags.get("zip", ()):
        grid.axes.append(_zipped([_alternatives(o) for o in _parse(loader, text.split())], text))
    grid.extra += [text.split() for text in flags.get("list", ())]
    grid.exclude += [as_mapping(text.split()) for text in flags.get("exclude", ())]
    grid.where += [as_mapping(text.split()) for text in flags.get("where", ())]
    for text in grid.extra:
        _parse(loader, text)
    return grid


def _expand_search(
    loader: Any, overrides: Sequence[str], flags: Mapping[str, Sequence[str]], spec: Mapping[str, Any]
) -> Grid:
    """The ranges of the command line and of a sweep file's `space` and `grid`; fixed words as ever."""
    wrong = [name for name in ("zip", "list", "exclude", "where") if flags.get(name) or spec.get(name)]
    if wrong:
        raise ConfigError(f"A search has no {wrong[0]}: each key has its own range.")
    grid = Grid()
    words = [f"{key}={value}" for key, value in (spec.get("space") or {}).items()]
    for key, values in (spec.get("grid") or {}).items():
        words.append(f"{key}={','.join(_word(key, value).partition('=')[2] for value in values)}")
    typed = {word.partition("=")[0] for word in overrides}
    for override in _parse(loader, [*overrides, *(word for word in words if word.partition("=")[0] not in typed)]):
        if override.is_sweep_override():
            grid.ranges.append(override)
        else:
            grid.fixed.append(str(override.input_line))
    return grid


def _add_spec(grid: Grid, spec: Mapping[str, Any]) -> None:
    unknown = set(spec) - set(PARTS)
    if unknown:
        raise ConfigError(f"A sweep has no part {min(unknown)!r}; there are {', '.join(PARTS)}.")
    if spec.get("space"):
        raise ConfigError("The space of this sweep is for a search: add search=tpe (or random, cmaes).")
    for key, values in (spec.get("grid") or {}).items():
        if not isinstance(values, list):
            raise ConfigError(f"sweep.grid.{key}: {values!r} is not a list of values.")
        grid.axes.append([[_word(key, value)] for value in values])
    zipped = spec.get("zip") or {}
    if zipped:
        grid.axes.append(
            _zipped([[_word(key, value) for value in values] for key, values in zipped.items()], "sweep.zip")
        )
    grid.extra += [[_word(key, value) for key, value in entry.items()] for entry in spec.get("list") or []]
    for part, entries in (("exclude", grid.exclude), ("where", grid.where)):
        words = [[_word(key, value) for key, value in entry.items()] for entry in spec.get(part) or []]
        entries += [as_mapping(entry) for entry in words]


def _zipped(columns: Sequence[Sequence[str]], where: str) -> Axis:
    lengths = {len(column) for column in columns}
    if len(lengths) > 1:
        raise ConfigError(
            f"{where}: zipped keys need equally many values, here {', '.join(map(str, sorted(lengths)))}."
        )
    return [list(words) for words in zip(*columns, strict=True)]


def _parse(loader: Any, words: Sequence[str]) -> list[Any]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create(config_loader=loader).parse_overrides(list(words))
    except HydraException as error:
        text = str(error.__cause__ or error).partition("\n")[0]
        raise ConfigError(f"{getattr(error, 'override', words)!r} is not an override like key=value: {text}") from error


def _alternatives(override: Any) -> list[str]:
    key = override.get_key_element()
    if override.is_sweep_override():
        return [f"{key}={value}" for value in override.sweep_string_iterator()]
    return [str(override.input_line)]


def _word(key: str, value: Any) -> str:
    """An override in Hydra's grammar for a value of a YAML file."""
    from hydra.core.override_parser.types import Override

    return f"{key}={Override._get_value_element_as_str(value)}"


def as_mapping(words: Sequence[str]) -> dict[str, str]:
    """["a.b=1"] -> {"a.b": "1"}."""
    pairs = (word.lstrip("+~").partition("=") for word in words)
    return {key: value for key, _, value in pairs}
