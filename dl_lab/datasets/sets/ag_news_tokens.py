"""AG News as sequences of tokens: the rows, splits and generated twin of ag_news.py."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from dl_lab.datasets.batches import Order, shuffled
from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.sets.ag_news import CLASS_NAMES, select_rows
from dl_lab.datasets.storage import Storage
from dl_lab.datasets.text.texts import HeldOut, Texts
from dl_lab.datasets.text.tokens import token_dataset


def ag_news_tokens(
    vocabulary_size: int,
    length: int,
    n_classes: int,
    storage: Storage,
    texts: Texts,
    held_out: HeldOut,
    source: Literal["real", "generated"] = "real",
    n_generated: int = 1024,
    order: Order = shuffled,
    header: bool = False,
    encoding: str = "utf-8",
) -> Dataset:
    """Return texts as TokenBatch. The vocabulary comes from the chosen training rows.

    Args:
        vocabulary_size: The most words that the vocabulary may have, the specials included.
        length: The most tokens that a text may have; `texts.keep` says which end of a longer text stays.
        n_classes: 4.
        storage: Where train.csv and test.csv lie. The label is "full" where both md5 sums match.
        texts: How texts become tokens.
        held_out: Which rows are used, and which file the validation rows come from.
        source: "real", or "generated" for invented words that a model can learn.
        n_generated: Training rows of the generated data set.
        order: The order of a training epoch.
        header: Whether the files start with a line of column names, as Kaggle's copy does.
        encoding: The encoding of the files.

    Raises:
        UserError: A row is not as published; the message names file and line.
        ValueError: AG News has another number of classes, or fewer rows than `held_out` asks for.
    """
    if n_classes != len(CLASS_NAMES):
        raise ValueError(f"AG News has {len(CLASS_NAMES)} classes, not {n_classes}")
    layout = texts.layout(length)
    rows, label, note = select_rows(storage, source, held_out, n_generated, header, encoding)
    parts: dict[str, tuple[list[str], Tensor]] = {}
    for split, chosen in rows.items():
        parts[split] = ([news.text for news in chosen], torch.tensor([news.label for news in chosen]))
    encoded, encoder = texts.encode(parts, vocabulary_size)
    return token_dataset(
        "ag_news",
        encoded,
        encoder,
        layout,
        label=label,
        class_names=CLASS_NAMES,
        note=note,
        order=order,
        cleaning={"clean_html": texts.clean_html},
    )
