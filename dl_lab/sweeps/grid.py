"""Read which jobs a sweep has: from Hydra's sweep overrides, and a sweep file's grid, zip, list, exclude and where.

A job is a list of overrides. The grid is the product of all its axes; the last axis varies fastest, as in Hydra. A zip
is one axis whose keys change together. Each entry of the list is one more job beside the product. An entry of exclude
removes the jobs of the product that agree with all its keys; an entry of where keeps them. The command line wins over
the file.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dl_lab.configs.words import did_you_mean
from dl_lab.keys import of_word
from dl_lab.sweeps import values
from dl_lab.sweeps.options import GRID_FLAGS
from dl_lab.sweeps.sweep_file import SweepFile, read_spec
from dl_lab.sweeps.values import are_equal, parse_overrides, split_words, to_word, values_of
from dl_lab.types import ConfigError

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.override_parser.types import Override

Axis = list[list[str]]  # the alternatives of an axis, each a list of overrides


@dataclass(frozen=True)
class Filter:
    """One entry of exclude or where.

    Attributes:
        source: How the user wrote it, for messages.
        words: The overrides that a job must agree with.
        may_miss: No job need agree, because the command line replaced the values that the entry is about.
    """

    source: str
    words: Sequence[str]
    may_miss: bool = False


@dataclass
class Grid:
    """What a command line and a sweep file ask for.

    Attributes:
        fixed: The overrides of every job.
        axes: What varies.
        extra: Jobs beside the product of the axes.
        exclude: Entries that remove jobs of the product.
        where: Entries that keep jobs of the product. Without an entry all jobs are kept.
        launcher: The settings of `launcher=`; {} for this machine.
        search: The settings of `search=`; {} for a grid.
        pruner: The settings of `pruner=`; {} for none.
        ranges: The parsed overrides that a search varies.
        folder: `hydra.sweep.dir` of the command line; None where it is not given.
        notes: What the plan on the screen must say, one sentence each.
        replicates: Keys whose values repeat a setting, as seeds do.
    """

    fixed: list[str] = field(default_factory=list)
    axes: list[Axis] = field(default_factory=list)
    extra: list[list[str]] = field(default_factory=list)
    exclude: list[Filter] = field(default_factory=list)
    where: list[Filter] = field(default_factory=list)
    launcher: dict[str, object] = field(default_factory=dict)
    search: dict[str, object] = field(default_factory=dict)
    pruner: dict[str, object] = field(default_factory=dict)
    ranges: list[Override] = field(default_factory=list)
    folder: str | None = None
    notes: list[str] = field(default_factory=list)
    replicates: list[str] = field(default_factory=list)

    def jobs(self) -> list[list[str]]:
        """Return the overrides of every job, without the fixed ones.

        The jobs of a search are not known yet: it returns those that stand for all of them (`Space.probes`).

        Raises:
            ConfigError: No job is left, or no job agrees with a filter.
        """
        if self.search:
            from dl_lab.sweeps import search
            from dl_lab.sweeps.space import parse_space

            with search.require_optuna():
                return parse_space(self.ranges).probes()
        if not self.axes and self.extra:
            filters = [*self.exclude, *self.where]
            if filters:
                raise ConfigError(f"{filters[0].source} is for a grid; this sweep is a list of jobs.")
            return [list(job) for job in self.extra]
        product = [list(itertools.chain(*choice)) for choice in itertools.product(*self.axes)]
        jobs = [*self._keep(product), *self.extra]
        if not jobs:
            raise ConfigError("This sweep has no job: everything is excluded.")
        return jobs

    def keys(self) -> list[str]:
        """Return the names of the keys that vary."""
        if self.ranges:
            return [override.get_key_element().lstrip("+~") for override in self.ranges]
        words = itertools.chain(*itertools.chain(*self.axes), *self.extra)
        return sorted({of_word(word) for word in words})

    def _keep(self, product: list[list[str]]) -> list[list[str]]:
        """Apply the filters to the jobs of the product."""
        if not self.exclude and not self.where:
            return product
        self._check_filter_keys()
        fixed = values_of(self.fixed)
        settings = [{**fixed, **values_of(job)} for job in product]
        excluded: set[int] = set()
        for entry in self.exclude:
            excluded |= self._find(entry, settings)
        kept: set[int] = set()
        for entry in self.where:
            kept |= self._find(entry, settings)
        wanted = kept if self.where else set(range(len(product)))
        return [job for i, job in enumerate(product) if i in wanted and i not in excluded]

    def _find(self, entry: Filter, settings: Sequence[Mapping[str, object]]) -> set[int]:
        """Find the jobs that agree with an entry; refuse an entry with which none agrees, unless it may miss."""
        wanted = values_of(entry.words)
        found = {i for i, job in enumerate(settings) if all(are_equal(job[key], wanted[key]) for key in wanted)}
        if not found and not entry.may_miss:
            values = self._values_of_keys()
            there = " and ".join(f"{key} is {', '.join(values[key])}" for key in wanted)
            raise ConfigError(f"{entry.source} fits no job of this sweep; {there}.")
        return found

    def _product_words(self) -> list[str]:
        """Return every word that a job of the product may have."""
        return [*itertools.chain(*itertools.chain(*self.axes)), *self.fixed]

    def _values_of_keys(self) -> dict[str, list[str]]:
        """Return the values that each key of the product takes."""
        values: dict[str, list[str]] = {}
        for word in dict.fromkeys(self._product_words()):
            key, _, value = word.lstrip("+~").partition("=")
            values.setdefault(key, []).append(value)
        return values

    def _check_filter_keys(self) -> None:
        """Refuse a filter with a key that the product does not set."""
        known = sorted({of_word(word) for word in self._product_words()})
        for entry in [*self.exclude, *self.where]:
            for key in map(of_word, entry.words):
                if key not in known:
                    hint = did_you_mean(key, known)
                    raise ConfigError(f"{entry.source}: this sweep sets no {key}; it sets {', '.join(known)}.{hint}")


def expand(
    loader: ConfigLoader,
    overrides: Sequence[str],
    flags: Mapping[str, Sequence[str]],
    spec: Mapping[str, object] | None,
    searching: bool = False,
) -> Grid:
    """Read the grid of a command line and a sweep file.

    Args:
        loader: Hydra's config loader, which knows the groups for `glob(...)`.
        overrides: The words of the command line.
        flags: "zip", "list", "exclude", "where" -> the texts given, each like "optimizer.lr=0.1,0.01 seed=1".
        spec: The content of the sweep file; None where there is none.
        searching: What varies becomes `ranges` of a search instead of axes.

    Raises:
        ConfigError: Something cannot be read, or a key is given twice.
    """
    typed = _parse_command(loader, overrides, flags.get("zip", ()))
    if searching:
        return _expand_search(loader, typed, flags, spec or {})
    grid = Grid(fixed=typed.fixed)
    for override in typed.varying:
        if override.is_interval_sweep():
            raise ConfigError(f"{override.input_line}: an interval is for a search: add search=tpe (or random, cmaes).")
        grid.axes.append([[word] for word in values.alternatives(override)])
    if spec is not None:
        _add_file(grid, read_spec(spec), typed)
    for text, columns in typed.zips.items():
        grid.axes.append(_zip([values.alternatives(override) for override in columns], f"--zip {text!r}"))
    for text in flags.get("list", ()):
        grid.extra.append(_read_entry(text, "--list"))
    for text in flags.get("exclude", ()):
        grid.exclude.append(Filter(f"--exclude {text!r}", _read_entry(text, "--exclude")))
    for text in flags.get("where", ()):
        grid.where.append(Filter(f"--where {text!r}", _read_entry(text, "--where")))
    return grid


@dataclass
class _Command:
    """What a command line sets.

    Attributes:
        fixed: Its words with one value; where a key is given twice the last one, as in Hydra.
        varying: Its parsed overrides with several values.
        zips: The parsed overrides of each --zip, by its text.
        words: The word of each key.
    """

    fixed: list[str] = field(default_factory=list)
    varying: list[Override] = field(default_factory=list)
    zips: dict[str, list[Override]] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)


def _parse_command(loader: ConfigLoader, overrides: Sequence[str], zips: Sequence[str]) -> _Command:
    """Read the overrides and each --zip."""
    command = _Command()
    for override in parse_overrides(overrides, loader):
        word = str(override.input_line)
        if override.is_sweep_override():
            _refuse_second(command, word, varies=True)
            command.varying.append(override)
        else:
            _refuse_second(command, word, varies=False)
            command.fixed = [one for one in command.fixed if of_word(one) != of_word(word)]
            command.fixed.append(word)
    for text in zips:
        command.zips[text] = parse_overrides(split_words(text), loader)
        for override in command.zips[text]:
            _refuse_second(command, str(override.input_line), varies=True)
    return command


def _refuse_second(command: _Command, word: str, varies: bool) -> None:
    """Note the word of a key; refuse a key that is given twice and varies."""
    key = of_word(word)
    is_fixed = any(of_word(one) == key for one in command.fixed)
    if key in command.words and (varies or not is_fixed):
        raise ConfigError(f"{key} is given twice: {command.words[key]} and {word}.")
    command.words[key] = word


def _expand_search(
    loader: ConfigLoader, typed: _Command, flags: Mapping[str, Sequence[str]], spec: Mapping[str, object]
) -> Grid:
    """Read the ranges of the command line, and of a sweep file's `space` and `grid`."""
    wrong = [name for name in GRID_FLAGS if flags.get(name) or spec.get(name)]
    if wrong:
        raise ConfigError(f"A search has no {wrong[0]}: each key has its own range.")
    file = read_spec(spec)
    words = [f"{key}={text}" for key, text in file.space.items()]
    for key, items in file.grid.items():
        texts = [to_word(key, item).partition("=")[2] for item in items]
        words.append(f"{key}={','.join(texts)}")
    grid = Grid(fixed=typed.fixed, ranges=list(typed.varying))
    kept = []
    for word in words:
        if of_word(word) in typed.words:
            grid.notes.append(_note_replaced(of_word(word), typed))
        else:
            kept.append(word)
    for override in parse_overrides(kept, loader):
        if override.is_sweep_override():
            grid.ranges.append(override)
        else:
            grid.fixed.append(str(override.input_line))
    return grid


