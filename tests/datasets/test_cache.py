"""The cache of computed data: entries are whole, mapped, keyed by content and made again where they are damaged."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dl_lab.datasets.cache import ABOUT, key_of, load_or_fill
from dl_lab.types import UserError


@pytest.fixture
def load(tmp_path):
    """Load one entry; `load.calls` counts how often it had to be filled."""

    def load(n=3, key="k"):
        def fill(writer):
            load.calls += 1
            writer.array("numbers", (n,), np.int64)[:] = range(n)
            writer.save("squares", np.arange(n) ** 2)
            writer.facts = {"n": n}

        return load_or_fill(tmp_path, "squares", key, fill)

    load.calls = 0
    return load


def test_an_entry_is_filled_once(load):
    for _ in range(2):
        entry = load()
        assert entry.arrays["numbers"].tolist() == [0, 1, 2] and entry.arrays["squares"].tolist() == [0, 1, 4]
        assert entry.facts == {"n": 3}
    assert load.calls == 1
    load(key="other")
    assert load.calls == 2


def test_an_entry_may_be_empty(load):
    assert load(0).arrays["numbers"].shape == (0,)
    assert load(0).arrays["numbers"].dtype == np.int64
    assert load.calls == 1


def change_version(folder):
    about = json.loads((folder / ABOUT).read_text())
    (folder / ABOUT).write_text(json.dumps({**about, "version": 0}))


@pytest.mark.data_file(
    "Archives and downloads", kind="cache entry cut short or of an older version", loader="all", outcome="made again"
)
@pytest.mark.parametrize(
    "damage",
    [
        change_version,
        lambda folder: (folder / ABOUT).unlink(),
        lambda folder: (folder / ABOUT).write_text("{"),
        lambda folder: (folder / ABOUT).write_text("[]"),
        lambda folder: (folder / "numbers.npy").unlink(),
        lambda folder: (folder / "numbers.npy").write_bytes((folder / "numbers.npy").read_bytes()[:-1]),
    ],
)
def test_a_damaged_entry_is_made_again(load, tmp_path, damage):
    load()
    damage(tmp_path / "squares_k")
    assert load().arrays["numbers"].tolist() == [0, 1, 2]
    assert load.calls == 2


def test_changes_in_memory_do_not_reach_the_file(load):
    load().arrays["numbers"][:] = 9
    assert load().arrays["numbers"].tolist() == [0, 1, 2]


def test_a_failure_leaves_nothing(tmp_path):
    def fail(writer):
        writer.array("half", (4,), np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_or_fill(tmp_path, "squares", "k", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["squares_k.lock"]


def test_an_impossible_cache_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write the cache"):
        load_or_fill(tmp_path / "file", "squares", "k", lambda writer: None)


def test_keys_depend_on_every_part_and_its_ends():
    keys = [key_of("ab", "c"), key_of("a", "bc"), key_of(b"ab", b"c"), key_of({"a": 1}), key_of({"a": 2}), key_of()]
    assert len(set(keys)) == len(keys)
    assert key_of({"a": 1}) == key_of({"a": 1})
