"""CIFAR-10: 60,000 colour images at 32x32 in ten classes, in colour or as the mean over the channels.

Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009. Read from torchvision's layout
(cifar-10-batches-py, with a checksum for every file) or from a copy of all images as JPEG files. The copy is lossy, and
its label is "part".
"""

from __future__ import annotations

import csv
import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from dl_lab.datasets.archives import extract, read_members
from dl_lab.datasets.batches import Loading, Order
from dl_lab.datasets.cache import Writer, key_of, load_or_fill
from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.files import DataFile, require_inside
from dl_lab.datasets.images.augmentation import Step
from dl_lab.datasets.images.decoding import Broken, Decoder, Decoding, Unfit
from dl_lab.datasets.images.labelled import Normalise, Source, generate_arrays, labelled_images
from dl_lab.datasets.storage import Storage
from dl_lab.types import UserError

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = "cifar-10-batches-py"
SIZES = {"train": 50_000, "test": 10_000}  # images of the release
DECODER = Decoder((3, 32, 32), Decoding("none", None, True, None, None, "error"))  # another size is an error
Copy = Literal["auto", "official", "jpeg"]
Pair = tuple[np.ndarray, np.ndarray]  # uint8 images (n, 32, 32, 3), labels (n,)


@dataclass(frozen=True)
class Subset:
    """Which images of CIFAR-10 are used, and in which split.

    Args:
        n_val: Training images, of 50,000, that are held out for validation.
        seed: The seed of the draw of held-out images.
        draw: "torch" holds out the last images of torch's random_split, "numpy" the first of NumPy's permutation.
        n_train: The number of the other training images to keep, the first in the order of the split. None keeps all.
        every: Keep one image in `every` of each split (1 keeps all), from the first one on in train and from the second
            one on in val and test, as the Padova homework does.
    """

    n_val: int
    seed: int
    draw: Literal["numpy", "torch"]
    n_train: int | None
    every: int


def cifar10(
    input_shape: Sequence[int],
    n_classes: int,
    storage: Storage,
    source: Source,
    copy: Copy,
    subset: Subset,
    normalise: Normalise,
    augment: Mapping[str, Step | None] | None,
    n_generated: int,
    loading: Loading,
    order: Order,
) -> Dataset:
    """Return CIFAR-10 in colour, or as the exact mean over the channels.

    Args:
        input_shape: [3, 32, 32] in colour, [1, 32, 32] for the mean over the channels.
        n_classes: 10.
        storage: Where the files lie: the official archive, the JPEG copy, and the JPEG copy's table of the official
            order. Its cache keeps decoded JPEG files.
        source: "real", or "generated" for images that a model can learn.
        copy: The copy that is read. "auto" takes the official one, unless only the JPEG copy exists.
        subset: Which images are used.
        normalise: The normalisation of pixels in [0, 1].
        augment: The steps of the augmentation by name, for training epochs.
        n_generated: Training images of the generated data set.
        loading: Where the images reside.
        order: The order of a training epoch.

    Raises:
        UserError: The files are missing, damaged or not the official ones.
        ValueError: A setting makes no sense.
    """
    grey = list(input_shape) == [1, 32, 32]
    if not grey and list(input_shape) != [3, 32, 32]:
        raise ValueError(f"input_shape {list(input_shape)} is neither [3, 32, 32] nor [1, 32, 32]")
    notes: list[str] = []
    label = "generated"
    if source == "generated":
        arrays = generate_arrays(n_generated, input_shape, n_classes)
        if grey:  # as the sums of three channels
            arrays = {split: (images.astype(np.int16) * 3, labels) for split, (images, labels) in arrays.items()}
    else:
        train, test, official = _read(storage, copy, notes)
        label = "full" if official else "part"
        arrays = _choose(train, test, subset, notes)
        if notes:
            label = "part"
        arrange = _sum_channels if grey else _move_channels_first
        arrays = {split: (arrange(images), labels) for split, (images, labels) in arrays.items()}
    return labelled_images(
        "cifar10",
        arrays,
        label,
        input_shape=input_shape,
        n_classes=n_classes,
        divisor=765 if grey else 255,  # sums of three channels stay integers
        order=order,
        loading=loading,
        class_names=CLASS_NAMES,
        notes=notes,
        normalise=normalise,
        augment=augment,
        white=765 if grey else 255,
        grey="mean",
        digests={},  # the images of a known release are distinct, also in its JPEG copy
    )


