"""CIFAR-10: the JPEG copy in the official order and from the cache, the exact mean over channels, splits."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import dl_lab.conf
import numpy as np
import pytest
import torch
import yaml

from dl_lab.datasets.cifar10 import CLASS_NAMES, cifar10
from dl_lab.types import UserError

CONF = yaml.safe_load(Path(dl_lab.conf.__file__).with_name("dataset").joinpath("cifar10.yaml").read_text())
del CONF["_target_"]
GREY = {"input_shape": [1, 32, 32], "shuffle": False}


@pytest.fixture
def copy(tmp_path):
    """A data folder with a small JPEG copy: 30 training and 10 test images of one colour each."""
    from torchvision.io import encode_jpeg

    folder = tmp_path / "data" / "cifar10"
    folder.mkdir(parents=True)
    paths = []
    with tarfile.open(folder / "CIFAR-10-images-jpeg.tar.xz", "w:xz") as archive:
        for split, count in (("train", 3), ("test", 1)):
            for label, name in enumerate(CLASS_NAMES):
                for i in range(count):
                    colour = torch.tensor([label * 25, i * 80, 100], dtype=torch.uint8)
                    raw = encode_jpeg(colour[:, None, None].expand(3, 32, 32).contiguous(), quality=100)
                    member = tarfile.TarInfo(f"copy/{split}/{name}/{i:04d}.jpg")
                    member.size = len(raw)
                    archive.addfile(member, io.BytesIO(raw.numpy().tobytes()))
                    paths += [f"{split}/{name}/{i:04d}.jpg"] if split == "train" else []
    order = np.random.default_rng(0).permutation(paths)
    lines = ["index,label,path", *[f"{i},x,{path}" for i, path in enumerate(order)]]
    (folder / "train_order.csv").write_text("\n".join(lines) + "\n")
    return tmp_path, order


def build(folder, **changes):
    places = {"data_dir": str(folder / "data"), "cache_dir": str(folder / "cache")}
    return cifar10(**{**CONF, **places, "n_val": 1, **changes})


def test_jpeg_copy_comes_in_the_listed_order_and_is_called_part(copy):
    folder, order = copy
    dataset = build(folder)
    assert (dataset.label, dataset.note) == ("part", "JPEG copy")
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (29, 1, 10)
    labels = [CLASS_NAMES.index(path.split("/")[1]) for path in order]
    batch = next(dataset.train.batches(100))
    held_out = next(dataset.val.batches(100)).y.item()
    remaining = [*labels]
    remaining.remove(held_out)
    assert sorted(batch.y.tolist()) == sorted(remaining)
    assert [y for y in labels if y != held_out] == [y for y in batch.y.tolist() if y != held_out]
    red = (batch.x[:, 0].mean(dim=(1, 2)) * 255).round().int().tolist()
    assert all(abs(r - 25 * y) <= 3 for r, y in zip(red, batch.y.tolist(), strict=True)), "pixels follow labels"


def test_the_second_time_the_cache_is_read(copy):
    folder, _ = copy
    first = build(folder)
    (cached,) = (folder / "cache").glob("*.npz")
    stamp = cached.stat().st_mtime_ns
    assert build(folder).fingerprint == first.fingerprint
    assert cached.stat().st_mtime_ns == stamp
    assert not list((folder / "cache").glob(".*"))


def test_grey_is_the_exact_mean_over_the_channels_in_stored_order(copy):
    folder, _ = copy
    colour, grey = build(folder), build(folder, **GREY)
    expected = next(colour.train.batches(100)).x.mean(dim=1, keepdim=True)
    torch.testing.assert_close(next(grey.train.epoch(100, seed=3, epoch=5)).x, expected)
    assert not torch.equal(next(colour.train.epoch(100, seed=3, epoch=5)).x.mean(dim=1, keepdim=True), expected)


def test_an_order_of_other_images_is_refused(copy):
    folder, _ = copy
    (folder / "data" / "cifar10" / "train_order.csv").write_text("index,label,path\n0,0,train/cat/9999.jpg\n")
    with pytest.raises(UserError, match="does not list the training images"):
        build(folder)


def test_a_broken_archive_is_named(copy):
    folder, _ = copy
    (folder / "data" / "cifar10" / "CIFAR-10-images-jpeg.tar.xz").write_bytes(b"not an archive")
    with pytest.raises(UserError, match=r"jpeg.tar.xz cannot be read"):
        build(folder)


def test_generated_needs_no_file_and_stays_in_range():
    dataset = cifar10(**{**CONF, **GREY, "source": "generated", "n_generated": 40})
    x = next(dataset.train.batches(40)).x
    assert x.shape == (40, 1, 32, 32)
    assert 0 <= float(x.min()) < float(x.max()) <= 1


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\[3, 28, 28\] is neither"):
        cifar10(**{**CONF, "source": "generated", "input_shape": [3, 28, 28]})
