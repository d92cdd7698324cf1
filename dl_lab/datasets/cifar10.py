"""CIFAR-10: 60,000 colour images at 32x32 in ten classes, in colour or as the mean over the channels.

Source: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009. Read from torchvision's
layout (cifar-10-batches-py, checksums of every file) or from a copy of all images as JPEG files, which is lossy and
marked so.
"""

from __future__ import annotations

import csv
import hashlib
import os
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from dl_lab.datasets.augmentation import Step
from dl_lab.datasets.batches import Residence, in_order, shuffled
from dl_lab.datasets.files import DataFile, data_files, ensure
from dl_lab.datasets.images import Source, generated_arrays, labelled_images
from dl_lab.types import Dataset, UserError

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = "cifar-10-batches-py"
Copy = Literal["auto", "official", "jpeg"]
Permutation = Literal["numpy", "torch"]
Pair = tuple[np.ndarray, np.ndarray]  # uint8 images (n, 32, 32, 3), labels (n,)


def cifar10(
    input_shape: Sequence[int],
    n_classes: int,
    data_dir: str,
    cache_dir: str,
    files: Sequence[Mapping[str, Any]],
    source: Source = "real",
    copy: Copy = "auto",
    n_val: int = 5_000,
    split_seed: int = 43,
    split_by: Permutation = "torch",
    n_train: int | None = None,
    every: int = 1,
    shuffle: bool = True,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    augment: Mapping[str, Step | None] | None = None,
    n_generated: int = 2048,
    residence: Residence = "auto",
    workers: int = 2,
) -> Dataset:
    """Images in [0, 1]: input_shape [3, 32, 32] in colour, [1, 32, 32] the exact mean over the channels.

    files: the official archive, the JPEG copy and its table of the official order. copy: which of the two is read;
    "auto" the official one, unless the JPEG copy is all that is there. Decoded JPEG files are kept under cache_dir,
    by the archive's content. n_val of the 50,000 training images are held out: the last of torch's random_split
    under split_seed ("torch"), or the first of NumPy's permutation. n_train: only so many of the others are kept,
    the first in that split's order; the data set is then a "part". every: only each so many-th image of every split,
    from the first (train) or the second on (val, test), as the Padova homework thins them: a "part", too. shuffle:
    False keeps the stored order in every
    epoch, as some coursework does. mean, std, augment: as labelled_images.
    """
    grey = list(input_shape) == [1, 32, 32]
    if not grey and list(input_shape) != [3, 32, 32]:
        raise ValueError(f"input_shape {list(input_shape)} is neither [3, 32, 32] nor [1, 32, 32]")
    if source == "generated":
        arrays, label, note = generated_arrays(n_generated, input_shape, n_classes), "generated", ""
        if grey:
            arrays = {split: (images.astype(np.int16) * 3, y) for split, (images, y) in arrays.items()}
    else:
        train, test, label, note = _read(data_files(files), Path(data_dir).expanduser(), Path(cache_dir), copy)
        val, kept = _split(len(train[0]), n_val, split_seed, split_by)
        if n_train is not None and not 0 < n_train <= len(kept):
            raise ValueError(f"n_train {n_train} is not between 1 and the {len(kept)} training images")
        if n_train is not None and n_train < len(kept):
            kept, label = kept[:n_train], "part"
            note = ", ".join(part for part in (note, f"{n_train:,} training images") if part)
        arrays = {"train": _chosen(train, kept), "val": _chosen(train, val), "test": test}
        if every < 1:
            raise ValueError(f"every {every} is not at least 1")
        if every > 1:
            arrays = {
                split: (x[split != "train" :: every], y[split != "train" :: every]) for split, (x, y) in arrays.items()
            }
            label, note = "part", ", ".join(part for part in (note, f"one image of every {every}") if part)
        arrays = {split: (_summed(x) if grey else _channels_first(x), y) for split, (x, y) in arrays.items()}
    return labelled_images(
        "cifar10",
        arrays,
        label,
        input_shape=input_shape,
        n_classes=n_classes,
        divisor=765 if grey else 255,  # sums of three channels stay integers
        order=shuffled if shuffle else in_order,
        residence=residence,
        workers=workers,
        class_names=CLASS_NAMES,
        note=note,
        mean=mean,
        std=std,
        augment=augment,
    )


def _summed(images: np.ndarray) -> np.ndarray:
    return images.sum(axis=3, dtype=np.int16)[:, None]


