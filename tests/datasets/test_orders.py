"""The order of a training epoch, chosen by name; unsplit digits; bad images name their file."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dl_lab import configs as config
from dl_lab.datasets.sets.octmnist import octmnist
from dl_lab.datasets.storage import Storage
from dl_lab.from_scratch.order import cumulative_order
from dl_lab.types import ConfigError, UserError


def built(*overrides):
    return config.build(config.Composer().compose(list(overrides)).config, "dataset")


def labels(dataset, epoch, seed=42):
    return torch.cat([batch.y for batch in dataset.train.epoch(100, seed, epoch)])


def test_orders_by_name():
    stored = labels(built("dataset=digits_unsplit", "dataset/order=in_order"), 0)
    cumulative = built("dataset=digits_unsplit", "dataset/order=cumulative")
    shuffled = built("dataset=digits_unsplit")
    assert torch.equal(stored, labels(built("dataset=digits_unsplit", "dataset/order=in_order"), 3))
    for epoch in (0, 2, 1):
        assert torch.equal(labels(cumulative, epoch), stored[cumulative_order(len(stored), 42, epoch)])
        assert not torch.equal(labels(cumulative, epoch), labels(shuffled, epoch))
    other = built("dataset=digits_unsplit", "dataset/order=cumulative", "dataset.order.normals_before=10")
    assert not torch.equal(labels(other, 0), labels(cumulative, 0))


def test_an_unknown_order_is_named():
    with pytest.raises(ConfigError, match="cumulative"):
        config.Composer().compose(["dataset=digits", "dataset/order=cumulativ"])


def test_digits_without_a_split():
    dataset = built("dataset=digits_unsplit")
    assert [len(s) for s in (dataset.train, dataset.val, dataset.test)] == [1797] * 3
    assert next(dataset.train.batches(1797)).x.max() == 16
    assert "training images" in dataset.note


@pytest.fixture
def octmnist_file(tmp_path, settings):
    """Writes octmnist.npz after `change` touched its arrays; returns octmnist's arguments."""

    def write(change):
        rng = np.random.default_rng(0)
        arrays = {}
        for split in ("train", "val", "test"):
            arrays[f"{split}_images"] = rng.integers(0, 256, (8, 28, 28)).astype(np.uint8)
            arrays[f"{split}_labels"] = np.arange(8).reshape(8, 1) % 4
        change(arrays)
        np.savez(tmp_path / "octmnist.npz", **arrays)
        storage = Storage(str(tmp_path), "", [{"path": "octmnist.npz"}])
        return {**settings("octmnist"), "source": "real", "test_set": "all", "storage": storage}

    return write


def spoil_label(arrays):
    arrays["val_labels"][5] = 4


def spoil_pixel(arrays):
    arrays["test_images"] = arrays["test_images"].astype(np.float32)
    arrays["test_images"][3, 0, 0] = np.nan


def empty_class(arrays):
    arrays["train_labels"][arrays["train_labels"] == 2] = 0


def lose_labels(arrays):
    arrays["train_labels"] = arrays["train_labels"][:5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoil_label, r"octmnist\.npz, val split: image 5 has label 4, but classes are 0 to 3"),
        (spoil_pixel, r"octmnist\.npz, test split: image 3 has pixels that are not finite"),
        (empty_class, r"octmnist\.npz: no training image of class 2"),
        (lose_labels, r"octmnist\.npz, train split: 8 images but 5 labels"),
    ],
)
def test_bad_images_name_file_and_row(octmnist_file, change, message):
    assert octmnist(**octmnist_file(lambda arrays: None)).label == "part"
    with pytest.raises((ValueError, UserError), match=message):
        octmnist(**octmnist_file(change))
