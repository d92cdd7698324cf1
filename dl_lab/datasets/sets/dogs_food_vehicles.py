"""Dogs, food and vehicles: 30,000 photographs at 64x64 in three classes of 10,000, or a stand-in made of CIFAR-10.

A course (Buffalo, CSE 676) gives the set to its students; it is not public. If its folder is missing, images of one
CIFAR-10 class for each of the three classes take its place: another problem of the same shape, with the label "part".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from dl_lab.datasets.batches import Loading, TensorSplit
from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.images.augmentation import Step
from dl_lab.datasets.images.decoding import Decoding
from dl_lab.datasets.images.labelled import Normalise, Source, labelled_images
from dl_lab.datasets.images.layout import Layout, Splits
from dl_lab.datasets.sets.image_folder import image_folder
from dl_lab.datasets.storage import Storage
from dl_lab.types import UserError

ENLARGED_AT_ONCE = 4096  # images


@dataclass(frozen=True)
class StandIn:
    """What takes the place of the course's images where they are missing.

    Args:
        cifar10: Builds CIFAR-10 in colour.
        classes: The class of CIFAR-10 for each of the three classes. Its images are enlarged to the input shape
            (bilinear).
    """

    cifar10: Callable[[], Dataset]
    classes: Sequence[str]


def dogs_food_vehicles(
    folder: str,
    input_shape: Sequence[int],
    n_classes: int,
    storage: Storage,
    source: Source,
    splits: Splits,
    layout: Layout,
    stand_in: StandIn,
    decoding: Decoding,
    normalise: Normalise,
    augment: Mapping[str, Step | None] | None,
    n_generated: int,
    loading: Loading,
) -> Dataset:
    """Return the images of the course's folder with dogs/, food/ and vehicles/, or their stand-in.

    Args:
        folder: The folder, absolute or relative to the data folder.
        input_shape: Channels, height and width of every image.
        n_classes: 3.
        storage: The data folder, the cache, and the files that `dl-lab data` lists.
        source: "real", or "generated" for images that a model can learn.
        splits: The shares of train, val and test, drawn from each class.
        layout: How the images are laid out; n_per_class also applies to the stand-in.
        stand_in: What takes the place of the folder's images where it is missing.
        decoding: How files become pixels.
        normalise: The normalisation of pixels in [0, 1].
        augment: The steps of the augmentation by name, for training epochs.
        n_generated: Training images of the generated data set.
        loading: Where the images reside.

    Raises:
        UserError: Neither the folder nor CIFAR-10 exists.
        ValueError: `stand_in.classes` does not name one class of CIFAR-10 for each class, or `splits` are no shares.
    """
    if source == "generated" or (storage.data / folder).is_dir():
        return image_folder(
            name="dogs_food_vehicles",
            folder=folder,
            input_shape=input_shape,
            n_classes=n_classes,
            storage=storage,
            source=source,
            splits=splits,
            layout=layout,
            decoding=decoding,
            normalise=normalise,
            augment=augment,
            n_generated=n_generated,
            loading=loading,
        )
    classes = stand_in.classes
    if splits.names:
        raise ValueError(f"splits names folders, but there is no folder {storage.data / folder}")
    if len(classes) != n_classes:
        raise ValueError(f"stand_in.classes names {len(classes)} classes, but n_classes is {n_classes}")
    try:
        cifar = stand_in.cifar10()
    except UserError as error:
        raise UserError(
            f"There is no folder {storage.data / folder} (the course's own images), and CIFAR-10, which would take "
            f"their place, cannot be read: {error}"
        ) from error
    note = f"stand-in: CIFAR-10's {', '.join(classes)} enlarged to {input_shape[1]}x{input_shape[2]}"
    note += f", {layout.n_per_class:,} of each" if layout.n_per_class else ""
    note += f"; {cifar.note}" if cifar.note else ""
    return labelled_images(
        "dogs_food_vehicles",
        _build_stand_in(cifar, classes, input_shape, splits, layout.n_per_class),
        "part",
        input_shape=input_shape,
        n_classes=n_classes,
        divisor=255,
        loading=loading,
        normalise=normalise,
        augment=augment,
        class_names=tuple(classes),
        notes=[note],
        digests={},  # the images of a known release are distinct
    )


def _build_stand_in(
    cifar: Dataset,
    classes: Sequence[str],
    input_shape: Sequence[int],
    splits: Splits,
    n_per_class: int | None,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Draw the splits from CIFAR-10's 60,000 images: of each class as many as the smallest class has.

    The order of each split is drawn too.
    """
    unknown = [name for name in classes if name not in cifar.class_names]
    if unknown:
        raise ValueError(f"stand_in.classes: CIFAR-10 has no class {unknown[0]!r}, only {', '.join(cifar.class_names)}")
    parts = [split.columns for split in (cifar.train, cifar.val, cifar.test) if isinstance(split, TensorSplit)]
    images = torch.cat([images for images, _ in parts])
    labels = torch.cat([labels for _, labels in parts])
    shares = splits.shares
    rng = np.random.default_rng(splits.seed)
    rows_by_class: list[np.ndarray] = []
    for name in classes:
        own = torch.nonzero(labels == cifar.class_names.index(name))[:, 0].numpy()
        rows_by_class.append(rng.permutation(own))
    n = min(*map(len, rows_by_class), n_per_class or len(images))
    ends = [round(n * shares["train"]), round(n * (shares["train"] + shares["val"]))]
    by_class = [np.split(rows[:n], ends) for rows in rows_by_class]  # by class, then by split
    arrays: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for i, split in enumerate(("train", "val", "test")):
        chosen = [parts_of_class[i] for parts_of_class in by_class]
        rows = np.concatenate(chosen)
        targets = np.repeat(np.arange(len(classes)), [len(part) for part in chosen])
        order = rng.permutation(len(rows))
        arrays[split] = (_enlarge(images[torch.from_numpy(rows[order])], input_shape), targets[order])
    return arrays


def _enlarge(images: torch.Tensor, input_shape: Sequence[int]) -> np.ndarray:
    """Enlarge uint8 images (n, 3, h, w) to (n, *input_shape), bilinear."""
    size = list(input_shape[1:])
    parts: list[torch.Tensor] = []
    for part in images.split(ENLARGED_AT_ONCE):
        large = F.interpolate(part.float(), size=size, mode="bilinear", antialias=True)
        parts.append(large.round_().clamp_(0, 255).byte())
    return torch.cat(parts).numpy()
