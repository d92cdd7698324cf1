"""Splits: the order depends on (seed, epoch) only; resident or streamed, the batches are the same."""

from __future__ import annotations

import json
from itertools import chain

import pytest
import torch

from dl_lab.datasets.batches import TensorSplit, fingerprint, in_order, shuffled
from dl_lab.types import LabelledBatch


def split_of(n: int = 50, **options) -> TensorSplit:
    columns = LabelledBatch(torch.arange(n * 4, dtype=torch.uint8).view(n, 2, 2), torch.arange(n))
    return TensorSplit(columns, lambda batch: batch._replace(x=batch.x.float() / 256), **options)


def epoch_of(split: TensorSplit, seed: int, epoch: int, batch_size: int = 8, start: int = 0) -> list[list[int]]:
    return [batch.y.tolist() for batch in split.epoch(batch_size, seed, epoch, start)]


def test_order_is_a_function_of_seed_and_epoch_only():
    torch.manual_seed(1)
    first = epoch_of(split_of(), seed=3, epoch=2)
    torch.manual_seed(2)
    torch.rand(100)
    assert epoch_of(split_of(), seed=3, epoch=2) == first
    assert epoch_of(split_of(workers=7), seed=3, epoch=2) == first


def test_orders_of_neighbouring_seeds_and_epochs_differ():
    """seed + epoch would make (1, 0) and (0, 1) the same."""
    orders = [tuple(shuffled(50, seed, epoch).tolist()) for seed in range(4) for epoch in range(4)]
    assert len(set(orders)) == len(orders)


def test_order_does_not_touch_the_runs_own_random_stream():
    state = torch.get_rng_state()
    epoch_of(split_of(), 0, 0)
    epoch_of(split_of(residence="stream", workers=0), 0, 0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("batch_size", [1, 7, 8, 50, 64])
def test_every_item_once_and_the_last_batch_smaller(batch_size):
    split = split_of()
    batches = epoch_of(split, 0, 0, batch_size)
    assert sorted(chain(*batches)) == list(range(50))
    assert len(batches) == split.n_batches(batch_size)
    assert {len(batch) for batch in batches[:-1]} <= {batch_size}
    assert [batch.y.tolist() for batch in split.batches(batch_size)] == [
        list(range(start, min(start + batch_size, 50))) for start in range(0, 50, batch_size)
    ]


@pytest.mark.parametrize("residence", ["device", "stream"])
def test_an_epoch_can_start_in_the_middle(residence):
    split = split_of(residence=residence, workers=0)
    assert epoch_of(split, 5, 1, start=3) == epoch_of(split, 5, 1)[3:]
    assert epoch_of(split, 5, 1, start=7) == []


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_batches_are_the_resident_ones(workers):
    resident, streamed = split_of(residence="device"), split_of(residence="stream", workers=workers)
    for one, two in [
        (resident.epoch(8, 1, 4), streamed.epoch(8, 1, 4)),
        (resident.batches(8), streamed.batches(8)),
    ]:
        for left, right in zip(one, two, strict=True):
            assert type(left) is type(right)
            assert torch.equal(left.x, right.x)
            assert torch.equal(left.y, right.y)


def test_a_source_may_keep_its_order():
    assert list(chain(*epoch_of(split_of(order=in_order), 9, 9))) == list(range(50))


def test_batches_do_not_share_memory_with_the_data():
    split = split_of()
    before = split.columns.x.clone()
    for batch in split.batches(50):
        batch.x.zero_()
    assert torch.equal(split.columns.x, before)


def test_moving_decides_where_auto_resides():
    assert split_of().to(torch.device("cpu")).residence == "device"
    assert split_of(residence="stream").to(torch.device("cpu")).residence == "stream"


def test_fingerprint_sees_bytes_shapes_and_types():
    x = torch.arange(6)
    variants = [x, x.view(2, 3), x.int(), x.flip(0), x[:5]]
    assert len({fingerprint(v) for v in variants}) == len(variants)
    assert fingerprint(x) == fingerprint(x.clone())


def test_streamed_and_resident_runs_end_with_the_same_bytes(execute):
    """Dropout on: the loader's workers must not draw from the run's random stream."""
    common = [
        "dataset.source=generated",
        "dataset.n_generated=120",
        "trainer.max_epochs=2",
        "logger=none",
        "callbacks.curves=null",
    ]
    folders = [
        execute(*common, f"dataset.loading.residence={residence}", f"dataset.loading.workers={workers}")[0]
        for residence, workers in [("device", 2), ("stream", 0), ("stream", 2)]
    ]
    for name in ("metrics.jsonl", "checkpoints/last.safetensors", "checkpoints/best.safetensors"):
        assert len({(folder / name).read_bytes() for folder in folders}) == 1, name
    metrics = [json.loads((folder / "summary.json").read_text())["metrics"] for folder in folders]
    assert metrics[0] == metrics[1] == metrics[2]
