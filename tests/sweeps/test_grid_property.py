"""Random grids, zips, lists, filters and overrides agree with a plain expansion of what they mean."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from dl_lab import configs
from dl_lab.sweeps import grid
from dl_lab.sweeps.values import are_equal, to_word, values_of
from dl_lab.types import ConfigError

N_CASES = 1000
# Each value with spellings that mean the same on a command line.
VALUES: dict[str, list[tuple[Any, list[str]]]] = {
    "seed": [(0, ["0"]), (1, ["1"]), (2, ["2"]), (7, ["7"])],
    "optimizer.lr": [(0.1, ["0.1", "1e-1", "0.10"]), (0.01, ["0.01", "1e-2"]), (1.5, ["1.5", "15e-1"])],
    "model.hidden": [([32, 32], ["[32,32]", "[32, 32]"]), ([8], ["[8]", "[ 8 ]"]), ([], ["[]"])],
    "model.activation": [("relu", ["relu", "'relu'", '"relu"']), ("a b", ["'a b'", '"a b"']), ("1", ["'1'"])],
    "deterministic": [(True, ["true", "True"]), (False, ["false", "FALSE"])],
    "learner.clip_norm": [(None, ["null", "NULL"]), (1.0, ["1.0", "1e0"])],
}


@dataclass
class Case:
    """What a user asks for, as values; a key of the command line is in `fixed`, `axes` or one of `zips`."""

    fixed: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, list[Any]] = field(default_factory=dict)
    zips: list[dict[str, list[Any]]] = field(default_factory=list)
    listed: list[dict[str, Any]] = field(default_factory=list)
    exclude: list[dict[str, Any]] = field(default_factory=list)
    where: list[dict[str, Any]] = field(default_factory=list)
    file: dict[str, Any] = field(default_factory=dict)


def expand_plainly(case: Case) -> list[dict[str, Any]] | None:
    """The jobs of a case by the rules of docs/sweeps.md, written without any of dl-lab's code; None: refused."""
    typed = {*case.fixed, *case.axes, *(key for one in case.zips for key in one)}
    axes = [[{key: value} for value in case.axes[key]] for key in case.axes]
    axes += [[{key: value} for value in items] for key, items in case.file.get("grid", {}).items() if key not in typed]
    columns = {key: items for key, items in case.file.get("zip", {}).items() if key not in typed}
    for zipped in [columns, *case.zips]:
        if len({len(items) for items in zipped.values()}) > 1:
            return None
        rows = zip(*zipped.values(), strict=True)
        axes += [[dict(zip(zipped, row, strict=True)) for row in rows]] if zipped else []
    extra = []
    for entry in case.file.get("list", []):
        kept = {key: value for key, value in entry.items() if key not in typed}
        crossed = [[{key: value} for value in items] for key, items in case.axes.items() if key in entry]
        for chosen in itertools.product(*crossed):
            extra.append(merge(case.fixed, kept, *chosen))
    extra += [merge(case.fixed, entry) for entry in case.listed]
    product = [merge(case.fixed, *chosen) for chosen in itertools.product(*axes)]
    filters = [(entry, False) for entry in [*case.exclude, *case.where]]
    filters += [
        (entry, bool(typed & entry.keys())) for part in ("exclude", "where") for entry in case.file.get(part, [])
    ]
    if not axes and extra:
        return None if filters else extra
    known = {*case.fixed, *(key for axis in axes for choice in axis for key in choice)}
    for entry, may_miss in filters:
        if not entry.keys() <= known or not (may_miss or any(agrees(job, entry) for job in product)):
            return None
    exclude = [*case.exclude, *case.file.get("exclude", [])]
    where = [*case.where, *case.file.get("where", [])]
    jobs = [
        job
        for job in product
        if not any(agrees(job, entry) for entry in exclude)
        and (not where or any(agrees(job, entry) for entry in where))
    ]
    return jobs + extra or None


def merge(*parts: dict[str, Any]) -> dict[str, Any]:
    return {key: value for part in parts for key, value in part.items()}


def agrees(job: dict[str, Any], entry: dict[str, Any]) -> bool:
    return all(key in job and type(job[key]) is type(entry[key]) and job[key] == entry[key] for key in entry)


# -- drawing a case ---------------------------------------------------------------------------------------------------


