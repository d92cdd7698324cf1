"""Compose many jobs at the cost of a few: jobs that differ in plain values only are copies of one.

Hydra takes far longer to compose a job than to copy one. The jobs of a family have the same group choices and the same
words that are not plain values. Hydra composes the first job of a family. For each key that varies it composes one more
job, which shows where the value goes. The rest are copies with other values.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from dl_lab.configs import Composed

Job: TypeAlias = Sequence[str]  # the overrides of a job
Compose: TypeAlias = Callable[[Job], Composed]
Place: TypeAlias = tuple[str | int, ...]  # a path into nested mappings and lists


def compose_all(
    compose: Compose, groups: Collection[str], jobs: Sequence[Job], first: Composed | None = None
) -> list[Composed]:
    """Compose every job.

    Args:
        compose: Composes one job.
        groups: The names of the config groups, whose choices are never copied.
        jobs: The overrides of each job.
        first: The first job, where it is composed already.

    Returns:
        What `compose(job)` gives for each job.
    """
    families: dict[tuple[tuple[str, ...], tuple[str, ...]], list[int]] = {}
    for i, job in enumerate(jobs):
        families.setdefault(_find_family(job, groups), []).append(i)
    composed: dict[int, Composed] = {}
    for (_, varying), members in families.items():
        head = first if members[0] == 0 and first is not None else compose(jobs[members[0]])
        family = _compose_family(compose, [jobs[i] for i in members], varying, head)
        composed |= dict(zip(members, family, strict=True))
    return [composed[i] for i in range(len(jobs))]


def _compose_family(compose: Compose, jobs: Sequence[Job], varying: Sequence[str], first: Composed) -> list[Composed]:
    """Compose the jobs of a family.

    Args:
        compose: Composes one job.
        jobs: The overrides of each job.
        varying: The keys that may vary.
        first: The first job, composed.
    """
    places: dict[str, list[Place]] = {}
    for key in varying:
        value = _value_of(jobs[0], key)
        other = next((job for job in jobs if _value_of(job, key) != value), None)
        if other is None:
            continue
        changed = [_word_of(other, key) if word.partition("=")[0] == key else word for word in jobs[0]]
        found = _find_places(first.config, compose(changed).config, (value, _value_of(other, key)))
        if found is None:  # another value is derived from this one: compose each job
            return [compose(job) for job in jobs]
        places[key] = found
    copies = []
    text = json.dumps(first.config)
    for job in jobs:
        config = json.loads(text)  # a deep copy, faster than `copy.deepcopy`
        words = {word.partition("=")[0]: word for word in job}
        for key, found in places.items():
            for place in found:
                _set(config, place, _parse(words[key]))
        copies.append(replace(first, config=config, overrides=list(job)))
    return copies


def _find_family(job: Job, groups: Collection[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Find the family of a job.

    Returns:
        All its words that are no plain values, in their places, and the keys of those that are.
    """
    keys = [word.partition("=")[0] for word in job]
    others = []
    varying = []
    for word, key in zip(job, keys, strict=True):
        if _is_plain(word) and key not in groups and keys.count(key) == 1:
            others.append("")
            varying.append(key)
        else:
            others.append(word)
    return tuple(others), tuple(varying)


def _is_plain(word: str) -> bool:
    """Whether a word replaces one scalar (`a.b=1`, `a=text`), without quotes, interpolations, `+` or `~`."""
    return re.fullmatch(r"[A-Za-z_][\w.]*=[\w.+-]+", word) is not None and "/" not in word


def _word_of(job: Job, key: str) -> str:
    return next(word for word in job if word.partition("=")[0] == key)


def _value_of(job: Job, key: str) -> object:
    return _parse(_word_of(job, key))


@functools.cache
def _parse(word: str) -> object:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(word).value()


def _find_places(one: object, two: object, values: tuple[object, object], path: Place = ()) -> list[Place] | None:
    """Find where two configs differ.

    Args:
        one: The first config, or a part of it.
        two: The second config, or the same part of it.
        values: What the first and the second config hold wherever they differ.
        path: The place of the part.

    Returns:
        The places; None where the configs differ in anything else.
    """
    if isinstance(one, dict) and isinstance(two, dict) and one.keys() == two.keys():
        parts = [(key, one[key], two[key]) for key in one]
    elif isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        parts = [(i, a, b) for i, (a, b) in enumerate(zip(one, two, strict=True))]
    elif _are_same(one, two):
        return []
    else:
        return [path] if _are_same(one, values[0]) and _are_same(two, values[1]) else None
    places: list[Place] = []
    for name, a, b in parts:
        found = _find_places(a, b, values, (*path, name))
        if found is None:
            return None
        places += found
    return places


def _are_same(one: object, two: object) -> bool:
    """Whether two values are equal and of one type: 1 is not 1.0, nor True."""
    return type(one) is type(two) and one == two


def _set(config: Any, place: Place, value: object) -> None:
    """Set the value at a place of nested mappings and lists."""
    *parents, last = place
    for name in parents:
        config = config[name]
    config[last] = value
