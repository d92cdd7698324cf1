"""CIFAR-10: the official batches and their checksums, the JPEG copy in the official order and from the cache, the exact
mean over channels, splits."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dl_lab.datasets.batches import in_order
from dl_lab.datasets.images.labelled import Normalise
from dl_lab.datasets.sets.cifar10 import CLASS_NAMES, cifar10
from dl_lab.types import UserError

GREY = {"input_shape": [1, 32, 32], "order": in_order}
OF_SUBSET = ("n_val", "seed", "draw", "n_train", "every")
STORED = {"draw": "numpy", "seed": 0}


@pytest.fixture
def copy(tmp_path):
    """A data folder with a small JPEG copy: 30 training and 10 test images of one colour each."""
    folder = tmp_path / "data" / "cifar10"
    folder.mkdir(parents=True)
    paths = []
    with tarfile.open(folder / "CIFAR-10-images-jpeg.tar.xz", "w:xz") as archive:
        for split, count in (("train", 3), ("test", 1)):
            for label, name in enumerate(CLASS_NAMES):
                for i in range(count):
                    raw = jpeg(32, 32, (label * 25, i * 80, 100))
                    member = tarfile.TarInfo(f"copy/{split}/{name}/{i:04d}.jpg")
                    member.size = len(raw)
                    archive.addfile(member, io.BytesIO(raw))
                    paths += [f"{split}/{name}/{i:04d}.jpg"] if split == "train" else []
    order = np.random.default_rng(0).permutation(paths)
    lines = ["index,label,path", *[f"{i},x,{path}" for i, path in enumerate(order)]]
    (folder / "train_order.csv").write_text("\n".join(lines) + "\n")
    return tmp_path, order


@pytest.fixture
def build(settings):
    """Build the data set of a folder; what concerns the subset may be given by its own name."""

    def build(folder, **changes):
        arguments = {**settings("cifar10"), "source": "real"}
        places = {"data_dir": str(folder / "data"), "cache_dir": str(folder / "cache")}
        arguments["storage"] = replace(arguments["storage"], **places)
        own = {"n_val": 1, **{key: changes.pop(key) for key in OF_SUBSET if key in changes}}
        arguments["subset"] = replace(arguments["subset"], **own)
        return cifar10(**{**arguments, **changes})

    return build


def test_jpeg_copy_comes_in_the_listed_order_and_is_called_part(build, copy):
    folder, order = copy
    dataset = build(folder, **STORED)
    assert (dataset.label, dataset.note) == ("part", "JPEG copy, 30 + 10 images of 50,000 + 10,000")
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


def test_the_second_time_the_cache_is_read(build, copy):
    folder, _ = copy
    first = build(folder)
    (cached,) = (folder / "cache").glob("cifar10_jpeg_*/images.npy")
    stamp = cached.stat().st_mtime_ns
    assert build(folder).fingerprint == first.fingerprint
    assert cached.stat().st_mtime_ns == stamp
    assert not list((folder / "cache").glob(".*"))


def test_grey_is_the_exact_mean_over_the_channels_in_stored_order(build, copy):
    folder, _ = copy
    colour, grey = build(folder), build(folder, **GREY)
    expected = next(colour.train.batches(100)).x.mean(dim=1, keepdim=True)
    torch.testing.assert_close(next(grey.train.epoch(100, seed=3, epoch=5)).x, expected)
    assert not torch.equal(next(colour.train.epoch(100, seed=3, epoch=5)).x.mean(dim=1, keepdim=True), expected)


def test_an_order_of_other_images_is_refused(build, copy):
    folder, _ = copy
    (folder / "data" / "cifar10" / "train_order.csv").write_text("index,label,path\n0,0,train/cat/9999.jpg\n")
    with pytest.raises(UserError, match="does not list the training images"):
        build(folder)


def test_a_broken_archive_is_named(build, copy):
    folder, _ = copy
    (folder / "data" / "cifar10" / "CIFAR-10-images-jpeg.tar.xz").write_bytes(b"not an archive")
    with pytest.raises(UserError, match=r"jpeg.tar.xz cannot be read"):
        build(folder)


@pytest.mark.data_file(
    "Archives and downloads", kind="`.tar.xz` of JPEG files, cut short at 96 %", loader="cifar10",
    outcome="refused: it ends early",
)  # fmt: skip
def test_an_archive_that_ends_early_is_refused(build, copy):
    folder, _ = copy
    path = folder / "data" / "cifar10" / "CIFAR-10-images-jpeg.tar.xz"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 96 // 100])
    with pytest.raises(UserError, match=r"jpeg.tar.xz cannot be read: Compressed file ended before"):
        build(folder)
    assert not list((folder / "cache").glob("cifar10_jpeg_*/*"))


def jpeg(height: int, width: int, colour: tuple[int, int, int] = (0, 0, 0)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "JPEG", quality=100)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train/cat/7.jpg", b"", "train/cat/7.jpg in .* is empty"),
        ("train/cat/7.jpg", b"no JPEG at all", "train/cat/7.jpg in .* is (not a readable image file|corrupt)"),
        ("train/cat/7.jpg", jpeg(32, 32)[:100], "train/cat/7.jpg in .* is (not a readable image file|corrupt)"),
        ("test/dog/8.jpg", jpeg(32, 48), "test/dog/8.jpg in .* is 48x32 pixels, not 32x32"),
        ("train/lynx/9.jpg", jpeg(32, 32), "train/lynx/9.jpg in .* one of CIFAR-10's classes"),
        ("9.jpg", jpeg(32, 32), "9.jpg in .* is not train/<class>/"),
    ],
)
def test_a_bad_image_is_named_and_nothing_is_cached(build, tmp_path, name, content, message):
    archive = tmp_path / "data" / "cifar10" / "CIFAR-10-images-jpeg.tar.xz"
    archive.parent.mkdir(parents=True)
    with tarfile.open(archive, "w:xz") as packed:
        for path, raw in (("train/cat/1.jpg", jpeg(32, 32)), (name, content)):
            member = tarfile.TarInfo(path)
            member.size = len(raw)
            packed.addfile(member, io.BytesIO(raw))
    with pytest.raises(UserError, match=message):
        build(tmp_path)
    assert not list((tmp_path / "cache").glob("cifar10_jpeg_*/*"))


def test_generated_needs_no_file_and_stays_in_range(settings):
    dataset = cifar10(**{**settings("cifar10"), **GREY, "n_generated": 40})
    x = next(dataset.train.batches(40)).x
    assert x.shape == (40, 1, 32, 32)
    assert 0 <= float(x.min()) < float(x.max()) <= 1


def test_other_shapes_are_refused(settings):
    with pytest.raises(ValueError, match=r"\[3, 28, 28\] is neither"):
        cifar10(**{**settings("cifar10"), "input_shape": [3, 28, 28]})


# -- the official batches -----------------------------------------------------------------------------------------


@pytest.fixture
def official(tmp_path, monkeypatch):
    """A data folder with batches in the official format, 20 images each, whose checksums torchvision is told."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / "data" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lists = {"train_list": [], "test_list": []}
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        content = {"data": rng.integers(0, 256, (20, 3072), dtype=np.uint8), "labels": [*range(10), *range(10)]}
        lists["test_list" if name == "test_batch" else "train_list"].append([name, write(folder / name, content)])
    meta = {"filename": "batches.meta", "key": "label_names"}
    meta["md5"] = write(folder / "batches.meta", {"label_names": list(CLASS_NAMES)})
    for attribute, value in {**lists, "meta": meta}.items():
        monkeypatch.setattr(CIFAR10, attribute, value)
    return tmp_path


