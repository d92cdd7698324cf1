"""OCTMNIST: retinal OCT scans at 28x28 in four classes (MedMNIST v2, CC BY 4.0).

Source: J. Yang et al., "MedMNIST v2", Scientific Data 2023; images of Kermany et al. 2018. The layout is
medmnist's own: octmnist.npz with {train,val,test}_{images,labels}.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from dl_lab.datasets.batches import Loading, Order
from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.images.labelled import Source, generate_arrays, labelled_images
from dl_lab.datasets.images.pixels import to_pixels
from dl_lab.datasets.storage import Storage
from dl_lab.types import UserError

CLASS_NAMES = ("CNV", "DME", "drusen", "normal")
# The test set of the IST coursework: per class, the first items in file order, in the proportions of training.
MATCHED_TEST_SIZES = (182, 55, 42, 250)


def octmnist(
    input_shape: Sequence[int],
    n_classes: int,
    storage: Storage,
    source: Source,
    test_set: Literal["all", "matched"],
    divisor: float,
    n_generated: int,
    loading: Loading,
    order: Order,
) -> Dataset:
    """Return OCTMNIST. Its label is "full" if the published md5 matches.

    Args:
        input_shape: [1, 28, 28].
        n_classes: 4.
        storage: Where the file lies: one .npz file in medmnist's layout. Pixels of another type than uint8 are scaled
            to 0 to 255 (`to_pixels`).
        source: "real", or "generated" for images that a model can learn.
        test_set: "all" test items, or "matched" for the coursework's 529 items (stacked by class).
        divisor: The pixel that becomes 1.
        n_generated: Training images of the generated data set.
        loading: Where the images reside.
        order: The order of a training epoch.

    Raises:
        UserError: The file is missing, damaged, or too small for the matched test set.
    """
    label = "generated"
    notes: list[str] = []
    where = ""
    if source == "generated":
        arrays = generate_arrays(n_generated, input_shape, n_classes)
    else:
        file = storage.entries()[0]
        path = storage.ensure(file)
        where = str(path)
        label = "full" if file.state(storage.data) == "official" else "part"
        if label == "part":
            notes.append(file.path)
        arrays = _read(path, notes)
        if test_set == "matched":
            arrays["test"] = _select_matched(*arrays["test"])
    return labelled_images(
        "octmnist",
        arrays,
        label,
        input_shape=input_shape,
        n_classes=n_classes,
        divisor=divisor,
        loading=loading,
        order=order,
        class_names=CLASS_NAMES,
        notes=notes,
        where=where,
    )


def _read(path: Path, notes: list[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read the splits, with pixels from 0 to 255, and note which were scaled."""
    arrays: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
            for split in ("train", "val", "test"):
                arrays[split] = (content[f"{split}_images"], content[f"{split}_labels"].reshape(-1))
    except UNREADABLE as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{path} is not a readable OCTMNIST file ({reason}): delete it and fetch it again.") from error
    for split, (images, labels) in arrays.items():
        pixels, scaled = to_pixels(images, f"{path}, {split} split")
        arrays[split] = (pixels, labels)
        if scaled:
            notes.append(f"{split}: {scaled}")
    return arrays


# A plain .npy file has no context manager (TypeError); an unknown compression is NotImplementedError, an encrypted
# member RuntimeError, and a damaged header may ask for any number of bytes or name a type that NumPy cannot parse.
UNREADABLE = (
    OSError, ValueError, EOFError, KeyError, TypeError, RuntimeError, AttributeError, MemoryError, OverflowError,
    SyntaxError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def _select_matched(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the coursework's test set. Raise a UserError if the file has too few items of a class."""
    chosen = [np.flatnonzero(labels == c)[:size] for c, size in enumerate(MATCHED_TEST_SIZES)]
    if [len(c) for c in chosen] != list(MATCHED_TEST_SIZES):
        raise UserError(
            f"The matched test set needs {MATCHED_TEST_SIZES} items per class, this file has "
            f"{tuple(len(c) for c in chosen)}: use dataset.test_set=all."
        )
    order = np.concatenate(chosen)
    return images[order], labels[order]
