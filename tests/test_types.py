"""Tallies: whatever the batches, the epoch's figures are those of all items at once."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from dl_lab.types import Confusion, Ratio, add_tallies, read_tally


def cuts(n: int, rng: random.Random) -> list[int]:
    """Random batch sizes that add up to n."""
    sizes = []
    while n:
        sizes.append(rng.randint(1, min(n, 40)))
        n -= sizes[-1]
    return sizes


@pytest.mark.parametrize("seed", range(20))
def test_tallies_add_up_exactly_over_uneven_batches(seed):
    rng = random.Random(seed)
    true = torch.randint(4, (200,), generator=torch.Generator().manual_seed(seed))
    predicted = torch.randint(4, (200,), generator=torch.Generator().manual_seed(seed + 100))
    values = torch.randint(1000, (200,), generator=torch.Generator().manual_seed(seed + 200)).double()

    def tally(part: slice) -> dict:
        counts = torch.bincount(true[part] * 4 + predicted[part], minlength=16).view(4, 4)
        return {"mean": Ratio(values[part].sum(), len(values[part])), "confusion": Confusion(counts)}

    total, start = {}, 0
    for size in cuts(200, rng):
        total = add_tallies(total, tally(slice(start, start + size)))
        start += size
    assert read_tally(total, "val/") == read_tally(tally(slice(None)), "val/")
    assert read_tally(total)["mean"] == values.mean().item()


def test_a_mean_of_means_would_be_wrong():
    """Two batches of 1 and 3 items: the mean of all four, not of the two means."""
    total = add_tallies({"loss": Ratio(4.0, 1)}, {"loss": Ratio(0.0, 3)})
    assert read_tally(total) == {"loss": 1.0}


def test_a_name_in_one_tally_only_is_kept():
    assert read_tally(add_tallies({"a": Ratio(1.0, 2)}, {"b": Ratio(3.0, 4)})) == {"a": 0.5, "b": 0.75}


def test_adding_changes_neither_part():
    one, two = Confusion(torch.eye(2, dtype=torch.int64)), Confusion(torch.ones(2, 2, dtype=torch.int64))
    _ = one + two
    assert one.counts.tolist() == [[1, 0], [0, 1]]
    assert two.counts.tolist() == [[1, 1], [1, 1]]


def test_balanced_accuracy_leaves_out_classes_that_do_not_occur():
    counts = torch.tensor([[3, 1, 0], [0, 0, 0], [1, 0, 1]])
    assert Confusion(counts).values("any") == {"balanced_accuracy": (3 / 4 + 1 / 2) / 2}


def test_a_data_set_says_that_it_is_of_another_kind():
    from dl_lab.datasets.dataset import Dataset
    from dl_lab.datasets.series.content import SeriesContent
    from dl_lab.types import UserError

    nothing: Any = None
    dataset = Dataset("digits", "full", nothing, nothing, nothing, "f")
    with pytest.raises(UserError, match="This needs a data set of a series, but digits is of another kind"):
        dataset.content_as(SeriesContent)