def write(path: Path, content: object) -> str:
    raw = pickle.dumps(content)
    path.write_bytes(raw)
    return hashlib.md5(raw).hexdigest()


def stored(folder: Path, name: str) -> np.ndarray:
    return pickle.loads((folder / "data" / "cifar-10-batches-py" / name).read_bytes())["data"].reshape(-1, 3, 32, 32)


def test_official_batches_are_full_and_keep_their_pixels(build, official):
    dataset = build(official, n_val=10)
    assert (dataset.label, dataset.note) == ("full", "")
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (90, 10, 20)
    x = next(dataset.test.batches(20)).x * 255
    np.testing.assert_array_equal(x.round().byte().numpy(), stored(official, "test_batch"))


def test_the_split_is_random_split_under_the_seed(build, official):
    dataset = build(official, n_val=10, seed=43)
    torch.manual_seed(43)
    train, val = torch.utils.data.random_split(range(100), [90, 10])
    every = np.concatenate([stored(official, f"data_batch_{i}") for i in range(1, 6)])
    for split, indices in ((dataset.train, train.indices), (dataset.val, val.indices)):
        x = (next(split.batches(100)).x * 255).round().byte().numpy()
        np.testing.assert_array_equal(x, every[indices])


def test_every_second_image_of_each_split_as_in_the_homework(build, official):
    whole, thinned = build(official, n_val=10), build(official, n_val=10, every=2)
    assert (thinned.label, thinned.note) == ("part", "one image of every 2")
    for name, first in (("train", 0), ("val", 1), ("test", 1)):
        split = getattr(whole, name).columns
        assert torch.equal(getattr(thinned, name).columns.x, split.x[first::2])
        assert torch.equal(getattr(thinned, name).columns.y, split.y[first::2])
    with pytest.raises(ValueError, match="every 0 is not at least 1"):
        build(official, every=0)


