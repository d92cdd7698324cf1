"""Labelled images as a data set: checks, scaling, and generated images that need no file."""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dl_lab.datasets.batches import AUTO, Loading, Order, TensorSplit, fingerprint, shuffled
from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.images.augmentation import Augmentation, Step
from dl_lab.types import LabelledBatch, count

Source = Literal["real", "generated"]
Arrays = Mapping[str, tuple[np.ndarray, np.ndarray]]  # split -> images (n, ...), labels (n,) or (n, 1)


@dataclass(frozen=True)
class Normalise:
    """The normalisation of pixels in [0, 1]: less `mean`, divided by `std`.

    Args:
        mean: One number for each channel. Empty: pixels stay in [0, 1].
        std: One number above 0 for each channel; empty if `mean` is empty.
    """

    mean: Sequence[float]
    std: Sequence[float]


UNCHANGED = Normalise((), ())


@dataclass(frozen=True)
class Scaled:
    """Stored images (batch, ...) -> float images (batch, *input_shape).

    Pixels are divided by `divisor`, then augmented in a training epoch, then normalised.

    Args:
        input_shape: Channels, height and width.
        divisor: The stored number that becomes 1.
        mean: One number for each channel, or none.
        std: One number for each channel, or none.
        augmentation: The augmentation of training batches.

    Raises:
        ValueError: `mean` and `std` do not have one number for each channel, or a std is not above 0.
    """

    input_shape: tuple[int, ...]
    divisor: float
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    augmentation: Augmentation | None = None

    def __post_init__(self) -> None:
        if {len(self.mean), len(self.std)} not in ({0}, {self.input_shape[0]}):
            raise ValueError(
                f"normalise.mean {list(self.mean)} and std {list(self.std)} are not one number for each of "
                f"{self.input_shape[0]} channels"
            )
        if any(value <= 0 for value in self.std):
            raise ValueError(f"normalise.std {list(self.std)} is not above 0")

    def __call__(self, batch: LabelledBatch, draws: Tensor | None = None) -> LabelledBatch:
        """Scale a batch; `draws` (batch, n_draws) are the uniform numbers of the augmentation."""
        x = batch.x.reshape(len(batch.x), *self.input_shape).float().div_(self.divisor)
        if draws is not None and self.augmentation is not None:
            x = self.augmentation(x, draws)
        if self.mean:
            x = x.sub_(_to_channels(self.mean, x.device)).div_(_to_channels(self.std, x.device))
        return LabelledBatch(x, batch.y)


@functools.lru_cache(maxsize=64)  # so that a batch needs no copy to the device
def _to_channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device).view(-1, 1, 1)


def labelled_images(
    name: str,
    arrays: Arrays,
    label: Literal["full", "part", "generated"],
    *,
    input_shape: Sequence[int],
    n_classes: int,
    divisor: float,
    loading: Loading = AUTO,
    normalise: Normalise = UNCHANGED,
    augment: Mapping[str, Step | None] | None = None,
    order: Order = shuffled,
    class_names: Sequence[str] = (),
    notes: Sequence[str] = (),
    where: str = "",
    digests: Mapping[str, np.ndarray] | None = None,
    decoding: Mapping[str, object] | None = None,
    white: float = 255,
    grey: Literal["weighted", "mean"] = "weighted",
) -> Dataset:
    """Build a data set of images with one label each.

    Args:
        name: The name of the data set.
        arrays: The images and labels of each split.
        label: How much of the release the images are.
        input_shape: Channels, height and width.
        n_classes: The number of classes; labels go from 0 to n_classes - 1.
        divisor: The stored number that becomes 1.
        loading: Where the images reside.
        normalise: The normalisation of pixels in [0, 1].
        augment: Steps by name, which change the batches of training epochs only.
        order: The order of a training epoch.
        class_names: The classes by number. Empty: the numbers.
        notes: What a reader of the results must know about the data.
        where: The file or folder of the images, for messages.
        digests: A hash of each image by split, to find training images that are also in another split. None: images
            of a "part" are hashed here; those of a whole release are known.
        decoding: The settings of the decoder, for new files (see `Decoding.to_plain`).
        white: The stored number of a white pixel, for new files.
        grey: How a colour image becomes grey, for new files: by Pillow's weights of the channels, or by their mean.

    Raises:
        ValueError: The images do not fit the declared shape and classes: a label out of range, another image size,
            pixels that are no numbers, a class without a training image, normalisation of other channels, or steps
            that cannot work on such images.
    """
    transform = Scaled(
        tuple(input_shape),
        divisor,
        tuple(normalise.mean),
        tuple(normalise.std),
        _build_augmentation(augment or {}, input_shape),
    )
    columns: dict[str, LabelledBatch] = {}
    for split, (images, labels) in arrays.items():
        columns[split] = _to_batch(f"{where or name}, {split} split", images, labels, input_shape, n_classes)
    missing = set(range(n_classes)) - set(columns["train"].y.unique().tolist())
    if missing:
        raise ValueError(f"{where or name}: no training image of class {', '.join(map(str, sorted(missing)))}")
    splits: dict[str, TensorSplit] = {}
    for split, batch in columns.items():
        splits[split] = TensorSplit(batch, transform, order, loading.residence, loading.workers)
    if transform.augmentation is not None:
        splits["train"] = replace(splits["train"], n_draws=transform.augmentation.n_draws)
    if digests is None and label == "part":
        digests = {split: digests_of(images) for split, (images, _) in arrays.items()}
    repeated = _describe_repeats(digests or {})
    if repeated:
        warnings.warn(f"{where or name}: {', '.join(repeated)}.", stacklevel=2)
    names = tuple(class_names)
    preprocessing: dict[str, object] = {
        "input_shape": list(input_shape),
        "divisor": divisor,
        "mean": list(normalise.mean),
        "std": list(normalise.std),
        "class_names": list(names),
        "n_classes": n_classes,
        "white": white,
        "grey": grey,
    }
    if decoding is not None:
        preprocessing["decoding"] = dict(decoding)
    return Dataset(
        name,
        label,
        splits["train"],
        splits["val"],
        splits["test"],
        fingerprint(*itertools.chain.from_iterable(columns.values())),
        class_names=names,
        note=", ".join([*(note for note in notes if note), *repeated]),
        preprocessing=preprocessing,
        class_counts={split: _count_classes(batch.y, names, n_classes) for split, batch in columns.items()},
    )


