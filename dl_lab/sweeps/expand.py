"""Expand a command line, a sweep file and Hydra's settings into the jobs that they ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dl_lab import configs, keys
from dl_lab.configs.compose import UnknownKeyError
from dl_lab.keys import of_word
from dl_lab.sweeps import grid
from dl_lab.sweeps.values import alternatives, parse_overrides
from dl_lab.types import ConfigError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override


def expand(composer: configs.Composer, words: Sequence[str], flags: Mapping[str, Sequence[str]]) -> grid.Grid:
    """Read the grid, or the space of a search: from the command line, `sweep=` and `hydra.sweeper.params`.

    Args:
        composer: Composes the settings of the sweep.
        words: The overrides of the command line.
        flags: The texts of --zip, --list, --exclude and --where, by name.

    Raises:
        ConfigError: Something cannot be read, or a key is given twice.
    """
    overrides = [word for word in words if not word.startswith("hydra.mode=")]
    _refuse_several(parse_overrides(overrides, composer.loader))
    fixed = grid.expand(composer.loader, overrides, {}, None, searching=True).fixed
    try:
        base = composer.load(fixed)
    except UnknownKeyError:  # the key may belong to an experiment that varies: composing the jobs will tell
        base = composer.load([word for word in fixed if not _is_of_jobs_only(word)])
    params = base.hydra.sweeper.get("params") or {}
    named = {of_word(word) for word in overrides}
    overrides += [f"{key}={value}" for key, value in params.items() if key not in named]
    spec = configs.plain(base.sweep) if base.get("sweep") is not None else None
    kept = [word for word in overrides if of_word(word) not in ("sweep", "hydra.sweep.dir")]
    expanded = grid.expand(composer.loader, kept, flags, spec, searching=bool(base.get("search")))
    if "hydra.sweep.dir" in named:
        expanded.folder = str(base.hydra.sweep.dir)
    for name in ("launcher", "pruner", "search"):
        setattr(expanded, name, configs.plain(base[name]) if base.get(name) else {})
    return expanded


def _refuse_several(overrides: Sequence[Override]) -> None:
    """Refuse several values of a key that says how the sweep itself runs."""
    for override in overrides:
        key = of_word(str(override.input_line))
        if override.is_sweep_override() and (keys.counts(key).sweep_only or key.startswith("hydra.")):
            each = " and ".join(f"dl-lab -m {word}" for word in alternatives(override)[:2])
            raise ConfigError(f"{override.input_line}: a sweep has one {key}. Start several sweeps:  {each}")


def _is_of_jobs_only(word: str) -> bool:
    """Whether an override sets a key that says nothing about how the sweep runs: dataset.pad_frames=null."""
    head, dot, _ = of_word(word).partition(".")
    return bool(dot) and head not in ("hydra", *keys.sweep_groups())
