"""Food-101: 101,000 photographs of food in 101 classes, in torchvision's layout (food-101/images, food-101/meta).

Source: Bossard, Guillaumin, Van Gool, "Food-101 - mining discriminative components with random forests", ECCV 2014.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dl_lab.datasets.archives import extract
from dl_lab.datasets.batches import Loading
from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.files import require_inside
from dl_lab.datasets.images.augmentation import Step
from dl_lab.datasets.images.decoding import Decoding
from dl_lab.datasets.images.labelled import Normalise, Source, generate_arrays, labelled_images
from dl_lab.datasets.images.layout import Layout, Splits
from dl_lab.datasets.images.listing import SPLITS, Listing, draw_some
from dl_lab.datasets.sets.image_folder import as_shape, from_listing
from dl_lab.datasets.storage import Storage
from dl_lab.types import UserError


def food101(
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
    """Return Food-101 with its official test split; download the archive if it is missing.

    Args:
        input_shape: Channels (1 or 3), height and width of every image.
        n_classes: The number of classes that the folder must have.
        storage: Where the official archive lies.
        source: "real", or "generated" for images that a model can learn.
        splits: train and test name lists of the release (meta/train.json). val is the share of each class's training
            images that is held out for validation.
        layout: Only n_per_class and n_official are used; otherwise the layout is that of the release.
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
            "food101",
            generate_arrays(n_generated, input_shape, n_classes),
            "generated",
            input_shape=shape,
            n_classes=n_classes,
            divisor=255,
            loading=loading,
            normalise=normalise,
            augment=augment,
            decoding=decoding.to_plain(shape),
        )
    root = _find(storage)
    listing = _list(root, n_classes, splits, layout.n_per_class)
    return from_listing("food101", listing, shape, layout, decoding, normalise, augment, loading, storage.cache)


def _find(storage: Storage) -> Path:
    """Return the folder food-101; unpack its archive if the folder is missing. The archive stays."""
    data_dir = storage.data
    root = data_dir / "food-101"
    if not (root / "meta").is_dir():
        (archive,) = storage.entries()
        require_inside(root, data_dir)
        unpacked = extract(storage.ensure(archive), data_dir / "food-101.unpacked")
        if not (unpacked / "food-101" / "meta").is_dir():
            raise UserError(f"{archive.locate(data_dir)} has no folder food-101/meta: it is another archive.")
        (unpacked / "food-101").rename(root)
        unpacked.rmdir()
    return root


def _list(root: Path, n_classes: int, splits: Splits, n_per_class: int | None) -> Listing:
    """List the files that meta/ names: training images of every class, then held-out ones, then test images."""
    if set(splits.names) != {"train", "test"}:
        raise ValueError(
            f"splits.val {splits.val!r} is no share of the training images, or train and test are no names"
        )
    val_share = splits.shares["val"]
    rng = np.random.default_rng(splits.seed)
    meta = {split: _read_meta(root / "meta" / f"{name}.json") for split, name in splits.names.items()}
    names = tuple(sorted(meta["train"]))
    if len(names) != n_classes or sorted(meta["test"]) != list(names):
        raise UserError(
            f"{root / 'meta'} lists {len(names)} classes for training and {len(meta['test'])} for test, but "
            f"dataset.n_classes is {n_classes}."
        )
    paths: list[Path] = []
    labels: list[int] = []
    rows: dict[str, list[int]] = {split: [] for split in SPLITS}

    def add(split: str, files: Sequence[Path], label: int) -> None:
        rows[split] += range(len(paths), len(paths) + len(files))
        paths.extend(files)
        labels.extend([label] * len(files))

    held_out: list[tuple[list[Path], int]] = []
    for label, name in enumerate(names):
        own = draw_some(sorted(root / "images" / f"{entry}.jpg" for entry in meta["train"][name]), n_per_class, rng)
        order = rng.permutation(len(own))
        n_val = round(len(own) * val_share)
        if not 0 < n_val < len(own):
            raise UserError(f"{root}: class {name} has {len(own)} training images: too few for splits.val={val_share}.")
        add("train", [own[i] for i in np.sort(order[n_val:])], label)
        held_out.append(([own[i] for i in np.sort(order[:n_val])], label))
    for files, label in held_out:
        add("val", files, label)
    for label, name in enumerate(names):
        own = sorted(root / "images" / f"{entry}.jpg" for entry in meta["test"][name])
        add("test", draw_some(own, n_per_class, rng), label)
    return Listing(root, paths, np.array(labels), {k: np.array(v) for k, v in rows.items()}, names)


def _read_meta(path: Path) -> dict[str, list[str]]:
    """Read {class: ["class/number"]}. Raise a UserError for another content, and for names that leave images/."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8-sig"))
        entries = [entry for own in listed.values() for entry in own]
        is_harmless = all(_stays_inside(entry) for entry in entries)
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    if not is_harmless:
        raise UserError(f"{path} names a file outside of images/.")
    return listed


def _stays_inside(entry: object) -> bool:
    return isinstance(entry, str) and ".." not in entry.split("/") and not entry.startswith("/")