def _add_file(grid: Grid, file: SweepFile, typed: _Command) -> None:
    """Add what a sweep file asks for, without the keys that the command line sets."""
    if file.space:
        raise ConfigError("The space of this sweep is for a search: add search=tpe (or random, cmaes).")
    replaced: dict[str, None] = {}
    grid.replicates += file.replicates

    def is_typed(key: str) -> bool:
        if key.lstrip("+~") in typed.words:
            replaced[key.lstrip("+~")] = None
            return True
        return False

    for key, items in file.grid.items():
        if not is_typed(key):
            grid.axes.append([[to_word(key, item)] for item in items])
    columns = [[to_word(key, item) for item in items] for key, items in file.zip.items() if not is_typed(key)]
    if columns:
        grid.axes.append(_zip(columns, "sweep.zip"))
    for entry in file.list:
        kept = [to_word(key, item) for key, item in entry.items() if not is_typed(key)]
        grid.extra += _cross(kept, [key for key in entry if key.lstrip("+~") in typed.words], typed)
    grid.exclude += [_read_filter("exclude", entry, typed) for entry in file.exclude]
    grid.where += [_read_filter("where", entry, typed) for entry in file.where]
    grid.notes += [_note_replaced(key, typed) for key in replaced]


def _read_filter(part: str, entry: Mapping[str, object], typed: _Command) -> Filter:
    """Read an entry of exclude or where in a sweep file."""
    words = [to_word(key, item) for key, item in entry.items()]
    may_miss = any(key.lstrip("+~") in typed.words for key in entry)
    return Filter(f"sweep.{part} {' '.join(words)}", words, may_miss)


