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
from dl_lab.datasets.text import Vocabulary, bags_of_words, basic_english
from dl_lab.types import Dataset, LabelledBatch, UserError

CLASS_NAMES = ("World", "Sports", "Business", "Sci/Tech")
COLUMNS = ("label", "title", "description")
GENERATED_WORDS = 1500  # in the generated texts: more than the usual vocabulary


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
    if source == "generated":
        rows, label, note = generated_rows(n_generated), "generated", ""
    else:
        entries = data_files(files)
        train, test = (read_rows(ensure(file, Path(data_dir))) for file in entries)
        rows = split_rows(train, test, n_train, n_val, n_test, split_seed)
        official = all(file.state(Path(data_dir)) == "official" for file in entries)
        label = "full" if official else "part"
        note = f"{len(rows['train']):,} of {len(train):,} training rows, drawn with seed {split_seed}"
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
    extras = {"vocabulary": vocabulary.words}
    train, val, test = (splits[split] for split in ("train", "val", "test"))
    return Dataset("ag_news", label, train, val, test, content, CLASS_NAMES, note, extras)


def _as_float(batch: LabelledBatch) -> LabelledBatch:
    return LabelledBatch(batch.x.float(), batch.y)


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
    train: Sequence[News], test: Sequence[News], n_train: int | None, n_val: int, n_test: int | None, seed: int
) -> dict[str, list[News]]:
    """Both files shuffled by one generator, train first; the start of it is train, that of test is val, then test.

    None: all that is left. Raises ValueError where the files are too short.
    """
    rng = np.random.default_rng(seed)
    train, test = list(train), list(test)
    rng.shuffle(train)  # pyright: ignore[reportArgumentType]
    rng.shuffle(test)  # pyright: ignore[reportArgumentType]
    if len(train) < (n_train or 1) or len(test) < n_val + (n_test or 1):
        raise ValueError(
            f"n_train {n_train}, n_val {n_val} and n_test {n_test} ask for more than the {len(train)} rows of "
            f"train.csv and the {len(test)} of test.csv"
        )
    end = None if n_test is None else n_val + n_test
    return {"train": train[:n_train], "val": test[:n_val], "test": test[n_val:end]}


def generated_rows(n: int) -> dict[str, list[News]]:
    """Texts of invented words that can be learned: a quarter of a text's words are its class's own."""
    rng = np.random.default_rng(0)
    words = np.array([f"word{i}" for i in range(GENERATED_WORDS)])
    own = words[:200].reshape(len(CLASS_NAMES), -1)

    def draw(size: int) -> list[News]:
        labels = rng.permutation(np.arange(size) % len(CLASS_NAMES))
        return [News(int(label), " ".join([*rng.choice(own[label], 8), *rng.choice(words, 24)])) for label in labels]

    return {
        split: draw(max(size, len(CLASS_NAMES))) for split, size in (("train", n), ("val", n // 4), ("test", n // 4))
    }
