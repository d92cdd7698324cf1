"""Rows become train, val and test: every row once, the classes in proportion, and an empty split is an error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dl_lab.datasets.rows import SPLITS, ByColumn, ByFraction, Folds, InOrder
from dl_lab.types import UserError

LABELS = np.repeat([0, 1, 2], [60, 30, 10])


def no_cells(name):
    raise AssertionError("no column is asked for")


@settings(deadline=None)
@given(st.integers(10, 200), st.floats(0.05, 0.4), st.floats(0.05, 0.4), st.integers(0, 9))
def test_every_row_is_in_one_split(n, val, test, seed):
    for way in (ByFraction(val, test, seed), InOrder(val, test), Folds(5, seed % 5, seed)):
        parts = way(n, None, no_cells)
        assert sorted(np.concatenate([parts[split] for split in SPLITS]).tolist()) == list(range(n))


@pytest.mark.parametrize("way", [ByFraction(0.2, 0.2), Folds(5, 3)])
def test_the_classes_keep_their_shares(way):
    parts = way(100, LABELS, no_cells)
    for split, n in {"train": 60, "val": 20, "test": 20}.items():
        assert np.bincount(LABELS[parts[split]]).tolist() == [0.6 * n, 0.3 * n, 0.1 * n]


def test_folds_test_every_row_once():
    tested = np.concatenate([Folds(4, fold)(50, None, no_cells)["test"] for fold in range(4)])
    assert sorted(tested.tolist()) == list(range(50))
    with pytest.raises(ValueError, match="counted from 0"):
        Folds(4, 4)(50, None, no_cells)


def test_the_seed_draws_other_rows_and_order_keeps_them():
    one, other = (ByFraction(seed=seed)(50, None, no_cells)["test"].tolist() for seed in (0, 1))
    assert one != other
    assert InOrder(0.2, 0.2)(10, None, no_cells)["test"].tolist() == [8, 9]


def test_a_column_names_the_split():
    cells = {"part": ["train", "val", "test", "train"]}
    parts = ByColumn("part")(4, None, cells.__getitem__)
    assert {split: rows.tolist() for split, rows in parts.items()} == {"train": [0, 3], "val": [1], "test": [2]}
    with pytest.raises(UserError, match=r"holds 'dev', which names no split. The names are train, val, test"):
        ByColumn("part")(3, None, {"part": ["train", "dev", "test"]}.__getitem__)
    with pytest.raises(UserError, match=r"No rows are left for val \(train 2, val 0, test 1\)"):
        ByColumn("part")(3, None, {"part": ["train", "train", "test"]}.__getitem__)


@pytest.mark.parametrize("shares", [(0, 0.2), (0.5, 0.5), (-0.1, 0.2)])
def test_shares_must_leave_training_rows(shares):
    with pytest.raises(ValueError, match="positive shares"):
        ByFraction(*shares)(50, None, no_cells)
