"""Labelled images as a data set: the checks, the scaling, and a generated twin that needs no file."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dl_lab.datasets.augmentation import Augmentation, Step
from dl_lab.datasets.batches import Order, Residence, TensorSplit, fingerprint, shuffled
from dl_lab.types import Dataset, LabelledBatch

Source = Literal["real", "generated"]
Arrays = Mapping[str, tuple[np.ndarray, np.ndarray]]  # split -> images (n, ...), labels (n,) or (n, 1)


@dataclass(frozen=True)
class Scaled:
    """uint8 images (batch, ...) -> float images (batch, *input_shape): divided by `divisor`, augmented where the
    split gives draws for it, then less `mean` and divided by `std`, one of each for a channel (none: neither)."""

    input_shape: tuple[int, ...]
    divisor: float
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    augmentation: Augmentation | None = None

    def __post_init__(self) -> None:
        if {len(self.mean), len(self.std)} not in ({0}, {self.input_shape[0]}):
            raise ValueError(
                f"mean {list(self.mean)} and std {list(self.std)} are not one number for each of "
                f"{self.input_shape[0]} channels"
            )
        if any(value <= 0 for value in self.std):
            raise ValueError(f"std {list(self.std)} is not above 0")

    def __call__(self, batch: LabelledBatch, draws: Tensor | None = None) -> LabelledBatch:
        x = batch.x.reshape(len(batch.x), *self.input_shape).float().div_(self.divisor)
        if draws is not None and self.augmentation is not None:
            x = self.augmentation(x, draws)
        if self.mean:
            x = x.sub_(_by_channel(self.mean, x.device)).div_(_by_channel(self.std, x.device))
        return LabelledBatch(x, batch.y)


@functools.lru_cache(maxsize=64)  # no copy to the device for every batch
def _by_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(values, device=device).view(-1, 1, 1)


def labelled_images(
    name: str,
    arrays: Arrays,
    label: Literal["full", "part", "generated"],
    *,
    input_shape: Sequence[int],
    n_classes: int,
    divisor: float,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    residence: Residence = "auto",
    workers: int = 2,
    order: Order = shuffled,
    class_names: Sequence[str] = (),
    note: str = "",
    where: str = "",
    augment: Mapping[str, Step | None] | None = None,
) -> Dataset:
    """A data set of images with one label each; `order` is that of a training epoch, `where` the file they lie in.

    mean, std: of the pixels in [0, 1], for each channel; none: no normalisation. augment: steps by name, on the
    batches of a training epoch only.
    Raises ValueError for what does not fit the declared shape and classes: a label out of range, another image
    size, pixels that are not numbers, a class without a training image, mean and std of other channels, steps that
    cannot work on such images.
    """
    transform = Scaled(tuple(input_shape), divisor, tuple(mean), tuple(std), _augmentation(augment or {}, input_shape))
    columns = {
        split: _checked(f"{where or name}, {split} split", *arrays[split], input_shape, n_classes) for split in arrays
    }
    missing = set(range(n_classes)) - set(columns["train"].y.unique().tolist())
    if missing:
        raise ValueError(f"{where or name}: no training image of class {', '.join(map(str, sorted(missing)))}")
    splits = {split: TensorSplit(c, transform, order, residence, workers) for split, c in columns.items()}
    if transform.augmentation is not None:
        splits["train"] = replace(splits["train"], n_draws=transform.augmentation.n_draws)
    content = fingerprint(*[column for split in columns.values() for column in split])
    train, val, test = (splits[split] for split in ("train", "val", "test"))
    names = tuple(class_names)
    counts = {split: _class_counts(c.y, names or range(n_classes)) for split, c in columns.items()}
    return Dataset(
        name,
        label,
        train,
        val,
        test,
        content,
        class_names=names,
        note=note,
        extras={"class_counts": counts},
        preprocessing={"divisor": divisor, "mean": list(mean), "std": list(std)} if mean else {},
    )


def _class_counts(labels: Tensor, names: Sequence[Any]) -> dict[str, int]:
    return dict(zip(map(str, names), torch.bincount(labels, minlength=len(names)).tolist(), strict=True))


def _augmentation(steps: Mapping[str, Step | None], input_shape: Sequence[int]) -> Augmentation | None:
    """None for no steps. Raises ValueError for a step that cannot work on such images."""
    augmentation = Augmentation(steps)
    if not augmentation.n_draws:
        return None
    augmentation(torch.zeros(1, *input_shape), torch.zeros(1, augmentation.n_draws))
    return augmentation


def _checked(
    where: str, images: np.ndarray, labels: np.ndarray, input_shape: Sequence[int], n_classes: int
) -> LabelledBatch:
    if len(images) != len(labels):
        raise ValueError(f"{where}: {len(images)} images but {len(labels)} labels")
    if len(images) == 0:
        raise ValueError(f"{where}: no images")
    if _without_ones(images.shape[1:]) != _without_ones(input_shape):
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


def _without_ones(shape: Sequence[int]) -> tuple[int, ...]:
    """A grey image may come with or without its channel; any other reshaping would scramble it."""
    return tuple(size for size in shape if size != 1)


def generated_arrays(n: int, input_shape: Sequence[int], n_classes: int, seed: int = 0) -> dict[str, Any]:
    """uint8 images that can be learned: a smooth pattern for each class, shifted and under noise.

    n training images and a quarter of that for val and test (at least one of each class in every split).
    """
    rng = np.random.default_rng(seed)
    patterns = _smooth_patterns(rng, n_classes, input_shape)
    sizes = {"train": n, "val": n // 4, "test": n // 4}
    return {split: _draw(rng, patterns, max(size, n_classes)) for split, size in sizes.items()}


def _smooth_patterns(rng: np.random.Generator, n_classes: int, input_shape: Sequence[int]) -> np.ndarray:
    *lead, height, width = input_shape
    coarse = torch.from_numpy(rng.normal(size=(n_classes, math.prod(lead) or 1, 4, 4)))
    fine: Tensor = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return 128 + 40 * fine.reshape(n_classes, *input_shape).numpy()


def _draw(rng: np.random.Generator, patterns: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    labels = rng.permutation(np.arange(n) % len(patterns))
    images = patterns[labels]
    for axis in (-2, -1):
        shifts = rng.integers(-1, 2, size=n)
        images = np.stack([np.roll(image, shift, axis) for image, shift in zip(images, shifts, strict=True)])
    images = images + rng.normal(scale=40, size=images.shape)
    return images.clip(0, 255).astype(np.uint8), labels
