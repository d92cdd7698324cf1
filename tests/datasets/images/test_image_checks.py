"""Faults that a data set of labelled images refuses; a model can learn its generated twin."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from dl_lab.datasets.images.labelled import generate_arrays, labelled_images


def arrays(n: int = 8) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Black images, but for one pixel that makes the images of each split differ from those of the others."""
    content = {}
    for i, split in enumerate(("train", "val", "test")):
        images = np.zeros((n, 4, 4), dtype=np.uint8)
        images[:, 3, 3] = i
        content[split] = (images, np.arange(n) % 4)
    return content


def build(content, **options):
    return labelled_images("scans", content, "part", input_shape=(1, 4, 4), n_classes=4, divisor=256, **options)


def change(split: str, part: int, place, value, dtype=None):
    """The arrays with one entry changed: part 0 the images, 1 the labels."""
    content = arrays()
    pair = [array if dtype is None or i != part else array.astype(dtype) for i, array in enumerate(content[split])]
    pair[part][place] = value
    return {**content, split: tuple(pair)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (change("val", 1, 5, 4), "scans, val split: image 5 has label 4, but classes are 0 to 3"),
        (change("test", 1, 2, -1), "scans, test split: image 2 has label -1"),
        (change("train", 1, 2, 0.5, float), "scans, train split: image 2 has label 0.5"),
        (change("train", 1, 2, np.nan, float), "scans, train split: image 2 has label nan"),
        (change("val", 0, (3, 1, 1), np.nan, float), "val split: image 3 has pixels that are not finite numbers"),
        (change("test", 0, (7, 0, 0), np.inf, "float32"), "test split: image 7 has pixels that are not finite"),
        (change("train", 1, slice(None), [0, 1, 2, 0, 1, 2, 0, 1]), "scans: no training image of class 3"),
        ({**arrays(), "val": (np.zeros((0, 4, 4), np.uint8), np.zeros(0, int))}, "val split: no images"),
        ({**arrays(), "val": (np.zeros((3, 4, 4), np.uint8), np.zeros(2, int))}, "3 images but 2 labels"),
        ({**arrays(), "val": (np.zeros((3, 5, 4), np.uint8), np.zeros(3, int))}, r"\(5, 4\) are not the declared"),
        ({**arrays(), "val": (np.zeros((3, 2, 8), np.uint8), np.zeros(3, int))}, r"\(2, 8\) are not the declared"),
        ({**arrays(), "val": (np.zeros((3, 4, 4), np.uint8), np.zeros((3, 2), int))}, "labels of shape"),
    ],
)
def test_a_refusal_names_split_and_row(content, message):
    with pytest.raises(ValueError, match=message):
        build(content)


def test_channels_last_colour_images_are_refused():
    """Reshaped to (3, 4, 4) they would be scrambled."""
    content = {split: (np.zeros((4, 4, 4, 3), np.uint8), np.arange(4)) for split in ("train", "val", "test")}
    with pytest.raises(ValueError, match="are not the declared"):
        labelled_images("photos", content, "part", input_shape=(3, 4, 4), n_classes=4, divisor=255)


def test_batches_are_scaled_and_typed():
    dataset = build(change("train", 0, (0, 0, 0), 128))
    batch = next(dataset.train.batches(3))
    assert (batch.x.shape, batch.x.dtype, batch.y.dtype) == ((3, 1, 4, 4), torch.float32, torch.int64)
    assert batch.x[0, 0, 0, 0] == 0.5
    assert dataset.train.columns.x.dtype == torch.uint8, "kept as small as it came"


def test_labels_may_come_in_medmnists_shape():
    content = {split: (x, y.reshape(-1, 1)) for split, (x, y) in arrays().items()}
    assert next(build(content).train.batches(4)).y.tolist() == [0, 1, 2, 3]


def test_float_images_are_not_changed_by_scaling():
    content = {split: (x.astype("float32") + 1, y) for split, (x, y) in arrays().items()}
    dataset = build(content)
    first, again = [next(dataset.train.batches(8)).x for _ in range(2)]
    assert torch.equal(first, again)
    assert first.unique().tolist() == [1 / 256]
    assert first.dtype == torch.float32


@pytest.mark.parametrize("input_shape", [(1, 28, 28), (1, 8, 8), (3, 32, 32)])
def test_the_generated_twin_can_be_learned_and_is_the_same_each_time(input_shape):
    data = generate_arrays(400, input_shape, 4)
    again = generate_arrays(400, input_shape, 4)
    assert all(np.array_equal(data[split][0], again[split][0]) for split in data)
    assert {split: len(x) for split, (x, _) in data.items()} == {"train": 400, "val": 100, "test": 100}
    assert data["train"][0].shape[1:] == input_shape and data["train"][0].dtype == np.uint8
    (x, y), (x_test, y_test) = ((a.reshape(len(a), -1) / 255, b) for a, b in (data["train"], data["test"]))
    assert LogisticRegression(max_iter=300).fit(x, y).score(x_test, y_test) > 0.9


def test_a_tiny_twin_has_every_class():
    for images, labels in generate_arrays(4, (1, 8, 8), 10).values():
        assert len(images) == len(labels) and set(labels) == set(range(10))