def _channels_first(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _split(n: int, n_val: int, split_seed: int, split_by: Permutation) -> tuple[np.ndarray, np.ndarray]:
    """The indices of the validation images, and of all others in the order of the split."""
    if not 0 < n_val < n:
        raise ValueError(f"n_val {n_val} does not leave training images of {n}")
    if split_by == "torch":  # random_split(data, [n - n_val, n_val]) after torch.manual_seed(split_seed)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(split_seed)).numpy()
        return order[n - n_val :], order[: n - n_val]
    order = np.random.default_rng(split_seed).permutation(n)
    return np.sort(order[:n_val]), np.sort(order[n_val:])


def _chosen(pair: Pair, indices: np.ndarray) -> Pair:
    return pair[0][indices], pair[1][indices]


# -- reading
# ------------------------------------------------------------------------------------------------------


def _read(files: list[Any], data_dir: Path, cache_dir: Path, copy: Copy) -> tuple[Pair, Pair, Any, str]:
    """(train, test, label, note). The official archive is fetched where it is wanted and not there."""
    archive, jpeg, order = files
    if copy == "auto":
        official = (data_dir / BATCHES).is_dir() or archive.locate(data_dir).exists()
        copy = "official" if official or not jpeg.locate(data_dir).exists() else "jpeg"
    if copy == "jpeg":
        table = order.locate(data_dir)
        train, test = decoded(ensure(jpeg, data_dir), table if table.exists() else None, cache_dir)
        return train, test, "part", "JPEG copy"
    if not (data_dir / BATCHES).is_dir():
        _unpack(ensure(archive, data_dir), data_dir)
    return (*_official(data_dir), "full", "")


def _unpack(archive: Path, data_dir: Path) -> None:
    """The folder of batches, whole or not at all."""
    try:
        with tempfile.TemporaryDirectory(dir=data_dir, prefix=".cifar10-") as folder:
            with tarfile.open(archive) as packed:
                packed.extractall(folder, filter="data")
            os.replace(Path(folder, BATCHES), data_dir / BATCHES)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise UserError(f"{archive} cannot be unpacked: {error}.") from error


def _official(data_dir: Path) -> tuple[Pair, Pair]:
    """The batches of torchvision's layout, whose checksums are checked before anything in them is unpickled."""
    from torchvision.datasets import CIFAR10

    meta = (CIFAR10.meta["filename"], CIFAR10.meta["md5"])
    for name, md5 in [*CIFAR10.train_list, *CIFAR10.test_list, meta]:
        file = DataFile(f"{BATCHES}/{name}", f"md5:{md5}")
        state = file.state(data_dir)
        if state != "official":
            wrong = "is missing" if state == "missing" else "is not the official file: its md5 is another"
            raise UserError(
                f"{data_dir / file.path} {wrong}. Delete the folder and fetch CIFAR-10 again, or choose"
                " dataset=cifar10_jpeg."
            )
    train, test = (CIFAR10(str(data_dir), train=part) for part in (True, False))
    return (train.data, np.array(train.targets)), (test.data, np.array(test.targets))


def decoded(archive: Path, order: Path | None, cache_dir: Path) -> tuple[Pair, Pair]:
    """(train, test) of a tar of {train,test}/<class>/<name>.jpg, decoded once and then read from the cache.

    order: a CSV with a column `path`: the training images' order; by class and name where there is none.
    """
    with open(archive, "rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    cached = cache_dir.expanduser() / f"cifar10_jpeg_{content}.npz"
    if not cached.exists():
        _write_cache(cached, _decode(archive))
    with np.load(cached) as stored:
        names, images = stored["names"].tolist(), stored["images"]
    place = {name: i for i, name in enumerate(names)}
    train = [name for name in names if name.startswith("train/")]
    if order is not None:
        with open(order, newline="", encoding="utf-8") as file:
            listed = [row["path"] for row in csv.DictReader(file)]
        if sorted(listed) != train:
            raise UserError(f"{order} does not list the training images of {archive}.")
        train = listed
    test = [name for name in names if name.startswith("test/")]
    parts = [(images[[place[n] for n in part]], _labels(part)) for part in (train, test)]
    return parts[0], parts[1]


def _labels(names: list[str]) -> np.ndarray:
    return np.array([CLASS_NAMES.index(name.split("/")[1]) for name in names])


def _decode(archive: Path) -> dict[str, np.ndarray]:
    """All JPEG images of the archive by their last three path parts, sorted."""
    images: dict[str, np.ndarray] = {}
    try:
        with tarfile.open(archive, "r|*") as packed:
            for member in packed:
                file = packed.extractfile(member) if member.name.endswith(".jpg") else None
                if file is not None:
                    images["/".join(member.name.split("/")[-3:])] = _pixels(file.read(), member.name, archive)
    except (OSError, tarfile.TarError, RuntimeError, EOFError) as error:
        raise UserError(f"{archive} cannot be read: {error}.") from error
    if not images:
        raise UserError(f"{archive} has no .jpg files.")
    names = sorted(images)
    return {"names": np.array(names), "images": np.stack([images[name] for name in names])}


def _pixels(content: bytes, name: str, archive: Path) -> np.ndarray:
    """(32, 32, 3) uint8. Raises UserError, naming the image, for what is none of CIFAR-10's."""
    from torchvision.io import ImageReadMode, decode_jpeg

    *_, split, folder, _ = ("", "", *name.split("/"))
    if split not in ("train", "test") or folder not in CLASS_NAMES:
        raise UserError(f"{name} in {archive} is not train/<class>/ or test/<class>/ with one of CIFAR-10's classes.")
    if not content:
        raise UserError(f"{name} in {archive} is empty.")
    try:
        pixels: Any = decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8), mode=ImageReadMode.RGB)
    except RuntimeError as error:
        raise UserError(f"{name} in {archive} cannot be decoded as JPEG.") from error
    if tuple(pixels.shape[1:]) != (32, 32):
        raise UserError(f"{name} in {archive} has {pixels.shape[2]}x{pixels.shape[1]} pixels, not 32x32.")
    return pixels.permute(1, 2, 0).numpy()


def _write_cache(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp.npz")
    try:
        np.savez(temporary, **arrays)  # pyright: ignore[reportArgumentType]
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"Cannot write the cache {path}: {error.strerror}.") from error
