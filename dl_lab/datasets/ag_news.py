"""AG News: titles and first sentences of news in four classes (X. Zhang, J. Zhao, Y. LeCun, NIPS 2015).

Layout: ag_news_csv/{train,test}.csv with the columns label (1 to 4), title, description; no header.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from dl_lab.datasets.batches import Order, Residence, TensorSplit, fingerprint, shuffled
from dl_lab.datasets.files import data_files, ensure
from dl_lab.datasets.text import Vocabulary, WordEncoder, bags_of_words, basic_english, generated_texts
from dl_lab.types import Dataset, LabelledBatch, UserError

CLASS_NAMES = ("World", "Sports", "Business", "Sci/Tech")
COLUMNS = ("label", "title", "description")


class News(NamedTuple):
    """One row: its class from 0, and title and description in one string."""

    label: int
    text: str


def ag_news(
    input_shape: Sequence[int],
    n_classes: int,
    data_dir: str,
    files: Sequence[Mapping[str, Any]],
    source: Literal["real", "generated"] = "real",
    n_train: int | None = 10_000,
    n_val: int = 1_000,
    n_test: int | None = 1_000,
    split_seed: int = 4242,
    n_generated: int = 1024,
    residence: Residence = "auto",
    workers: int = 2,
    order: Order = shuffled,
) -> Dataset:
    """Bags of words: float (input_shape[0],), 1 for each of the most frequent training words that occurs.

    Feature 0 stands for all other words. The vocabulary is that of the chosen training rows; where they have fewer
    different words, the last features stay 0. files: train.csv and test.csv; "full" where both md5 sums match.
    Splits as `split_rows` draws them.
    """
    size = math.prod(input_shape)
    if n_classes != len(CLASS_NAMES):
        raise ValueError(f"AG News has {len(CLASS_NAMES)} classes, not {n_classes}")
    rows, label, note = chosen_rows(files, data_dir, source, n_train, n_val, n_test, split_seed, n_generated)
    tokens = {split: [basic_english(news.text) for news in chosen] for split, chosen in rows.items()}
    vocabulary = Vocabulary.of(tokens["train"], size)
    columns = {
        split: LabelledBatch(
            bags_of_words([vocabulary.encode(text) for text in tokens[split]], size),
            torch.tensor([news.label for news in chosen]),
        )
        for split, chosen in rows.items()
    }
    splits: dict[str, Any] = {
        split: TensorSplit(c, _as_float, order, residence, workers) for split, c in columns.items()
    }
    content = fingerprint(*[column for split in columns.values() for column in split])
    encoder = WordEncoder("basic_english", vocabulary)
    preprocessing = {"encoder": encoder.plain(), "n_features": size, "class_names": list(CLASS_NAMES)}
    extras = {"vocabulary": vocabulary.words}
    train, val, test = (splits[split] for split in ("train", "val", "test"))
    return Dataset("ag_news", label, train, val, test, content, CLASS_NAMES, note, extras, preprocessing)


def _as_float(batch: LabelledBatch) -> LabelledBatch:
    return LabelledBatch(batch.x.float(), batch.y)


def chosen_rows(
    files: Sequence[Mapping[str, Any]],
    data_dir: str,
    source: Literal["real", "generated"],
    n_train: int | None,
    n_val: int,
    n_test: int | None,
    split_seed: int,
    n_generated: int,
    val_from: Literal["train", "test"] = "test",
) -> tuple[dict[str, list[News]], Literal["full", "part", "generated"], str]:
    """The rows of train, val and test, how much of the release they are, and what must be said about them."""
    if source == "generated":
        return generated_rows(n_generated), "generated", ""
    entries = data_files(files)
    train, test = (read_rows(ensure(file, Path(data_dir))) for file in entries)
    rows = split_rows(train, test, n_train, n_val, n_test, split_seed, val_from)
    official = all(file.state(Path(data_dir)) == "official" for file in entries)
    note = f"{len(rows['train']):,} of {len(train):,} training rows, drawn with seed {split_seed}"
    return rows, "full" if official else "part", note


def read_rows(path: Path) -> list[News]:
    """All rows in file order. Raises UserError naming file and line for a row that is not as published."""
    rows, line = [], 1
    with open(path, "rb") as file:
        reader = csv.reader(_decoded(path, file), strict=True)
        try:
            for row in reader:
                rows.append(_checked(f"{path}, line {line}", row))
                line = reader.line_num + 1
        except csv.Error as error:
            raise UserError(f"{path}, line {line}: the row that starts here has broken quotes ({error}).") from error
    missing = set(range(len(CLASS_NAMES))) - {news.label for news in rows}
    if missing:
        raise UserError(f"{path} has no row of class {', '.join(CLASS_NAMES[label] for label in sorted(missing))}.")
    return rows


def _decoded(path: Path, lines: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}, line {number}: byte {error.start + 1} is not valid UTF-8.") from error


def _checked(where: str, row: Sequence[str]) -> News:
    if len(row) != len(COLUMNS):
        raise UserError(f"{where}: {len(row)} columns instead of {len(COLUMNS)} ({', '.join(COLUMNS)}).")
    if row[0] not in ("1", "2", "3", "4"):
        raise UserError(f"{where}: label {row[0]!r} is not one of 1, 2, 3, 4.")
    return News(int(row[0]) - 1, f"{row[1]} {row[2]}")


def split_rows(
    train: Sequence[News],
    test: Sequence[News],
    n_train: int | None,
    n_val: int,
    n_test: int | None,
    seed: int,
    val_from: Literal["train", "test"] = "test",
) -> dict[str, list[News]]:
    """Both files shuffled by one generator, train first; n_val rows from the start of `val_from`, the others after.

    None: all that is left. Raises ValueError where the files are too short.
    """
    rng = np.random.default_rng(seed)
    train, test = list(train), list(test)
    rng.shuffle(train)  # pyright: ignore[reportArgumentType]
    rng.shuffle(test)  # pyright: ignore[reportArgumentType]
    of_train, of_test = (n_val, 0) if val_from == "train" else (0, n_val)
    if len(train) < of_train + (n_train or 1) or len(test) < of_test + (n_test or 1):
        raise ValueError(
            f"n_train {n_train}, n_val {n_val} (from {val_from}) and n_test {n_test} ask for more than the "
            f"{len(train)} rows of train.csv and the {len(test)} of test.csv"
        )
    kept_train = train[of_train : None if n_train is None else of_train + n_train]
    kept_test = test[of_test : None if n_test is None else of_test + n_test]
    return {"train": kept_train, "val": (train if val_from == "train" else test)[:n_val], "test": kept_test}


def generated_rows(n: int) -> dict[str, list[News]]:
    """Texts of invented words that can be learned: n for training, a quarter of that for validation and test."""
    rng = np.random.default_rng(0)
    sizes = {"train": n, "val": max(n // 4, len(CLASS_NAMES)), "test": max(n // 4, len(CLASS_NAMES))}
    return {
        split: [News(*row) for row in generated_texts(max(size, len(CLASS_NAMES)), len(CLASS_NAMES), rng)]
        for split, size in sizes.items()
    }