def _sum_channels(images: np.ndarray) -> np.ndarray:
    return images.sum(axis=3, dtype=np.int16)[:, None]


def _move_channels_first(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _choose(train: Pair, test: Pair, subset: Subset, notes: list[str]) -> dict[str, Pair]:
    """Return the images of each split, and note which are left out. Raise a ValueError for impossible numbers."""
    val_rows, kept = _split(len(train[0]), subset)
    if subset.n_train is not None and not 0 < subset.n_train <= len(kept):
        raise ValueError(f"subset.n_train {subset.n_train} is not between 1 and the {len(kept)} training images")
    if subset.n_train is not None and subset.n_train < len(kept):
        kept = kept[: subset.n_train]
        notes.append(f"{subset.n_train:,} training images")
    arrays = {"train": _select(train, kept), "val": _select(train, val_rows), "test": test}
    if subset.every < 1:
        raise ValueError(f"subset.every {subset.every} is not at least 1")
    if subset.every > 1:
        notes.append(f"one image of every {subset.every}")
        for split, (images, labels) in arrays.items():
            first = 0 if split == "train" else 1
            arrays[split] = (images[first :: subset.every], labels[first :: subset.every])
    return arrays


def _split(n: int, subset: Subset) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the validation images, and of all others in the order of the split."""
    if not 0 < subset.n_val < n:
        raise ValueError(f"subset.n_val {subset.n_val} does not leave training images of {n}")
    if subset.draw == "torch":  # random_split(data, [n - n_val, n_val]) after torch.manual_seed(seed)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(subset.seed)).numpy()
        return order[n - subset.n_val :], order[: n - subset.n_val]
    order = np.random.default_rng(subset.seed).permutation(n)
    return np.sort(order[: subset.n_val]), np.sort(order[subset.n_val :])


def _select(pair: Pair, indices: np.ndarray) -> Pair:
    return pair[0][indices], pair[1][indices]


# -- reading --


def _read(storage: Storage, copy: Copy, notes: list[str]) -> tuple[Pair, Pair, bool]:
    """Read train and test, and return whether they are the official ones. Download the official archive if needed."""
    archive, jpeg, order = storage.entries()
    data_dir = storage.data
    if copy == "auto":
        has_official = (data_dir / BATCHES).is_dir() or archive.locate(data_dir).exists()
        has_jpeg = jpeg.locate(data_dir).exists()
        copy = "jpeg" if has_jpeg and not has_official else "official"
    if copy == "jpeg":
        table = order.locate(data_dir)
        train, test = decode_copy(storage.ensure(jpeg), table if table.exists() else None, storage.cache)
        notes.append("JPEG copy")
        if (len(train[0]), len(test[0])) != (SIZES["train"], SIZES["test"]):
            notes.append(f"{len(train[0]):,} + {len(test[0]):,} images of {SIZES['train']:,} + {SIZES['test']:,}")
        return train, test, False
    if not (data_dir / BATCHES).is_dir():
        _unpack(storage.ensure(archive), data_dir)
    train, test = _read_official(data_dir)
    return train, test, True


def _unpack(archive: Path, data_dir: Path) -> None:
    """Unpack the folder of batches, whole or not at all. The archive stays."""
    require_inside(data_dir / BATCHES, data_dir)
    try:
        with tempfile.TemporaryDirectory(dir=data_dir, prefix=".cifar10-") as folder:
            unpacked = extract(archive, Path(folder, "unpacked"))
            os.replace(unpacked / BATCHES, data_dir / BATCHES)
    except OSError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{archive} could not be unpacked: {error}.") from error


def _read_official(data_dir: Path) -> tuple[Pair, Pair]:
    """Read the batches of torchvision's layout. Their checksums are checked before torchvision unpickles them."""
    from torchvision.datasets import CIFAR10

    meta = (CIFAR10.meta["filename"], CIFAR10.meta["md5"])
    for name, md5 in [*CIFAR10.train_list, *CIFAR10.test_list, meta]:
        file = DataFile(f"{BATCHES}/{name}", f"md5:{md5}")
        state = file.state(data_dir)
        if state != "official":
            wrong = "is missing" if state == "missing" else "is not the official file: its md5 differs"
            raise UserError(
                f"{data_dir / file.path} {wrong}. Delete the folder and fetch CIFAR-10 again, or choose"
                " dataset=cifar10_jpeg."
            )
    train = CIFAR10(str(data_dir), train=True)
    test = CIFAR10(str(data_dir), train=False)
    return (train.data, np.array(train.targets)), (test.data, np.array(test.targets))


def decode_copy(archive: Path, order: Path | None, cache_dir: Path) -> tuple[Pair, Pair]:
    """Decode a tar of {train,test}/<class>/<name>.jpg once; later runs read the images from the cache.

    Args:
        archive: The tar, compressed or not.
        order: A CSV file with a column `path`: the order of the training images. None: by class and name.
        cache_dir: The folder of the cache.

    Returns:
        The images and labels of train, and those of test.

    Raises:
        UserError: The archive is damaged or ends early, has an image that is not of CIFAR-10, or the order lists other
            images.
    """

    def fill(writer: Writer) -> None:
        images = _decode(archive)
        writer.facts = {"names": sorted(images)}
        writer.save("images", np.stack([images[name] for name in sorted(images)]))

    with open(archive, "rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    entry = load_or_fill(cache_dir, "cifar10_jpeg", key_of(content), fill)
    names: list[str] = entry.facts["names"]
    place = {name: i for i, name in enumerate(names)}
    train = [name for name in names if name.startswith("train/")]
    if order is not None:
        train = _read_order(order, train, archive)
    test = [name for name in names if name.startswith("test/")]
    images = entry.arrays["images"]
    return (
        (images[[place[name] for name in train]], _find_labels(train)),
        (images[[place[name] for name in test]], _find_labels(test)),
    )


def _read_order(order: Path, train: list[str], archive: Path) -> list[str]:
    """Return the names of the training images in the order of the table. Raise a UserError for other names."""
    try:
        with open(order, newline="", encoding="utf-8-sig") as file:
            listed = [row["path"] for row in csv.DictReader(file)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"The table {order} cannot be read: {error}.") from error
    except KeyError:
        raise UserError(f"{order}, line 1: there is no column 'path'.") from None
    if None in listed or sorted(listed) != train:
        raise UserError(
            f"{order} does not list the training images of {archive}: it has {len(listed):,} rows for "
            f"{len(train):,} images. A part of one of the two files may be missing."
        )
    return listed


def _find_labels(names: list[str]) -> np.ndarray:
    return np.array([CLASS_NAMES.index(name.split("/")[1]) for name in names])


def _decode(archive: Path) -> dict[str, np.ndarray]:
    """Decode all JPEG images of the archive, by their last three path parts."""
    images: dict[str, np.ndarray] = {}
    for name, content in read_members(archive):
        if name.endswith(".jpg"):
            images["/".join(name.split("/")[-3:])] = _decode_image(content, name, archive)
    if not images:
        raise UserError(f"{archive} has no .jpg files.")
    return images


def _decode_image(content: bytes, name: str, archive: Path) -> np.ndarray:
    """Return the pixels (32, 32, 3) uint8. Raise a UserError for an image that is not of CIFAR-10."""
    parts = name.split("/")
    if len(parts) < 3 or parts[-3] not in SIZES or parts[-2] not in CLASS_NAMES:
        raise UserError(f"{name} in {archive} is not train/<class>/ or test/<class>/ with one of CIFAR-10's classes.")
    try:
        result = DECODER(content)
    except (Broken, Unfit) as problem:
        raise UserError(f"{name} in {archive} {str(problem).partition(': ')[0]}.") from problem
    return result.pixels.transpose(1, 2, 0)
