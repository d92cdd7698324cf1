"""The digits are scikit-learn's, MNIST's files are torchvision's; the splits share no image."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from dl_lab import config
from dl_lab.datasets.digits import digits
from dl_lab.datasets.mnist import mnist
from dl_lab.types import UserError

NAMES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


# -- digits -------------------------------------------------------------------------------------------------------


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    official, dataset = load_digits(), digits((1, 8, 8), 10)
    splits = (dataset.train, dataset.val, dataset.test)
    images = torch.cat([split.columns.x for split in splits]).reshape(-1, 64).numpy()
    labels = torch.cat([split.columns.y for split in splits]).numpy()
    assert [len(split) for split in splits] == [1297, 200, 300]
    mine, theirs = np.column_stack([images, labels]), np.column_stack([official.data, official.target])
    assert np.array_equal(mine[np.lexsort(mine.T)], theirs[np.lexsort(theirs.T)]), "every image once"
    assert dataset.label == "full"
    assert next(dataset.train.batches(2000)).x.max() == 1.0


def test_digits_split_follows_its_seed():
    one, same, other = (digits((1, 8, 8), 10, split_seed=seed) for seed in (0, 0, 1))
    assert one.fingerprint == same.fingerprint != other.fingerprint


@pytest.mark.parametrize(("n_val", "n_test"), [(0, 10), (10, 0), (900, 897)])
def test_digits_without_a_split_are_refused(n_val, n_test):
    with pytest.raises(ValueError, match="do not leave training images"):
        digits((1, 8, 8), 10, n_val=n_val, n_test=n_test)


# -- mnist --------------------------------------------------------------------------------------------------------


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


@pytest.fixture
def folder(tmp_path) -> Path:
    """Four small files in torchvision's layout."""
    rng = np.random.default_rng(0)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, n in (("train", 60), ("t10k", 20)):
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(idx(rng.integers(0, 256, (n, 28, 28))))
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(np.arange(n) % 10))
    return tmp_path


def build(folder: Path, **options):
    files = [{"path": f"MNIST/raw/{name}-ubyte", "checksum": "md5:" + "0" * 32} for name in NAMES]
    return mnist((1, 28, 28), 10, str(folder), files, **{"n_val": 20, **options})


def test_mnist_of_other_files_is_a_part_and_its_splits_share_nothing(folder):
    dataset = build(folder)
    assert dataset.label == "part"
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [40, 20, 20]
    train, val = dataset.train.columns.x.tolist(), dataset.val.columns.x.tolist()
    assert not [image for image in val if image in train]


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "magic"])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_broken_mnist_file_is_one_sentence(folder, damage, name):
    path = folder / "MNIST" / "raw" / name
    content = path.read_bytes()
    broken = {"truncated": content[:-5], "empty": b"", "text": b"<html>", "magic": b"\0\0\7\1" + content[4:]}
    path.write_bytes(broken[damage])
    with pytest.raises(UserError, match="cannot be read") as error:
        build(folder)
    assert "\n" not in str(error.value)


def test_mnist_validation_must_leave_training_images(folder):
    with pytest.raises(ValueError, match="n_val 60 does not leave"):
        build(folder, n_val=60)


def test_the_yaml_says_what_torchvision_says():
    from torchvision.datasets import MNIST

    files = config.Composer().compose(["dataset=mnist"]).config["dataset"]["files"]
    packed = {Path(file["url"]).name: file["packed_checksum"].removeprefix("md5:") for file in files}
    assert packed == dict(MNIST.resources)
    assert all(any(file["url"].startswith(mirror) for mirror in MNIST.mirrors) for file in files)
    assert sorted(Path(file["path"]).name for file in files) == sorted(f"{name}-ubyte" for name in NAMES)


def test_the_real_mnist(real_data):
    if not (real_data / "MNIST" / "raw").is_dir():
        pytest.skip(f"needs {real_data}/MNIST/raw")
    described = config.Composer().compose(["dataset=mnist", f"paths.data_dir={real_data}"]).config
    dataset = config.build(described, "dataset")
    assert dataset.label == "full"
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [55_000, 5_000, 10_000]
    assert dataset.test.columns.y.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    raw = (real_data / "MNIST" / "raw" / "t10k-images-idx3-ubyte").read_bytes()
    assert np.array_equal(dataset.test.columns.x.numpy().ravel(), np.frombuffer(raw, np.uint8, offset=16))


def test_unpacking_a_download_gives_the_files_bytes(tmp_path):
    from dl_lab.datasets.files import _unpack

    (tmp_path / "a.gz").write_bytes(gzip.compress(b"content"))
    _unpack(tmp_path / "a.gz", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"content"
    (tmp_path / "b.gz").write_bytes(gzip.compress(b"content")[:-6])
    with pytest.raises(UserError, match="cannot be unpacked"):
        _unpack(tmp_path / "b.gz", tmp_path / "b")
    assert not list(tmp_path.glob("*b*.tmp")) and not (tmp_path / "b").exists()
