"""Your own texts: a CSV or Parquet file with a column of texts and a column of labels."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from dl_lab.datasets.batches import Order, shuffled
from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.delimited import Table, check_label
from dl_lab.datasets.rows import SPLITS, Given, Rows
from dl_lab.datasets.storage import Storage
from dl_lab.datasets.tables.reading import Format, Stamp, cells_of, find_file, read_tables, stamp_of
from dl_lab.datasets.text.encoders import generate_texts
from dl_lab.datasets.text.texts import Texts
from dl_lab.datasets.text.tokens import token_dataset
from dl_lab.types import UserError


class LabelledTexts(NamedTuple):
    """Texts and the class of each one (n,) int64."""

    texts: list[str]
    labels: np.ndarray


class TextTable(NamedTuple):
    """A table that was read: its rows, the names of the classes, and the class of each row (rows,) int64."""

    content: Table
    class_names: tuple[str, ...]
    labels: np.ndarray


def text_table(
    path: str,
    text: str,
    label: str,
    n_classes: int,
    vocabulary_size: int,
    length: int,
    texts: Texts,
    format: Format,
    rows: Rows,
    storage: Storage,
    source: Literal["real", "generated"] = "real",
    n_generated: int = 512,
    order: Order = shuffled,
) -> Dataset:
    """Return the texts of a table as TokenBatch. The vocabulary comes from the training rows.

    Args:
        path: A CSV or Parquet file with a header, relative to the current folder or to the data folder.
        text: The column of texts.
        label: The column of labels. The classes are its different values, sorted.
        n_classes: The number of classes; the config learns it from the table.
        vocabulary_size: The most words that the vocabulary may have, the specials included.
        length: The most tokens that a text may have; `texts.keep` says which end of a longer text stays.
        texts: How texts become tokens.
        format: How the file is written.
        rows: How rows become train, val and test.
        storage: The data folder.
        source: "real", or "generated" for invented words that a model can learn.
        n_generated: Training rows of the generated table.
        order: The order of a training epoch.

    Raises:
        UserError: A row has no text or no label, or a class has no training row; the message names file and line.
    """
    layout = texts.layout(length)
    if source == "generated":
        class_names = tuple(f"class {i}" for i in range(n_classes))
        parts = _generate(n_generated, n_classes)
        about: list[str] = []
    else:
        table = _read_once(path, text, label, format, rows, storage.data_dir)
        class_names = table.class_names
        if len(class_names) != n_classes:
            raise UserError(
                f"{table.content.where} has {len(class_names)} classes, but the config says {n_classes}: it has"
                " changed."
            )
        parts = _divide(table, text, rows)
        sizes = np.bincount(table.labels)
        counts = ", ".join(f"{name} {n}" for name, n in zip(class_names, sizes, strict=True))
        about = [f"{text}: texts", f"{label}: labels, {n_classes} classes ({counts})"]
    labelled = {split: (part.texts, torch.from_numpy(part.labels)) for split, part in parts.items()}
    encoded, encoder = texts.encode(labelled, vocabulary_size)
    return token_dataset(
        "text_table",
        encoded,
        encoder,
        layout,
        label="generated" if source == "generated" else "full",
        class_names=class_names,
        order=order,
        about=about,
        cleaning={"clean_html": texts.clean_html, "text_column": text},
    )


def learn(
    path: str,
    text: str,
    label: str,
    format: Format,
    rows: Rows,
    storage: Storage,
    **_: object,
) -> dict[str, int]:
    """Return what the config takes from the table: n_classes."""
    return {"n_classes": len(_read_once(path, text, label, format, rows, storage.data_dir).class_names)}


def _divide(table: TextTable, text: str, rows: Rows) -> dict[str, LabelledTexts]:
    """Return the texts of each split. Raise a UserError where a class has no training row."""
    chosen = rows(len(table.labels), table.labels, lambda name: cells_of(table.content, name))
    cells = cells_of(table.content, text)
    parts: dict[str, LabelledTexts] = {}
    for split in SPLITS:
        parts[split] = LabelledTexts([cells[i] for i in chosen[split]], table.labels[chosen[split]])
    absent = sorted(set(range(len(table.class_names))) - set(parts["train"].labels.tolist()))
    if absent:
        raise UserError(f"{table.content.where}: the class {table.class_names[absent[0]]!r} has no training row.")
    return parts


def _read_once(path: str, text: str, label: str, format: Format, rows: Rows, data_dir: str) -> TextTable:
    """Read a table once for the config and for the data set, as long as its files do not change."""
    names = [path]
    if isinstance(rows, Given):
        names += rows.paths
    stamps = tuple(stamp_of(find_file(name, data_dir)) for name in names)
    return _read(stamps, text, label, format)


@functools.lru_cache(maxsize=2)
def _read(stamps: tuple[Stamp, ...], text: str, label: str, format: Format) -> TextTable:
    content = read_tables([Path(stamp.path) for stamp in stamps], format)
    text_place, label_place = content.place(text), content.place(label)
    for row in content.rows:
        where = f"{content.where}, line {row.line}"
        if not row.cells[text_place].strip():
            raise UserError(f"{where}: the column {text} is empty.")
        check_label(row.cells[label_place], label, where)
    labels = cells_of(content, label)
    names = sorted(set(labels))
    if len(names) < 2:
        raise UserError(f"{content.where}: the label {label} is {names[0]!r} in every row: there is nothing to learn.")
    if len(names) > 0.5 * len(labels):
        raise UserError(
            f"{content.where}: the column {label} has {len(names)} different labels in {len(labels)} rows: too many for"
            " classes."
        )
    numbers = {name: number for number, name in enumerate(names)}
    return TextTable(content, tuple(names), np.array([numbers[one] for one in labels], dtype=np.int64))


def _generate(n: int, n_classes: int) -> dict[str, LabelledTexts]:
    """Return texts of invented words: n for training, a quarter of that for val and test."""
    rng = np.random.default_rng(0)
    parts: dict[str, LabelledTexts] = {}
    for split, size in {"train": n, "val": n // 4, "test": n // 4}.items():
        rows = generate_texts(max(size, n_classes), n_classes, rng)
        labels = np.array([label for label, _ in rows], dtype=np.int64)
        parts[split] = LabelledTexts([text for _, text in rows], labels)
    return parts
