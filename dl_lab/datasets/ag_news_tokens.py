"""AG News as sequences of tokens: the rows, splits and generated twin of ag_news.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch

from dl_lab.datasets.ag_news import CLASS_NAMES, chosen_rows
from dl_lab.datasets.batches import Order, shuffled
from dl_lab.datasets.text import PADDING, UNKNOWN, Tokenizer, train_encoder
from dl_lab.datasets.tokens import End, Layout, Ragged, Side, pad_number, token_dataset
from dl_lab.types import Dataset


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
    val_from: Literal["train", "test"] = "test",
    split_seed: int = 4242,
    n_generated: int = 1024,
    tokenizer: Tokenizer = "basic_english",
    specials: Sequence[str] = (UNKNOWN, PADDING),
    pad_with: str = PADDING,
    padding: Side = "right",
    keep: End = "head",
    bucketing: bool = True,
    order: Order = shuffled,
) -> Dataset:
    """Texts as TokenBatch; the vocabulary is that of the chosen training rows.

    vocabulary_size: at most, with the specials, of which the first stands for unknown words. length, padding, keep,
    bucketing: see `Layout`. files: train.csv and test.csv; "full" where both md5 sums match. n_train, n_test: null for
    all that is there; n_val rows are taken out of val_from. Raises ValueError for other classes than AG News has.
    """
    if n_classes != len(CLASS_NAMES):
        raise ValueError(f"AG News has {len(CLASS_NAMES)} classes, not {n_classes}")
    layout = Layout(length, padding, keep, bucketing, pad_number(specials, pad_with))
    rows, label, note = chosen_rows(files, data_dir, source, n_train, n_val, n_test, split_seed, n_generated, val_from)
    encoder = train_encoder(tokenizer, [news.text for news in rows["train"]], vocabulary_size, specials)
    texts = {
        split: (
            Ragged.of([encoder.encode(news.text) for news in chosen], len(encoder.words)),
            torch.tensor([news.label for news in chosen]),
        )
        for split, chosen in rows.items()
    }
    return token_dataset(
        "ag_news", texts, encoder, layout, label=label, class_names=CLASS_NAMES, note=note, order=order
    )
