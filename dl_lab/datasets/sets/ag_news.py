"""AG News: titles and first sentences of news in four classes (X. Zhang, J. Zhao, Y. LeCun, NIPS 2015).

Layout: ag_news_csv/{train,test}.csv with the columns label (1 to 4), title, description; no header.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from dl_lab.datasets.batches import AUTO, Loading, Order, TensorSplit, fingerprint, shuffled
from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.delimited import Row, parse_rows, read_text
from dl_lab.datasets.storage import Storage
from dl_lab.datasets.text.encoders import (
    Vocabulary,
    WordEncoder,
    bags_of_words,
    basic_english,
    generate_texts,
)
from dl_lab.datasets.text.texts import HeldOut
from dl_lab.datasets.text.tokens import TextContent
from dl_lab.types import LabelledBatch, UserError

CLASS_NAMES = ("World", "Sports", "Business", "Sci/Tech")
COLUMNS = ("label", "title", "description")
TENTH = HeldOut(n_train=10_000, n_val=1_000, n_test=1_000)


class News(NamedTuple):
    """One row: its class from 0, and title and description in one string."""

    label: int
    text: str


class Selection(NamedTuple):
    """The rows that a data set uses.

    Attributes:
        rows: The rows of each split.
        label: How much of the release they are.
        note: What a reader of the results must know about them.
    """

    rows: dict[str, list[News]]
    label: Literal["full", "part", "generated"]
    note: str


def ag_news(
    input_shape: Sequence[int],
    n_classes: int,
    storage: Storage,
    held_out: HeldOut = TENTH,
    source: Literal["real", "generated"] = "real",
    n_generated: int = 1024,
    loading: Loading = AUTO,
    order: Order = shuffled,
    header: bool = False,
    encoding: str = "utf-8",
) -> Dataset:
    """Return bags of words: float (input_shape[0],), 1 for each of the most frequent training words that occurs.

    Feature 0 stands for all other words. The vocabulary comes from the chosen training rows. Where they have fewer
    different words, the last features stay 0.

    Args:
        input_shape: [words of the vocabulary].
        n_classes: 4.
        storage: Where train.csv and test.csv lie. The label is "full" where both md5 sums match.
        held_out: Which rows are used, and which file the validation rows come from.
        source: "real", or "generated" for invented words that a model can learn.
        n_generated: Training rows of the generated data set.
        loading: Where the tensors reside.
        order: The order of a training epoch.
        header: Whether the files start with a line of column names, as Kaggle's copy does.
        encoding: The encoding of the files.

    Raises:
        UserError: A row is not as published; the message names file and line.
        ValueError: AG News has another number of classes, or fewer rows than `held_out` asks for.
    """
    size = math.prod(input_shape)
    if n_classes != len(CLASS_NAMES):
        raise ValueError(f"AG News has {len(CLASS_NAMES)} classes, not {n_classes}")
    rows, label, note = select_rows(storage, source, held_out, n_generated, header, encoding)
    tokens: dict[str, list[list[str]]] = {}
    for split, chosen in rows.items():
        tokens[split] = [basic_english(news.text) for news in chosen]
    vocabulary = Vocabulary.of(tokens["train"], size)
    splits: dict[str, TensorSplit] = {}
    content: list[torch.Tensor] = []
    for split, chosen in rows.items():
        bags = bags_of_words([vocabulary.encode(text) for text in tokens[split]], size)
        batch = LabelledBatch(bags, torch.tensor([news.label for news in chosen]))
        splits[split] = TensorSplit(batch, _to_float, order, loading.residence, loading.workers)
        content += batch
    encoder = WordEncoder("basic_english", vocabulary)
    return Dataset(
        "ag_news",
        label,
        splits["train"],
        splits["val"],
        splits["test"],
        fingerprint=fingerprint(*content),
        class_names=CLASS_NAMES,
        note=note,
        preprocessing={"encoder": encoder.plain(), "n_features": size, "class_names": list(CLASS_NAMES)},
        content=TextContent(vocabulary.words, encoder),
    )


def _to_float(batch: LabelledBatch) -> LabelledBatch:
    return LabelledBatch(batch.x.float(), batch.y)


def select_rows(
    storage: Storage,
    source: Literal["real", "generated"],
    held_out: HeldOut,
    n_generated: int,
    header: bool,
    encoding: str,
) -> Selection:
    """Read or generate the rows of train, val and test. The arguments are those of `ag_news`."""
    if source == "generated":
        return Selection(generate_rows(n_generated), "generated", "")
    train, test = (read_rows(storage.ensure(file), header, encoding) for file in storage.entries())
    rows = split_rows(train, test, held_out)
    note = f"{len(rows['train']):,} of {len(train):,} training rows, drawn with seed {held_out.seed}"
    return Selection(rows, "full" if storage.is_official() else "part", note)


def read_rows(path: Path, header: bool = False, encoding: str = "utf-8") -> list[News]:
    """Read all rows in file order.

    Args:
        path: The CSV file.
        header: Whether its first line holds the names of the columns.
        encoding: The encoding of the file.

    Raises:
        UserError: A row is not as published, or a class has no row; the message names the file and the line.
    """
    rows: list[News] = []
    for i, row in enumerate(parse_rows(read_text(path, encoding), str(path))):
        if i == 0:
            _check_first_row(path, row, header)
        if i > 0 or not header:
            rows.append(_read_news(f"{path}, line {row.line}", row.cells))
    missing = set(range(len(CLASS_NAMES))) - {news.label for news in rows}
    if missing:
        raise UserError(f"{path} has no row of class {', '.join(CLASS_NAMES[label] for label in sorted(missing))}.")
    return rows


def _check_first_row(path: Path, row: Row, header: bool) -> None:
    """Raise a UserError where the first row is a header and must not be, or the other way round."""
    if _is_header(row) == header:
        return
    start = ",".join(row.cells)[:60]
    if header:
        raise UserError(f"{path}, line 1 ({start}) is no header: set dataset.header=false.")
    raise UserError(f"{path}, line 1 ({start}) is a header, but dataset.header is false: set dataset.header=true.")


def _is_header(row: Row) -> bool:
    """Whether the first of three cells is a name: `Class Index`, `label`."""
    return len(row.cells) == len(COLUMNS) and row.cells[0].strip().replace(" ", "").isalpha()


def _read_news(where: str, row: Sequence[str]) -> News:
    if len(row) != len(COLUMNS):
        raise UserError(f"{where}: {len(row)} columns instead of {len(COLUMNS)} ({', '.join(COLUMNS)}).")
    if row[0].strip() not in ("1", "2", "3", "4"):
        raise UserError(f"{where}: label {row[0]!r} is not one of 1, 2, 3, 4.")
    return News(int(row[0]) - 1, f"{row[1]} {row[2]}")


def split_rows(train: Sequence[News], test: Sequence[News], held_out: HeldOut) -> dict[str, list[News]]:
    """Divide the rows of both files into train, val and test.

    One generator shuffles the training rows, then the test rows. Validation takes the first rows of its file.

    Raises:
        ValueError: The files have fewer rows than `held_out` asks for.
    """
    rng = np.random.default_rng(held_out.seed)
    train_rows = list(train)
    test_rows = list(test)
    rng.shuffle(train_rows)  # pyright: ignore[reportArgumentType]  # NumPy's stubs want an array; any list works
    rng.shuffle(test_rows)  # pyright: ignore[reportArgumentType]  # as above
    first = {"train": 0, "test": 0, held_out.val_from: held_out.n_val}  # the first row that is not for validation
    n_train = held_out.n_train
    n_test = held_out.n_test
    if len(train) < first["train"] + (n_train or 1) or len(test) < first["test"] + (n_test or 1):
        raise ValueError(
            f"n_train {n_train}, n_val {held_out.n_val} (from {held_out.val_from}) and n_test {n_test} ask for more "
            f"than the {len(train)} rows of train.csv and the {len(test)} of test.csv"
        )
    val_rows = train_rows if held_out.val_from == "train" else test_rows
    return {
        "train": train_rows[first["train"] :][:n_train],
        "val": val_rows[: held_out.n_val],
        "test": test_rows[first["test"] :][:n_test],
    }


def generate_rows(n: int) -> dict[str, list[News]]:
    """Return texts of invented words that a model can learn: n for training, a quarter of that for val and test."""
    rng = np.random.default_rng(0)
    rows: dict[str, list[News]] = {}
    for split, size in {"train": n, "val": n // 4, "test": n // 4}.items():
        texts = generate_texts(max(size, len(CLASS_NAMES)), len(CLASS_NAMES), rng)
        rows[split] = [News(label, text) for label, text in texts]
    return rows
