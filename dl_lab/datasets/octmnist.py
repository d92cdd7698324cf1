"""OCTMNIST: retinal OCT scans at 28x28 in four classes (MedMNIST v2, CC BY 4.0).

Source: J. Yang et al., "MedMNIST v2", Scientific Data 2023; images of Kermany et al. 2018. The layout is
medmnist's own: octmnist.npz with {train,val,test}_{images,labels}.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dl_lab.datasets.batches import Order, Residence, shuffled
from dl_lab.datasets.files import data_files, ensure
from dl_lab.datasets.images import Source, generated_arrays, labelled_images
from dl_lab.types import Dataset, UserError

CLASS_NAMES = ("CNV", "DME", "drusen", "normal")
# The test set of the IST coursework: per class, the first items in file order, in the proportions of training.
MATCHED_TEST_SIZES = (182, 55, 42, 250)


def octmnist(
    input_shape: Sequence[int],
    n_classes: int,
    data_dir: str,
    files: Sequence[Mapping[str, Any]],
    source: Source = "real",
    test_set: Literal["all", "matched"] = "matched",
    divisor: float = 256,
    n_generated: int = 2048,
    residence: Residence = "auto",
    workers: int = 2,
    order: Order = shuffled,
) -> Dataset:
    """Images (1, 28, 28) divided by 256 (as the coursework does).

    files: one .npz in medmnist's layout; it is "full" where its published md5 matches, otherwise "part".
    test_set: all test items, or "matched", the coursework's 529 (stacked by class). Raises UserError where the
    file is missing, corrupt, or too small for the matched test set.
    """
    if source == "generated":
        arrays, label, note = generated_arrays(n_generated, input_shape, n_classes), "generated", ""
        where = ""
    else:
        file = data_files(files)[0]
        path = ensure(file, Path(data_dir))
        arrays, where = _read(path), str(path)
        label = "full" if file.state(Path(data_dir)) == "official" else "part"
        note = file.path if label == "part" else ""
        if test_set == "matched":
            arrays["test"] = _matched(*arrays["test"])
    return labelled_images(
        "octmnist",
        arrays,
        label,
        input_shape=input_shape,
        n_classes=n_classes,
        divisor=divisor,
        residence=residence,
        workers=workers,
        order=order,
        class_names=CLASS_NAMES,
        note=note,
        where=where,
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as content:
            return {
                split: (content[f"{split}_images"], content[f"{split}_labels"].reshape(-1))
                for split in ("train", "val", "test")
            }
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a readable OCTMNIST file ({error}): delete it and fetch it again.") from error


def _matched(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    chosen = [np.flatnonzero(labels == c)[:size] for c, size in enumerate(MATCHED_TEST_SIZES)]
    if [len(c) for c in chosen] != list(MATCHED_TEST_SIZES):
        raise UserError(
            f"The matched test set needs {MATCHED_TEST_SIZES} items per class, this file has "
            f"{tuple(len(c) for c in chosen)}: use dataset.test_set=all."
        )
    order = np.concatenate(chosen)
    return images[order], labels[order]
