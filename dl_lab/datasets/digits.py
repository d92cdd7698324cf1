"""scikit-learn's handwritten digits: 1,797 real 8x8 images, inside the package, no download.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI (the 1,797 test images).
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

from dl_lab.datasets.batches import Order, Residence, shuffled
from dl_lab.datasets.images import Source, generated_arrays, labelled_images
from dl_lab.types import Dataset


def digits(
    input_shape: Sequence[int],
    n_classes: int,
    source: Source = "real",
    divisor: float = 16,
    split: Literal["drawn", "none"] = "drawn",
    n_val: int = 200,
    n_test: int = 300,
    split_seed: int = 0,
    n_generated: int = 1024,
    residence: Residence = "auto",
    workers: int = 2,
    order: Order = shuffled,
) -> Dataset:
    """Images (1, 8, 8) with pixel values 0 to 16; there is no official split.

    split: "drawn" by `split_seed`; or "none", all images in their stored order, which then also stand in for
    validation and test (a source that splits nothing reports accuracy on what it trained on).
    """
    if source == "generated":
        arrays = generated_arrays(n_generated, input_shape, n_classes)
        arrays = {split: (images // 16, labels) for split, (images, labels) in arrays.items()}
    else:
        content = _read()
        if split == "none":
            arrays = {"train": content, "val": content, "test": content}
        else:
            arrays = _split(*content, n_val, n_test, split_seed)
    return labelled_images(
        "digits",
        arrays,
        "generated" if source == "generated" else "full",
        input_shape=input_shape,
        n_classes=n_classes,
        divisor=divisor,
        residence=residence,
        workers=workers,
        order=order,
        class_names=[str(digit) for digit in range(n_classes)],
        note=f"split drawn with seed {split_seed}" if split == "drawn" else "val and test are the training images",
    )


def _read() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's own file, without importing scikit-learn (a slow import that nothing else here needs)."""
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise ValueError("the digits come with scikit-learn, which is not installed")
    with gzip.open(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    return table[:, :-1].reshape(-1, 1, 8, 8), table[:, -1]


def _split(images: np.ndarray, labels: np.ndarray, n_val: int, n_test: int, seed: int) -> dict:
    if n_val < 1 or n_test < 1 or n_val + n_test >= len(images):
        raise ValueError(f"n_val {n_val} and n_test {n_test} do not leave training images of {len(images)}")
    order = np.random.default_rng(seed).permutation(len(images))
    parts = np.split(order, [n_test, n_test + n_val])
    return {split: (images[part], labels[part]) for split, part in zip(("test", "val", "train"), parts, strict=True)}
