"""The image files of a data set, with the class and the split of each.

There are three layouts: `<folder>/<class>/*.jpg` with splits drawn as shares, `<folder>/<split>/<class>/*.jpg`, and a
CSV table with the columns `path` and `label`, and `split` where the splits are given.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from dl_lab.datasets.delimited import check_label
from dl_lab.datasets.images.layout import Layout, Splits
from dl_lab.datasets.images.walk import NOT_READ, SUFFIXES, Found, count_kinds, find_images, identity_of, is_folder
from dl_lab.types import UserError, count

SPLITS = ("train", "val", "test")
Some = TypeVar("Some")


@dataclass(frozen=True)
class Item:
    """One image: its file, its class, and its split ("" where splits are drawn)."""

    path: Path
    label: str
    split: str = ""


@dataclass
class Listing:
    """The files of a data set in a fixed order.

    Attributes:
        root: The folder.
        paths: The file of each image.
        labels: (n,) the number of each image's class.
        rows: Split -> the numbers of its images.
        class_names: The classes by number.
        left_out: Words for the note about images and classes that are left out.
        remarks: Other words for the note.
    """

    root: Path
    paths: list[Path]
    labels: np.ndarray
    rows: dict[str, np.ndarray]
    class_names: tuple[str, ...]
    left_out: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def list_images(root: Path, layout: Layout, splits: Splits, n_classes: int) -> Listing:
    """List the images of a folder, with their classes and splits.

    Args:
        root: The folder.
        layout: How the images are laid out.
        splits: Where the images of train, val and test come from.
        n_classes: The number of classes that the data set must have.

    Raises:
        UserError: A file or folder does not fit; the message names it.
        ValueError: A setting makes no sense.
    """
    shares = splits.shares
    names = splits.names
    left_out: list[str] = []
    remarks: list[str] = []
    if layout.table is not None:
        items = _read_table(root, layout.table, names)
        present = {item.label for item in items}
    else:
        items, present = _list_folders(root, layout.class_names, names, left_out, remarks)
    class_names = _order_classes(root, present, layout.class_names, n_classes)
    others = sorted(present - set(class_names))
    if others:
        left_out.append(f"classes left out: {_shorten(others)}")
    items = [item for item in items if item.label in class_names]
    _refuse_files_of_two_classes(items)
    rng = np.random.default_rng(splits.seed)
    items = _limit_classes(items, class_names, layout.n_per_class, rng)
    number = {name: i for i, name in enumerate(class_names)}
    labels = np.array([number[item.label] for item in items], dtype=np.int64)
    rows = {split: np.flatnonzero([item.split == split for item in items]) for split in names}
    if len(shares) == 3:
        rows = _draw_parts(np.arange(len(items)), labels, shares, layout.stratified, class_names, root, rng)
    elif shares:
        parts = {"train": 1 - shares["val"], "val": shares["val"]}
        rows |= _draw_parts(rows["train"], labels, parts, layout.stratified, class_names, root, rng)
    for split, chosen in rows.items():
        missing = [name for i, name in enumerate(class_names) if not (labels[chosen] == i).any()]
        if missing and split == "train":
            raise UserError(
                f"{root}: the training split has no image of class {missing[0]!r}, which another split has. Add some, "
                "or name the wanted classes in dataset.layout.class_names."
            )
        if missing:
            remarks.append(f"no {split} image of class {_shorten(missing)}")
    return Listing(root, [item.path for item in items], labels, rows, class_names, left_out, remarks)


def _list_folders(
    root: Path, class_names: Sequence[str], names: Mapping[str, str], left_out: list[str], remarks: list[str]
) -> tuple[list[Item], set[str]]:
    """Return every image below the wanted class folders of every split, and the names of all class folders."""
    items: list[Item] = []
    present: set[str] = set()
    found = Found()
    stray: list[Path] = []
    folders = {split: _find_split_folder(root, split, name) for split, name in names.items()} or {"": root}
    for split, folder in folders.items():
        own_names = _list_class_folders(folder)
        present.update(own_names)
        for name in own_names:
            if class_names and name not in class_names:
                continue
            own = find_images(folder / name)
            if not own.paths:
                also = f" ({count_kinds(own.not_read)} cannot be read)" if own.not_read else ""
                raise UserError(f"{folder / name} has no image{also}. These are read: {', '.join(SUFFIXES)}.")
            items += [Item(path, name, split) for path in own.paths]
            found.add(own)
        for entry in sorted(folder.iterdir()):
            if entry.suffix.lower() in (*SUFFIXES, *NOT_READ) and entry.is_file() and not entry.name.startswith("."):
                stray.append(entry)
    left_out += found.describe_omissions()
    if stray:
        left_out.append(f"{count(len(stray), 'image')} outside of class folders left out ({stray[0].name}, ...)")
    remarks += found.remarks()
    return items, present


def _find_split_folder(root: Path, split: str, name: str) -> Path:
    """Return the folder of one split. It may be a link to anywhere, but its name may not lead out of the root."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise UserError(f"splits.{split} {name!r} would lie outside {root}.")
    if not (root / name).is_dir():
        raise UserError(f"{root} has no folder {name!r} for the {split} split.")
    return root / name


