"""AG News as sequences of tokens: the rows, splits and generated twin of ag_news.py, cut and padded to one length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from dl_lab.datasets.ag_news import CLASS_NAMES, generated_rows, read_rows, split_rows
from dl_lab.datasets.batches import Order, Residence, TensorSplit, fingerprint, shuffled
from dl_lab.datasets.files import data_files, ensure
from dl_lab.datasets.text import PADDING, UNKNOWN, Vocabulary, basic_english, padded
from dl_lab.types import Dataset, TokenBatch


def ag_news_tokens(
    vocabulary_size: int,
    length: int,
    n_classes: int,
    data_dir: str,
    files: Sequence[Mapping[str, Any]],
    source: Literal["real", "generated"] = "real",
    n_train: int | None = 10_000,
    n_val: int = 1_000,
    n_test: int | None = None,
    split_seed: int = 4242,
    n_generated: int = 1024,
    residence: Residence = "auto",
    workers: int = 2,
    order: Order = shuffled,
) -> Dataset:
    """Texts as TokenBatch: the first `length` tokens, padded behind; vocabulary of the chosen training rows.

    vocabulary_size: at most, with the unknown word (0) and the padding (1). files: train.csv and test.csv; "full"
    where both md5 sums match. n_train, n_test: null for all that is there.
    """
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
    vocabulary = Vocabulary.of(tokens["train"], vocabulary_size, (UNKNOWN, PADDING))
    columns = {
        split: TokenBatch(
            *padded([vocabulary.encode(text) for text in tokens[split]], length),
            torch.tensor([news.label for news in chosen]),
        )
        for split, chosen in rows.items()
    }
    splits = {split: TensorSplit(c, _as_indices, order, residence, workers) for split, c in columns.items()}
    content = fingerprint(*[column for split in columns.values() for column in split])
    extras = {"vocabulary": vocabulary.words}
    train, val, test = (splits[split] for split in ("train", "val", "test"))
    return Dataset("ag_news", label, train, val, test, content, CLASS_NAMES, note, extras)


def _as_indices(batch: TokenBatch) -> TokenBatch:
    return TokenBatch(batch.x.long(), batch.mask, batch.y)
