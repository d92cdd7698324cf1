"""Composing many jobs at the cost of a few: jobs that differ in plain values only are copies of one.

Hydra composes a job in 80 ms. Of every family of jobs (the same group choices, the same other words) the first is
composed, and one more for each key that varies, to see where its value goes; the rest are copies with other values.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any


def compose_all(
    compose: Callable[[Sequence[str]], Any],
    groups: Collection[str],
    jobs: Sequence[Sequence[str]],
    first: Any | None = None,
) -> list[Any]:
    """What `compose(job)` gives for each job: a dataclass with `config` (plain values) and `overrides`.

    groups: the names of the config groups, whose choices are never copied. first: compose(jobs[0]), where it is known.
    """
    families: dict[tuple[tuple[str, ...], tuple[str, ...]], list[int]] = {}
    for i, job in enumerate(jobs):
        families.setdefault(_family(job, groups), []).append(i)
    composed: dict[int, Any] = {}
    for (_, varying), members in families.items():
        known = first if members[0] == 0 else None
        found = _compose_family(compose, [jobs[i] for i in members], varying, known or compose(jobs[members[0]]))
        composed |= dict(zip(members, found, strict=True))
    return [composed[i] for i in range(len(jobs))]


def _compose_family(
    compose: Callable[[Sequence[str]], Any], jobs: Sequence[Sequence[str]], varying: Sequence[str], first: Any
) -> list[Any]:
    places: dict[str, list[tuple[Any, ...]]] = {}
    for key in varying:
        other = next((job for job in jobs if _value_of(job, key) != _value_of(jobs[0], key)), None)
        if other is not None:
            changed = [_word_of(other, key) if word.partition("=")[0] == key else word for word in jobs[0]]
            found = _places(first.config, compose(changed).config, _value_of(jobs[0], key), _value_of(other, key))
            if found is None:  # something is derived from the value: compose each job
                return [compose(job) for job in jobs]
            places[key] = found
    copies = []
    for job in jobs:
        values = [(place, _value_of(job, key)) for key, found in places.items() for place in found]
        copies.append(replace(first, config=_with_values(first.config, values), overrides=list(job)))
    return copies


def _family(job: Sequence[str], groups: Collection[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(all words that are not plain `key=scalar`, with their places; the keys of those that are)."""
    keys = [word.partition("=")[0] for word in job]
    plain = [
        _is_plain(word) and key not in groups and keys.count(key) == 1 for word, key in zip(job, keys, strict=True)
    ]
    rest = tuple("" if is_plain else word for word, is_plain in zip(job, plain, strict=True))
    return rest, tuple(key for key, is_plain in zip(keys, plain, strict=True) if is_plain)


def _is_plain(word: str) -> bool:
    """`a.b=1`, `a=text`: replaces one existing scalar; nothing is quoted, added, deleted or interpolated."""
    return re.fullmatch(r"[A-Za-z_][\w.]*=[\w.+-]+", word) is not None and "/" not in word


def _word_of(job: Sequence[str], key: str) -> str:
    return next(word for word in job if word.partition("=")[0] == key)


def _value_of(job: Sequence[str], key: str) -> Any:
    return _parsed(_word_of(job, key))


@functools.cache
def _parsed(word: str) -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(word).value()


def _places(
    one: Any, two: Any, value_one: Any, value_two: Any, path: tuple[Any, ...] = ()
) -> list[tuple[Any, ...]] | None:
    """Where two configs differ, if they hold exactly the one and the other value there; else None."""
    if isinstance(one, dict) and isinstance(two, dict) and one.keys() == two.keys():
        parts = [_places(one[key], two[key], value_one, value_two, (*path, key)) for key in one]
    elif isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        parts = [_places(a, b, value_one, value_two, (*path, i)) for i, (a, b) in enumerate(zip(one, two, strict=True))]
    elif type(one) is type(two) and one == two:
        return []
    else:
        same = one == value_one and two == value_two and type(one) is type(value_one) and type(two) is type(value_two)
        return [path] if same else None
    return None if any(part is None for part in parts) else [place for part in parts for place in part or []]


def _with_values(config: Any, values: Sequence[tuple[tuple[Any, ...], Any]]) -> Any:
    """A copy of nested plain values with others at the given places."""
    copied = json.loads(json.dumps(config))
    for path, value in values:
        node = copied
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value
    return copied
