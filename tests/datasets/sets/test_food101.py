"""Food-101 in torchvision's layout: its official test split, its archive, and what its lists may name."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dl_lab.datasets.sets.food101 import food101
from dl_lab.datasets.storage import Storage
from dl_lab.types import UserError


def save(path: Path, seed: int, size: tuple[int, int]) -> None:
    """A noise image of `size` (width, height)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def lay_out_food101(root: Path, entry: str = "") -> None:
    meta: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for label, name in enumerate(("apple_pie", "sushi")):
        for i in range(12):
            save(root / "food-101" / "images" / name / f"{i}.jpg", 12 * label + i, (40, 30))
            meta["train" if i < 10 else "test"].setdefault(name, []).append(f"{name}/{i}")
    if entry:
        meta["test"]["sushi"].append(entry)
    (root / "food-101" / "meta").mkdir()
    for split, listed in meta.items():
        (root / "food-101" / "meta" / f"{split}.json").write_text(json.dumps(listed))


@pytest.fixture
def load_food(settings):
    def load(root: Path, files=(), **options):
        arguments = settings("food101", "dataset.decoding.shorter_side=28", "dataset.splits.val=0.2")
        changes = {"source": "real", "input_shape": [3, 24, 24], "n_classes": 2}
        storage = Storage(str(root), str(root / "cache"), files)
        return food101(**{**arguments, **changes, "storage": storage, **options})

    return load


def test_food101_has_the_official_test_split(load_food, tmp_path):
    lay_out_food101(tmp_path)
    data = load_food(tmp_path)
    assert data.summary()["class_counts"] == {
        "train": {"apple_pie": 8, "sushi": 8},
        "val": {"apple_pie": 2, "sushi": 2},
        "test": {"apple_pie": 2, "sushi": 2},
    }
    assert (data.label, data.note) == ("part", "24 of 101,000 images")
    everything = torch.cat([split.columns.x for split in (data.train, data.val, data.test)])
    assert len(torch.unique(everything, dim=0)) == 24
    with pytest.raises(UserError, match=r"lists 2 classes for training and 2 for test, but dataset.n_classes is 101"):
        load_food(tmp_path, n_classes=101)


def test_food101_is_unpacked_from_its_archive(load_food, tmp_path):
    lay_out_food101(tmp_path / "made")
    (tmp_path / "data").mkdir()
    with tarfile.open(tmp_path / "data" / "food-101.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "made" / "food-101", "food-101")
    data = load_food(tmp_path / "data", files=[{"path": "food-101.tar.gz"}])
    assert (tmp_path / "data" / "food-101" / "meta" / "train.json").exists()
    assert not (tmp_path / "data" / "food-101.unpacked").exists()
    assert data.fingerprint == load_food(tmp_path / "made").fingerprint
    with pytest.raises(UserError, match=r"food-101.tar.gz does not exist, and there is no public download"):
        load_food(tmp_path / "nowhere", files=[{"path": "food-101.tar.gz"}])


def test_food101_names_no_file_outside_of_its_images(load_food, tmp_path):
    lay_out_food101(tmp_path, "../../secret")
    with pytest.raises(UserError, match="names a file outside of images/"):
        load_food(tmp_path)


def test_food101_is_what_torchvision_reads(settings, real_data, tmp_path):
    from torchvision.datasets import Food101
    from torchvision.transforms import v2

    if not (real_data / "food-101" / "meta").is_dir():
        pytest.skip("needs real data: no food-101")
    official = Food101(str(real_data), "test", transform=v2.Compose([v2.Resize(64), v2.CenterCrop(56), v2.ToImage()]))
    arguments = settings("food101", "dataset.decoding.shorter_side=64")
    storage = Storage(str(real_data), str(tmp_path), ())
    sizes = {"source": "real", "input_shape": [3, 56, 56], "n_classes": len(official.classes)}
    data = food101(**{**arguments, "storage": storage, **sizes})
    wanted = {official[i][0].numpy().tobytes(): official[i][1] for i in range(len(official))}
    columns = data.test.columns
    assert {x.numpy().tobytes(): int(y) for x, y in zip(columns.x, columns.y, strict=True)} == wanted