def digests_of(images: np.ndarray) -> np.ndarray:
    """Return a hash of each image, as 16 bytes (n,)."""
    own = [hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() for image in images]
    return np.array(own, dtype="V16")


def _describe_repeats(digests: Mapping[str, np.ndarray]) -> list[str]:
    """Return words about images of val and test that are also in train."""
    words: list[str] = []
    for split in ("val", "test"):
        if split in digests:
            n = int(np.isin(_to_strings(digests[split]), _to_strings(digests["train"])).sum())
            if n:
                verb = "is" if n == 1 else "are"
                words.append(f"{count(n, f'{split} image')} {verb} also in train")
    return words


def _to_strings(digests: np.ndarray) -> np.ndarray:
    """Return the digests as byte strings, because NumPy does not sort raw data."""
    return np.array([digest.tobytes().hex() for digest in digests], dtype="S32")


def _count_classes(labels: Tensor, names: Sequence[str], n_classes: int) -> dict[str, int]:
    names = names or [str(number) for number in range(n_classes)]
    return dict(zip(names, torch.bincount(labels, minlength=len(names)).tolist(), strict=True))


def _build_augmentation(steps: Mapping[str, Step | None], input_shape: Sequence[int]) -> Augmentation | None:
    """Return the augmentation; None for no steps. Raise a ValueError for a step that cannot work on such images."""
    augmentation = Augmentation(steps)
    if not augmentation.n_draws:
        return None
    augmentation(torch.zeros(1, *input_shape), torch.zeros(1, augmentation.n_draws))
    return augmentation


def _to_batch(
    where: str, images: np.ndarray, labels: np.ndarray, input_shape: Sequence[int], n_classes: int
) -> LabelledBatch:
    """Return images and labels as tensors. Raise a ValueError if they do not fit."""
    if len(images) != len(labels):
        raise ValueError(f"{where}: {len(images)} images but {len(labels)} labels")
    if len(images) == 0:
        raise ValueError(f"{where}: no images")
    if _drop_ones(images.shape[1:]) != _drop_ones(input_shape):
        raise ValueError(f"{where}: images of shape {images.shape[1:]} are not the declared {tuple(input_shape)}")
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        bad = np.flatnonzero(~np.isfinite(images).reshape(len(images), -1).all(axis=1))[0]
        raise ValueError(f"{where}: image {bad} has pixels that are not finite numbers")
    if labels.size != len(labels):
        raise ValueError(f"{where}: labels of shape {labels.shape} are not one for each image")
    labels = labels.reshape(len(labels))
    wrong = np.flatnonzero(~np.isin(labels, np.arange(n_classes)))
    if len(wrong):
        raise ValueError(
            f"{where}: image {wrong[0]} has label {labels[wrong[0]]}, but classes are 0 to {n_classes - 1}"
        )
    return LabelledBatch(torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels.astype(np.int64)))


def _drop_ones(shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape without axes of size 1: a grey image may come with or without its channel."""
    return tuple(size for size in shape if size != 1)


def generate_arrays(
    n: int, input_shape: Sequence[int], n_classes: int, seed: int = 0
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Generate uint8 images that a model can learn: a smooth pattern for each class, shifted and with noise.

    Args:
        n: Training images; val and test have a quarter of that. Every split has at least as many images as classes.
        input_shape: Channels, height and width.
        n_classes: The number of classes.
        seed: The seed of patterns, shifts and noise.

    Returns:
        Split -> images (n, *input_shape), labels (n,).
    """
    rng = np.random.default_rng(seed)
    patterns = _draw_patterns(rng, n_classes, input_shape)
    sizes = {"train": n, "val": n // 4, "test": n // 4}
    return {split: _draw_images(rng, patterns, max(size, n_classes)) for split, size in sizes.items()}


def _draw_patterns(rng: np.random.Generator, n_classes: int, input_shape: Sequence[int]) -> np.ndarray:
    *lead, height, width = input_shape
    coarse = torch.from_numpy(rng.normal(size=(n_classes, math.prod(lead) or 1, 4, 4)))
    fine = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return 128 + 40 * fine.reshape(n_classes, *input_shape).numpy()


def _draw_images(rng: np.random.Generator, patterns: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    labels = rng.permutation(np.arange(n) % len(patterns))
    images = patterns[labels]
    for axis in (-2, -1):
        shifts = rng.integers(-1, 2, size=n)
        images = np.stack([np.roll(image, shift, axis) for image, shift in zip(images, shifts, strict=True)])
    images = images + rng.normal(scale=40, size=images.shape)
    return images.clip(0, 255).astype(np.uint8), labels
