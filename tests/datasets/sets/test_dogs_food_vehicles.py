"""Dogs, food, vehicles: the course's folder if it exists, else a stand-in that says so."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.images.labelled import labelled_images
from dl_lab.datasets.sets.cifar10 import CLASS_NAMES
from dl_lab.datasets.sets.dogs_food_vehicles import StandIn, dogs_food_vehicles
from dl_lab.datasets.storage import Storage
from dl_lab.types import UserError

CLASSES = ("dog", "frog", "automobile")


def small_cifar(per_class: int = 20) -> Dataset:
    """Each image is of one grey level: its class, and which of the class it is."""
    arrays = {}
    for number, split in enumerate(("train", "val", "test")):
        labels = np.repeat(np.arange(10), per_class)
        images = np.zeros((len(labels), 3, 32, 32), np.uint8)
        images += (labels * 20 + number).astype(np.uint8)[:, None, None, None]
        arrays[split] = images, labels
    return labelled_images(
        "cifar10", arrays, "full", input_shape=(3, 32, 32), n_classes=10, divisor=255, class_names=CLASS_NAMES
    )


@pytest.fixture
def build(settings):
    def build(root: Path, cifar10=small_cifar, classes=CLASSES, n_per_class=None, **options):
        arguments = {**settings("dogs_food_vehicles"), "source": "real", "stand_in": StandIn(cifar10, classes)}
        arguments["storage"] = Storage(str(root), str(root / "cache"), ())
        arguments["layout"] = replace(arguments["layout"], n_per_class=n_per_class)
        return dogs_food_vehicles(**{**arguments, **options})

    return build


def test_the_stand_in_says_so_and_names_its_own_classes(build, tmp_path):
    data = build(tmp_path)
    assert data.label == "part"
    assert data.note == "stand-in: CIFAR-10's dog, frog, automobile enlarged to 64x64"
    assert data.class_names == ("dog", "frog", "automobile")
    assert [len(split) for split in (data.train, data.val, data.test)] == [126, 27, 27]
    assert build(tmp_path, n_per_class=20).note.endswith("64x64, 20 of each")


def test_the_stand_in_has_the_right_images_enlarged(build, tmp_path):
    data = build(tmp_path)
    assert data.train.columns.x.shape[1:] == (3, 64, 64)
    for split in (data.train, data.val, data.test):
        level = split.columns.x.float().mean(dim=(1, 2, 3)).div(20).floor().int().tolist()
        assert [{5: 0, 6: 1, 1: 2}[value] for value in level] == split.columns.y.tolist()
        assert torch.equal(torch.bincount(split.columns.y), torch.full((3,), len(split) // 3))


def test_the_courses_folder_comes_first(build, tmp_path):
    for label, name in enumerate(("dogs", "food", "vehicles")):
        (tmp_path / "cnn_dataset" / name).mkdir(parents=True)
        for i in range(20):
            pixels = np.random.default_rng(20 * label + i).integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "cnn_dataset" / name / f"{i}.jpg")
    data = build(tmp_path, cifar10=partial(pytest.fail, "not needed"))
    assert data.class_names == ("dogs", "food", "vehicles")
    assert (data.label, data.note) == ("part", "60 of 30,000 images")
    assert [len(split) for split in (data.train, data.val, data.test)] == [42, 9, 9]


def test_without_either_both_are_named(build, tmp_path):
    def absent():
        raise UserError("cifar-10-python.tar.gz could not be downloaded.")

    with pytest.raises(UserError, match=r"no folder .*cnn_dataset .*CIFAR-10.*could not be downloaded"):
        build(tmp_path, cifar10=absent)


def test_a_class_that_cifar_lacks_is_refused(build, tmp_path):
    with pytest.raises(ValueError, match="CIFAR-10 has no class 'pizza', only airplane"):
        build(tmp_path, classes=["dog", "pizza", "truck"])
    with pytest.raises(ValueError, match=r"stand_in\.classes names 2 classes, but n_classes is 3"):
        build(tmp_path, classes=["dog", "truck"])


def test_the_config_builds_it(execute):
    _, metrics = execute("dataset=dogs_food_vehicles", "profile=smoke", "logger=none", "model=linear")
    assert 0 <= metrics["test/accuracy"] <= 1