def draw_values(draw: random.Random, key: str, n: int | None = None) -> list[Any]:
    values = [value for value, _ in VALUES[key]]
    n = n or draw.randint(1, len(values))
    return draw.sample(values, n) if n <= len(values) else draw.choices(values, k=n)


def draw_entry(draw: random.Random, keys: list[str]) -> dict[str, Any]:
    chosen = draw.sample(keys, draw.randint(1, min(2, len(keys))))
    return {key: draw_values(draw, key, 1)[0] for key in chosen}


def draw_zip(draw: random.Random, keys: list[str]) -> dict[str, list[Any]]:
    n = draw.randint(1, 3)
    return {key: draw_values(draw, key, n if draw.random() < 0.95 else n + 1) for key in keys}


def draw_case(draw: random.Random) -> Case:
    keys = list(VALUES)
    draw.shuffle(keys)
    case = Case()
    own = keys[: draw.randint(0, 4)]
    for key in own[:2]:
        if draw.random() < 0.4:
            case.fixed[key] = draw_values(draw, key, 1)[0]
        else:
            case.axes[key] = draw_values(draw, key, draw.randint(2, len(VALUES[key])))
    if len(own) == 4 and draw.random() < 0.5:
        case.zips = [draw_zip(draw, own[2:])]
    if draw.random() < 0.6:
        for key in draw.sample(keys, draw.randint(0, 2)):
            case.file.setdefault("grid", {})[key] = draw_values(draw, key)
        rest = [key for key in keys if key not in case.file.get("grid", {})]
        if draw.random() < 0.3:
            case.file["zip"] = draw_zip(draw, draw.sample(rest, 2))
        for part in ("list", "exclude", "where"):
            if draw.random() < 0.2:
                case.file[part] = [draw_entry(draw, keys)]
    for entries in (case.listed, case.exclude, case.where):
        if draw.random() < 0.25:
            entries += [draw_entry(draw, keys) for _ in range(draw.randint(1, 2))]
    return case


def spell(draw: random.Random, key: str, value: Any) -> str:
    (spellings,) = [texts for known, texts in VALUES[key] if type(known) is type(value) and known == value]
    return draw.choice(spellings)


def write(draw: random.Random, case: Case) -> tuple[list[str], dict[str, list[str]]]:
    """The case as the words of a command line."""
    words = [f"{key}={spell(draw, key, value)}" for key, value in case.fixed.items()]
    words += [f"{key}=" + ",".join(spell(draw, key, value) for value in items) for key, items in case.axes.items()]
    zips = [
        " ".join(f"{key}=" + ",".join(spell(draw, key, value) for value in items) for key, items in one.items())
        for one in case.zips
    ]
    flags = {"zip": zips}
    for name, entries in (("list", case.listed), ("exclude", case.exclude), ("where", case.where)):
        flags[name] = ["  ".join(f"{key}={spell(draw, key, value)}" for key, value in one.items()) for one in entries]
    return words, flags


@pytest.fixture(scope="module")
def loader():
    return configs.Composer().loader


def test_random_requests_expand_as_the_rules_say(loader):
    n_refused = n_jobs = 0
    for number in range(N_CASES):
        draw = random.Random(number)
        case = draw_case(draw)
        words, flags = write(draw, case)
        expected = expand_plainly(case)
        try:
            found = grid.expand(loader, words, flags, case.file or None)
            jobs = [values_of([*found.fixed, *job]) for job in found.jobs()]
        except ConfigError:
            jobs = None
        assert jobs == expected, f"case {number}: {words} {flags} {case.file}"
        assert all(are_equal(a, b) for a, b in zip(jobs or [], expected or [], strict=True)), f"case {number}"
        n_refused += jobs is None
        n_jobs += len(jobs or [])
    assert 50 < n_refused < N_CASES / 2
    assert n_jobs > 2 * N_CASES


TEXTS = ["null", "1e-3", "it's", "é", "~/x", "true", "a,b", "a=b", "#1", " x ", "", "[1]", "{a: 1}", 'say "hi"', "a\\b"]


@pytest.mark.parametrize("value", [*TEXTS, 3, 1e-3, True, None, float("inf"), ["null", 2], {"a": "b c"}, [["x"], []]])
def test_a_value_of_a_file_is_the_same_value_as_an_override(value):
    assert are_equal(values_of([to_word("key", value)])["key"], value)
