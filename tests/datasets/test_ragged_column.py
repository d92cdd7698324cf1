"""RaggedColumn: chosen items come out padded with zeros, whatever the order."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from dl_lab.datasets.batches import TensorSplit
from dl_lab.datasets.ragged_column import RaggedColumn

LENGTHS = [3, 1, 5, 2]


class Columns(NamedTuple):
    x: Tensor
    lengths: Tensor


@pytest.fixture
def items():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, 2, generator=generator) for n in LENGTHS]


@pytest.fixture
def ragged(items):
    lengths = torch.tensor(LENGTHS)
    return RaggedColumn(torch.cat(items), lengths.cumsum(0) - lengths, lengths)


@pytest.mark.parametrize("pad_to", [None, 4, 9])
def test_items_are_padded_or_cut(items, ragged, pad_to):
    chosen = torch.tensor([3, 0, 2])
    got = RaggedColumn(ragged.values, ragged.starts, ragged.lengths, pad_to).index_select(0, chosen)
    length = pad_to or 5
    assert got.shape == (3, length, 2)
    for row, i in zip(got, chosen.tolist(), strict=True):
        kept = min(length, LENGTHS[i])
        assert torch.equal(row[:kept], items[i][:kept])
        assert not row[kept:].any()


def test_select_keeps_the_values_where_they_are(items, ragged):
    part = ragged.select(torch.tensor([2, 1]))
    assert part.values.data_ptr() == ragged.values.data_ptr()
    assert torch.equal(part.index_select(0, torch.tensor([1]))[0], items[1])


@pytest.mark.parametrize("residence", ["device", "stream"])
def test_a_ragged_column_is_a_column_of_a_split(items, ragged, residence):
    split = TensorSplit(Columns(ragged, ragged.lengths), lambda batch: batch, residence=residence, workers=1)
    batches = list(split.to(torch.device("cpu")).batches(3))
    assert [tuple(batch.x.shape) for batch in batches] == [(3, 5, 2), (1, 2, 2)]
    assert torch.equal(batches[1].x[0], items[3])


def test_a_split_moves_its_ragged_column_to_the_device(ragged):
    split = TensorSplit(Columns(ragged, ragged.lengths), lambda batch: batch)
    assert split.to(torch.device("meta")).columns.x.device.type == "meta"
