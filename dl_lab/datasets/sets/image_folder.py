"""Folders of images: class folders, split folders with class folders, or a table of paths and labels.

Images are decoded once and kept in the cache (dl_lab.datasets.images.files). Later runs map the cache into memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dl_lab.datasets.batches import Loading
from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.images.augmentation import Step
from dl_lab.datasets.images.decoding import Decoding
from dl_lab.datasets.images.files import read_images
from dl_lab.datasets.images.labelled import Normalise, Source, generate_arrays, labelled_images
from dl_lab.datasets.images.layout import Layout, Splits
from dl_lab.datasets.images.listing import Listing, list_images
from dl_lab.datasets.storage import Storage
from dl_lab.types import UserError, count


def image_folder(
    name: str,
    folder: str,
    input_shape: Sequence[int],
    n_classes: int,
    storage: Storage,
    source: Source,
    splits: Splits,
    layout: Layout,
    decoding: Decoding,
    normalise: Normalise,
    augment: Mapping[str, Step | None] | None,
    n_generated: int,
    loading: Loading,
) -> Dataset:
    """Return labelled images from files.

    Args:
        name: The name of the data set.
        folder: The folder, absolute or relative to the data folder.
        input_shape: Channels (1 or 3), height and width of every image.
        n_classes: The number of classes that the folder must have.
        storage: The data folder, the cache, and the files that `dl-lab data` lists.
        source: "real", or "generated" for images that a model can learn.
        splits: Where the images of train, val and test come from.
        layout: How the images are laid out.
        decoding: How files become pixels.
        normalise: The normalisation of pixels in [0, 1].
        augment: The steps of the augmentation by name, for training epochs.
        n_generated: Training images of the generated data set.
        loading: Where the images reside.

    Raises:
        UserError: A folder or file does not fit; the message names it.
        ValueError: A setting makes no sense.
    """
    shape = as_shape(input_shape)
    if source == "generated":
        return labelled_images(
            name,
            generate_arrays(n_generated, input_shape, n_classes),
            "generated",
            input_shape=shape,
            n_classes=n_classes,
            divisor=255,
            loading=loading,
            normalise=normalise,
            augment=augment,
            class_names=layout.class_names,
            decoding=decoding.to_plain(shape),
        )
    root = storage.data / Path(folder).expanduser()
    if not root.is_dir():
        raise UserError(f"The folder {root} does not exist: put the images there, or use dataset.source=generated.")
    listing = list_images(root, layout, splits, n_classes)
    return from_listing(name, listing, shape, layout, decoding, normalise, augment, loading, storage.cache)


def as_shape(input_shape: Sequence[int]) -> tuple[int, int, int]:
    """Return channels, height and width.

    Raises:
        ValueError: The shape has another number of axes.
    """
    if len(input_shape) != 3:
        raise ValueError(f"input_shape {list(input_shape)} is not [channels, height, width]")
    channels, height, width = input_shape
    return channels, height, width


def from_listing(
    name: str,
    listing: Listing,
    input_shape: tuple[int, int, int],
    layout: Layout,
    decoding: Decoding,
    normalise: Normalise,
    augment: Mapping[str, Step | None] | None,
    loading: Loading,
    cache: Path,
) -> Dataset:
    """Build the data set of the listed files. It is "full" if no image is left out and the release is complete.

    Args:
        name: The name of the data set.
        listing: The files.
        input_shape: Channels, height and width of every image.
        layout: How the images are laid out.
        decoding: How files become pixels.
        normalise: The normalisation of pixels in [0, 1].
        augment: The steps of the augmentation by name, for training epochs.
        loading: Where the images reside.
        cache: The folder of the cache.

    Raises:
        UserError: An image does not fit, or cannot be decoded.
        ValueError: A setting makes no sense.
    """
    images = read_images(listing.paths, input_shape, decoding, cache)
    readable = np.ones(len(listing.paths), dtype=bool)
    readable[list(images.broken)] = False
    left_out = list(listing.left_out)
    if images.broken:
        reasons = [f"{listing.paths[place]} {reason}" for place, reason in images.broken.items()]
        warnings.warn(
            f"Left out {count(len(images.broken), 'image')} that cannot be read: {'; '.join(reasons)}.", stacklevel=3
        )
        left_out.append(f"{count(len(images.broken), 'unreadable image')} left out")
    rows = {split: chosen[readable[chosen]] for split, chosen in listing.rows.items()}
    n = sum(map(len, rows.values()))
    if layout.n_per_class is not None:
        left_out.insert(0, f"at most {layout.n_per_class:,} images of each class")
    if layout.n_official is not None and n != layout.n_official:
        left_out.append(f"{n:,} of {layout.n_official:,} images")
    arrays = {split: (_select(images.pixels, chosen), listing.labels[chosen]) for split, chosen in rows.items()}
    return labelled_images(
        name,
        arrays,
        "part" if left_out else "full",
        input_shape=input_shape,
        n_classes=len(listing.class_names),
        divisor=255,
        loading=loading,
        normalise=normalise,
        augment=augment,
        class_names=listing.class_names,
        notes=[*left_out, *listing.remarks, *images.remarks()],
        where=str(listing.root),
        digests={split: images.digests[chosen] for split, chosen in rows.items()},
        decoding=decoding.to_plain(input_shape),
    )


def _select(images: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return images[chosen], without a copy if the rows are neighbours."""
    if len(chosen) and chosen[-1] - chosen[0] == len(chosen) - 1:
        return images[chosen[0] : chosen[-1] + 1]
    return images[chosen]
