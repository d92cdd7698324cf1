"""Folders of images: root/class/*.jpg, split by share, or root/<split>/class/*.jpg; Food-11 and Food-101 are such.

Decoded once into a uint8 tensor that later runs map (dl_lab.datasets.image_files).
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dl_lab.datasets.augmentation import Step
from dl_lab.datasets.batches import Residence
from dl_lab.datasets.download import extract
from dl_lab.datasets.files import data_files, ensure
from dl_lab.datasets.image_files import Decoding, Resize, Unreadable, find_images, read_images
from dl_lab.datasets.images import Source, generated_arrays, labelled_images
from dl_lab.types import Dataset, UserError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class _Listing:
    """The files of a data set, in a fixed order: their classes (n,), and the rows of each split."""

    root: Path
    paths: list[Path]
    labels: np.ndarray
    rows: dict[str, np.ndarray]
    class_names: tuple[str, ...]


def image_folder(
    folder: str,
    input_shape: Sequence[int],
    n_classes: int,
    splits: Mapping[str, float] | Mapping[str, str],
    data_dir: str,
    cache_dir: str,
    name: str = "image_folder",
    files: Sequence[Mapping[str, Any]] = (),
    source: Source = "real",
    class_names: Sequence[str] = (),
    split_seed: int = 42,
    n_per_class: int | None = None,
    n_official: int | None = None,
    resize: Resize = "none",
    shorter_side: int | None = None,
    convert: bool = False,
    unreadable: Unreadable = "error",
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    augment: Mapping[str, Step | None] | None = None,
    n_generated: int = 256,
    residence: Residence = "auto",
    workers: int = 2,
) -> Dataset:
    """Images in [0, 1], or normalised where mean and std (by channel, units of 1) are given.

    folder: relative to data_dir. splits: {train, val, test} as shares of each class (drawn by split_seed), or as the
    names of three folders that hold the class folders. class_names: the class folders and their order; none given: all,
    sorted. n_per_class: only so many of each class (of each split's folder), drawn by split_seed. n_official: how many
    images the official release has; another number is labelled "part". unreadable: "skip" leaves out files that cannot
    be decoded, with a warning that names them.
    Raises UserError naming the file or folder: no class folder, one without images, another number of classes, a file
    that cannot be decoded, images of another shape. ValueError for settings that make no sense.
    """
    decoding = Decoding(_three(input_shape), resize, shorter_side, convert)
    if set(splits) != set(SPLITS):
        raise ValueError(f"splits has {', '.join(splits)}, not train, val and test")
    names = tuple(class_names)
    if source == "generated":
        made = generated_arrays(n_generated, input_shape, n_classes)
        return labelled_images(
            name, made, "generated", input_shape=input_shape, n_classes=n_classes, divisor=255, mean=mean, std=std,
            augment=augment, residence=residence, workers=workers, class_names=names,
        )  # fmt: skip
    root = Path(data_dir).expanduser() / Path(folder).expanduser()
    if not root.is_dir():
        raise UserError(f"The folder {root} does not exist: put the images there, or use dataset.source=generated.")
    rng = np.random.default_rng(split_seed)
    shares = [value for value in splits.values() if isinstance(value, int | float)]
    if len(shares) == 3:
        listing = _by_share(root, names, n_classes, {k: float(v) for k, v in splits.items()}, n_per_class, rng)
    elif not shares:
        listing = _by_folder(root, names, n_classes, {k: str(v) for k, v in splits.items()}, n_per_class, rng)
    else:
        raise ValueError(f"splits {dict(splits)} mixes shares and folders")
    return _built(
        name, listing, decoding, Path(cache_dir), unreadable, n_official=n_official, limited=n_per_class, mean=mean,
        std=std, augment=augment, residence=residence, workers=workers,
    )  # fmt: skip


def food101(
    input_shape: Sequence[int],
    n_classes: int,
    data_dir: str,
    cache_dir: str,
    files: Sequence[Mapping[str, Any]],
    source: Source = "real",
    val_share: float = 0.1,
    split_seed: int = 42,
    n_per_class: int | None = None,
    resize: Resize = "crop",
    shorter_side: int | None = None,
    convert: bool = True,
    unreadable: Unreadable = "error",
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    augment: Mapping[str, Step | None] | None = None,
    n_generated: int = 256,
    residence: Residence = "auto",
    workers: int = 2,
) -> Dataset:
    """Food-101 in torchvision's layout (food-101/images, food-101/meta); fetched where it is not there.

    val_share of each class's training images is held out by split_seed; test is the official one. n_per_class: only so
    many of each class of the official splits. The other arguments are those of image_folder.
    Source: Bossard, Guillaumin, Van Gool, "Food-101 - mining discriminative components with random forests", ECCV 2014.
    """
    decoding = Decoding(_three(input_shape), resize, shorter_side, convert)
    how = {"mean": mean, "std": std, "augment": augment, "residence": residence, "workers": workers}
    if source == "generated":
        made = generated_arrays(n_generated, input_shape, n_classes)
        return labelled_images(
            "food101", made, "generated", input_shape=input_shape, n_classes=n_classes, divisor=255, **how
        )
    root = _food101_root(Path(data_dir).expanduser(), files)
    rng = np.random.default_rng(split_seed)
    listing = _food101_listing(root, n_classes, val_share, n_per_class, rng)
    return _built(
        "food101", listing, decoding, Path(cache_dir), unreadable, n_official=101_000, limited=n_per_class, **how
    )


def _three(input_shape: Sequence[int]) -> tuple[int, int, int]:
    if len(input_shape) != 3:
        raise ValueError(f"input_shape {list(input_shape)} is not [channels, height, width]")
    channels, height, width = input_shape
    return channels, height, width


def _built(
    name: str,
    listing: _Listing,
    decoding: Decoding,
    cache_dir: Path,
    unreadable: Unreadable,
    *,
    n_official: int | None,
    limited: int | None,
    **how: Any,
) -> Dataset:
    images, broken = read_images(listing.paths, listing.root, decoding, cache_dir, unreadable)
    readable = np.array([str(path.relative_to(listing.root)) not in broken for path in listing.paths])
    if broken:
        reasons = "; ".join(f"{file} {reason}" for file, reason in broken.items())
        warnings.warn(f"Left out {len(broken)} images of {listing.root} that cannot be read: {reasons}.", stacklevel=3)
    rows = {split: chosen[readable[chosen]] for split, chosen in listing.rows.items()}
    arrays = {split: (_rows_of(images, chosen), listing.labels[chosen]) for split, chosen in rows.items()}
    n, notes = sum(map(len, rows.values())), []
    if limited is not None:
        notes.append(f"at most {limited:,} images of each class")
    if broken:
        notes.append(f"{len(broken)} unreadable left out")
    if n_official is not None and n != n_official:
        notes.append(f"{n:,} of {n_official:,} images")
    return labelled_images(
        name,
        arrays,
        "part" if notes else "full",
        input_shape=decoding.input_shape,
        n_classes=len(listing.class_names),
        divisor=255,
        class_names=listing.class_names,
        note=", ".join(notes),
        where=str(listing.root),
        **how,
    )


def _rows_of(images: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """images[chosen]; without a copy where the rows are neighbours."""
    if len(chosen) and chosen[-1] - chosen[0] == len(chosen) - 1:
        return images[chosen[0] : chosen[-1] + 1]
    return images[chosen]


# -- which files
# ------------------------------------------------------------------------------------------------------


def _by_share(
    root: Path,
    class_names: tuple[str, ...],
    n_classes: int,
    shares: Mapping[str, float],
    n_per_class: int | None,
    rng: np.random.Generator,
) -> _Listing:
    if min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-9:
        raise ValueError(f"splits {dict(shares)} are not positive shares that add up to 1")
    names = _classes(root, class_names, n_classes)
    paths, labels = _files(root, names, n_per_class, rng)
    rows: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    for label, name in enumerate(names):
        own = rng.permutation(np.flatnonzero(labels == label))
        n_val, n_test = (round(len(own) * shares[split]) for split in ("val", "test"))
        if min(n_val, n_test, len(own) - n_val - n_test) < 1:
            raise UserError(f"{root / name} has {len(own)} images: too few for splits {dict(shares)}.")
        for split, part in zip(
            SPLITS, np.split(own[::-1], [len(own) - n_val - n_test, len(own) - n_test]), strict=True
        ):
            rows[split].append(part)
    return _Listing(root, paths, labels, {k: np.sort(np.concatenate(v)) for k, v in rows.items()}, names)


def _by_folder(
    root: Path,
    class_names: tuple[str, ...],
    n_classes: int,
    folders: Mapping[str, str],
    n_per_class: int | None,
    rng: np.random.Generator,
) -> _Listing:
    paths: list[Path] = []
    labels: list[np.ndarray] = []
    rows: dict[str, np.ndarray] = {}
    names = class_names
    for split in SPLITS:
        folder = (root / folders[split]).resolve()
        if not folder.is_relative_to(root.resolve()):
            raise UserError(f"splits.{split} {folders[split]!r} would lie outside {root}.")
        if not folder.is_dir():
            raise UserError(f"{root} has no folder {folders[split]!r} for the {split} split.")
        names = _classes(root / folders[split], names, n_classes)
        own, own_labels = _files(root / folders[split], names, n_per_class, rng)
        rows[split] = np.arange(len(paths), len(paths) + len(own))
        paths += own
        labels.append(own_labels)
    return _Listing(root, paths, np.concatenate(labels), rows, names)


def _classes(root: Path, wanted: tuple[str, ...], n_classes: int) -> tuple[str, ...]:
    """The class folders. Raises UserError where they are not those wanted, or not as many as declared."""
    found = tuple(sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(".")))
    if not found:
        raise UserError(f"{root} has no class folders: images belong into {root}/<class>/.")
    missing = [name for name in wanted if name not in found]
    if missing:
        raise UserError(f"{root} has no class folder {missing[0]!r}; it has {_shortened(found)}.")
    names = wanted or found
    if len(names) != n_classes:
        raise UserError(
            f"{root} has {len(names)} class folders ({_shortened(names)}), but dataset.n_classes is {n_classes}."
        )
    return names


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _files(
    root: Path, class_names: Sequence[str], n_per_class: int | None, rng: np.random.Generator
) -> tuple[list[Path], np.ndarray]:
    found = [_some(find_images(root / name), n_per_class, rng) for name in class_names]
    labels = np.repeat(np.arange(len(found)), [len(paths) for paths in found])
    return [path for paths in found for path in paths], labels


def _some(paths: list[Path], n: int | None, rng: np.random.Generator) -> list[Path]:
    if n is not None and n < 1:
        raise ValueError(f"n_per_class {n} is not at least 1")
    if n is None or n >= len(paths):
        return paths
    return [paths[i] for i in np.sort(rng.permutation(len(paths))[:n])]


# -- Food-101
# ------------------------------------------------------------------------------------------------------


def _food101_root(data_dir: Path, files: Sequence[Mapping[str, Any]]) -> Path:
    root = data_dir / "food-101"
    if not (root / "meta").is_dir():
        (archive,) = data_files(files)
        unpacked = extract(ensure(archive, data_dir), data_dir / "food-101.unpacked")
        (unpacked / "food-101").rename(root)
        unpacked.rmdir()
    return root


def _food101_listing(
    root: Path, n_classes: int, val_share: float, n_per_class: int | None, rng: np.random.Generator
) -> _Listing:
    if not 0 < val_share < 1:
        raise ValueError(f"val_share {val_share} is not between 0 and 1")
    meta = {split: _meta(root / "meta" / f"{split}.json") for split in ("train", "test")}
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
        own = _some(sorted(root / "images" / f"{entry}.jpg" for entry in meta["train"][name]), n_per_class, rng)
        order = rng.permutation(len(own))
        n_val = round(len(own) * val_share)
        if not 0 < n_val < len(own):
            raise UserError(f"{root}: class {name} has {len(own)} training images: too few for val_share {val_share}.")
        add("train", [own[i] for i in np.sort(order[n_val:])], label)
        held_out.append(([own[i] for i in np.sort(order[:n_val])], label))
    for files, label in held_out:
        add("val", files, label)
    for label, name in enumerate(names):
        own = sorted(root / "images" / f"{entry}.jpg" for entry in meta["test"][name])
        add("test", _some(own, n_per_class, rng), label)
    return _Listing(root, paths, np.array(labels), {k: np.array(v) for k, v in rows.items()}, names)


def _meta(path: Path) -> dict[str, list[str]]:
    """{class: ["class/number"]}; the names must stay below images/. Raises UserError."""
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        entries = [entry for own in listed.values() for entry in own]
        harmless = all(isinstance(e, str) and ".." not in e.split("/") and not e.startswith("/") for e in entries)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    if not harmless:
        raise UserError(f"{path} names a file outside of images/.")
    return listed
