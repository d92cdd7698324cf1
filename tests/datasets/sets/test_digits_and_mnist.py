"""The digits are scikit-learn's, MNIST's files are torchvision's; the splits share no image."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from dl_lab import configs as config
from dl_lab.datasets.images.layout import HeldOut
from dl_lab.datasets.sets.digits import digits
from dl_lab.datasets.sets.mnist import mnist
from dl_lab.datasets.storage import Storage
from dl_lab.types import UserError

NAMES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


# -- digits -------------------------------------------------------------------------------------------------------


@pytest.fixture
def real_digits(settings):
    return {**settings("digits"), "source": "real"}


def test_digits_are_those_of_scikit_learn(real_digits):
    from sklearn.datasets import load_digits

    official, dataset = load_digits(), digits(**real_digits)
    splits = (dataset.train, dataset.val, dataset.test)
    images = torch.cat([split.columns.x for split in splits]).reshape(-1, 64).numpy()
    labels = torch.cat([split.columns.y for split in splits]).numpy()
    assert [len(split) for split in splits] == [1297, 200, 300]
    mine, theirs = np.column_stack([images, labels]), np.column_stack([official.data, official.target])
    assert np.array_equal(mine[np.lexsort(mine.T)], theirs[np.lexsort(theirs.T)]), "every image once"
    assert dataset.label == "full"
    assert next(dataset.train.batches(2000)).x.max() == 1.0


def test_digits_split_follows_its_seed(real_digits):
    one, same, other = (digits(**{**real_digits, "held_out": HeldOut(200, 300, seed)}) for seed in (0, 0, 1))
    assert one.fingerprint == same.fingerprint != other.fingerprint


@pytest.mark.parametrize(("n_val", "n_test"), [(0, 10), (10, 0), (900, 897)])
def test_digits_without_a_split_are_refused(real_digits, n_val, n_test):
    with pytest.raises(ValueError, match="do not leave training images"):
        digits(**{**real_digits, "held_out": HeldOut(n_val, n_test, 0)})


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


@pytest.fixture
def build(settings):
    def build(folder: Path, n_val: int = 20, **options):
        files = [{"path": f"MNIST/raw/{name}-ubyte", "checksum": "md5:" + "0" * 32} for name in NAMES]
        groups = {"storage": Storage(str(folder), "", files), "held_out": HeldOut(n_val, None, 0)}
        return mnist(**{**settings("mnist"), "source": "real", **groups, **options})

    return build


def test_mnist_of_other_files_is_a_part_and_its_splits_share_nothing(build, folder):
    dataset = build(folder)
    assert dataset.label == "part"
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [40, 20, 20]
    train, val = dataset.train.columns.x.tolist(), dataset.val.columns.x.tolist()
    assert not [image for image in val if image in train]


@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "magic"])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_broken_mnist_file_is_one_sentence(build, folder, damage, name):
    path = folder / "MNIST" / "raw" / name
    content = path.read_bytes()
    broken = {"truncated": content[:-5], "empty": b"", "text": b"<html>", "magic": b"\0\0\7\1" + content[4:]}
    path.write_bytes(broken[damage])
    with pytest.raises(UserError, match="cannot be read") as error:
        build(folder)
    assert "\n" not in str(error.value)


@pytest.mark.data_file(
    "Arrays", kind="IDX images and labels of different lengths", loader="mnist", outcome="refused with both files"
)
def test_images_and_labels_must_have_the_same_number(build, folder):
    labels = folder / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    labels.write_bytes(idx(np.arange(59) % 10))
    with pytest.raises(UserError, match=r"idx3-ubyte has 60 images, but .*idx1-ubyte has 59 labels"):
        build(folder)


def test_mnist_is_what_torchvision_reads(build, folder):
    from torchvision.datasets import MNIST

    official = MNIST(str(folder), train=False)
    dataset = build(folder)
    np.testing.assert_array_equal(dataset.test.columns.x, official.data)
    np.testing.assert_array_equal(dataset.test.columns.y, official.targets)


def test_mnist_validation_must_leave_training_images(build, folder):
    with pytest.raises(ValueError, match="n_val 60 does not leave"):
        build(folder, n_val=60)


def test_the_yaml_says_what_torchvision_says():
    from torchvision.datasets import MNIST

    files = config.Composer().compose(["dataset=mnist"]).config["dataset"]["storage"]["files"]
    packed = {Path(file["url"]).name: file["packed_checksum"].removeprefix("md5:") for file in files}
    assert packed == dict(MNIST.resources)
    assert all(any(file["url"].startswith(mirror) for mirror in MNIST.mirrors) for file in files)
    assert sorted(Path(file["path"]).name for file in files) == sorted(f"{name}-ubyte" for name in NAMES)


def test_the_real_mnist(build, real_data):
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