def _cross(entry: list[str], replaced: Sequence[str], typed: _Command) -> list[list[str]]:
    """Return the jobs of a list entry: one, or one for each value that the command line gives to a key of the entry."""
    keys = {key.lstrip("+~") for key in replaced}
    axes = [values.alternatives(override) for override in typed.varying if of_word(str(override.input_line)) in keys]
    return [[*entry, *chosen] for chosen in itertools.product(*axes)]


def _note_replaced(key: str, typed: _Command) -> str:
    return f"{typed.words[key]} of the command line replaces what the sweep file says about {key}."


def _zip(columns: Sequence[Sequence[str]], source: str) -> Axis:
    """Make the axis whose keys change together."""
    lengths = {len(column) for column in columns}
    if len(lengths) > 1:
        counts = ", ".join(f"{of_word(column[0])} has {len(column)}" for column in columns)
        raise ConfigError(f"{source}: zipped keys need equally many values; {counts}.")
    return [list(words) for words in zip(*columns, strict=True)]


def _read_entry(text: str, flag: str) -> list[str]:
    """Read the words of one --list, --exclude or --where."""
    words = split_words(text)
    if not words:
        raise ConfigError(f"{flag} {text!r} is empty.")
    for override in parse_overrides(words):
        if override.is_sweep_override():
            raise ConfigError(f"{flag} {text!r}: {override.input_line} has several values; one entry has one.")
    return words