def _list_class_folders(folder: Path) -> list[str]:
    names = sorted(entry.name for entry in os.scandir(folder) if entry.name[0] != "." and is_folder(entry))
    if not names:
        raise UserError(f"{folder} has no class folders: images belong in {folder}/<class>/.")
    return names


def _read_table(root: Path, table: str, names: Mapping[str, str]) -> list[Item]:
    """Read the rows of a CSV file. Paths are relative to the table's folder.

    Raises:
        UserError: A column or a cell is missing, a split is unknown, or a file comes twice or does not exist.
    """
    path = root / table
    wanted = ["path", "label"] + (["split"] if names else [])
    items: list[Item] = []
    first: dict[str, int] = {}
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [column for column in wanted if column not in (reader.fieldnames or [])]
            if missing:
                has = ", ".join(reader.fieldnames or []) or "nothing"
                raise UserError(f"{path}, line 1: there is no column {missing[0]!r}; the header has {has}.")
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if None in row or any(row[column] is None or not row[column].strip() for column in wanted):
                    n_columns = len(reader.fieldnames or [])
                    raise UserError(f"{where}: the row does not have one cell for each of the {n_columns} columns.")
                check_label(row["label"], "label", where)
                image = path.parent / row["path"].strip()
                given = row["split"].strip() if names else ""
                if names and given not in names.values():
                    raise UserError(
                        f"{where}: the split {given!r} is not one of {', '.join(names.values())} (dataset.splits)."
                    )
                if row["path"] in first:
                    raise UserError(f"{where}: {row['path']} is already in line {first[row['path']]}.")
                if not image.is_file():
                    raise UserError(f"{where}: the file {image} does not exist.")
                first[row["path"]] = reader.line_num
                for split in [split for split, name in names.items() if name == given] or [""]:
                    items.append(Item(image, row["label"].strip(), split))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"The table {path} cannot be read: {error}.") from error
    if not items:
        raise UserError(f"{path} has no rows.")
    return items


def _order_classes(root: Path, present: set[str], wanted: Sequence[str], n_classes: int) -> tuple[str, ...]:
    """Return the classes in their order. Raise a UserError if one is missing, or if their number is another one."""
    found = sorted(present)
    missing = [name for name in wanted if name not in present]
    if missing:
        raise UserError(f"{root} has no class {missing[0]!r}; it has {_shorten(found)}.")
    names = tuple(wanted) or tuple(found)
    if len(names) != n_classes:
        raise UserError(f"{root} has {len(names)} classes ({_shorten(names)}), but dataset.n_classes is {n_classes}.")
    return names


def _shorten(names: Sequence[str]) -> str:
    words = ", ".join(names[:12])
    return f"{words} and {len(names) - 12} more" if len(names) > 12 else words


def _refuse_files_of_two_classes(items: Sequence[Item]) -> None:
    """Raise a UserError if one file, by links, belongs to two classes of a split."""
    first: dict[tuple[str, tuple[int, int]], Item] = {}
    for item in items:
        identity = identity_of(item.path)
        if identity is None:
            continue
        other = first.setdefault((item.split, identity), item)
        if other.label != item.label:
            raise UserError(f"{item.path} is the same file as {other.path}: an image belongs to one class only.")


# -- drawing --


def _limit_classes(
    items: Sequence[Item], class_names: Sequence[str], n_per_class: int | None, rng: np.random.Generator
) -> list[Item]:
    """Return the items in the order of splits and classes, at most n_per_class of each class."""
    groups: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        groups.setdefault((item.split, item.label), []).append(item)
    kept: list[Item] = []
    for split in ("", *SPLITS):
        for label in class_names:
            kept += draw_some(groups.get((split, label), []), n_per_class, rng)
    return kept


def draw_some(items: list[Some], n: int | None, rng: np.random.Generator) -> list[Some]:
    """Draw at most n of the items. They keep their order."""
    if n is None or n >= len(items):
        return items
    return [items[i] for i in np.sort(rng.permutation(len(items))[:n])]


def _draw_parts(
    rows: np.ndarray,
    labels: np.ndarray,
    shares: Mapping[str, float],
    stratified: bool,
    class_names: Sequence[str],
    root: Path,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Divide rows by shares, within every class or all together. Each part is sorted."""
    groups = [rows[labels[rows] == label] for label in range(len(class_names))] if stratified else [rows]
    parts: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS if split in shares}
    for i, group in enumerate(groups):
        own = rng.permutation(group)
        sizes = {split: round(len(own) * share) for split, share in shares.items() if split != "train"}
        sizes["train"] = len(own) - sum(sizes.values())
        if min(sizes.values()) < 1:
            where = f"{root / class_names[i]}" if stratified else f"{root}"
            raise UserError(f"{where} has {count(len(own), 'image')}: too few for splits {dict(shares)}.")
        ends = np.cumsum([sizes[split] for split in parts])[:-1]
        for split, part in zip(parts, np.split(own[::-1], ends), strict=True):
            parts[split].append(part)
    return {split: np.sort(np.concatenate(own)) for split, own in parts.items()}