def test_a_reduced_training_set_is_a_part_that_says_so(build, official):
    dataset = build(official, n_val=10, n_train=40)
    assert (dataset.label, dataset.note, len(dataset.train)) == ("part", "40 training images", 40)
    whole = build(official, n_val=10)
    assert torch.equal(next(dataset.train.batches(40)).x, next(whole.train.batches(40)).x)
    with pytest.raises(ValueError, match="n_train 91 is not between 1 and the 90"):
        build(official, n_val=10, n_train=91)


@pytest.mark.parametrize(("name", "change"), [("data_batch_3", b"x"), ("batches.meta", None), ("test_batch", b"")])
def test_an_unofficial_file_is_named_before_it_is_unpickled(build, official, name, change):
    path = official / "data" / "cifar-10-batches-py" / name
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change)
    with pytest.raises(UserError, match=rf"{name} is (missing|not the official file).*dataset=cifar10_jpeg"):
        build(official)


def test_the_archive_is_unpacked_once_whole(build, official):
    data = official / "data"
    archive = data / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(data / "cifar-10-batches-py", "cifar-10-batches-py")
    for path in (data / "cifar-10-batches-py").iterdir():
        path.unlink()
    (data / "cifar-10-batches-py").rmdir()
    assert build(official, n_val=10).label == "full"
    assert sorted(path.name for path in data.iterdir()) == ["cifar-10-batches-py", "cifar-10-python.tar.gz"]


def test_a_broken_official_archive_leaves_nothing_behind(build, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "cifar-10-python.tar.gz").write_bytes(b"\x1f\x8b not really")
    with pytest.raises(UserError, match=r"cifar-10-python.tar.gz could not be unpacked"):
        build(tmp_path)
    assert [path.name for path in data.iterdir()] == ["cifar-10-python.tar.gz"], "the user's archive stays"


def test_the_copy_can_be_chosen(build, copy, official):
    folder, _ = copy
    assert build(folder).label == "full", "the official one where both are there"
    assert build(folder, copy="jpeg").note.startswith("JPEG copy")
    with pytest.raises(UserError, match="does not exist"):
        build(folder / "nowhere", copy="jpeg")


def test_normalised_by_channel_and_the_run_is_told(build, official):
    plain, scaled = (
        build(official, n_val=10),
        build(official, n_val=10, normalise=Normalise([0.5, 0.4, 0.3], [0.1, 0.2, 0.5])),
    )
    x, y = (next(dataset.train.batches(10)).x for dataset in (plain, scaled))
    torch.testing.assert_close(y[:, 2], (x[:, 2] - 0.3) / 0.5)
    assert scaled.preprocessing["mean"] == [0.5, 0.4, 0.3] and scaled.preprocessing["std"] == [0.1, 0.2, 0.5]
    assert scaled.preprocessing["divisor"] == 255 and scaled.preprocessing["input_shape"] == [3, 32, 32]
    assert scaled.fingerprint == plain.fingerprint
    with pytest.raises(ValueError, match="not one number for each of 3 channels"):
        build(official, n_val=10, normalise=Normalise([0.5], [0.5]))
