"""AG News as tokens: numbered by the training split alone, validation held out of either file."""

from __future__ import annotations

import csv

import pytest
import torch

from dl_lab import configs as config
from dl_lab.datasets.sets.ag_news_tokens import ag_news_tokens
from dl_lab.datasets.storage import Storage
from dl_lab.datasets.text.texts import HeldOut, Texts

FILES = [{"path": "train.csv"}, {"path": "test.csv"}]


def write(folder, name, texts):
    with open(folder / name, "w", newline="") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(
            (i % 4 + 1, f"{name[:-4]}title{i}", text) for i, text in enumerate(texts)
        )


@pytest.fixture
def folder(tmp_path):
    write(tmp_path, "train.csv", [f"common word{i} , and more" for i in range(8)])
    write(tmp_path, "test.csv", [f"common unseen{i}" for i in range(8)])
    return tmp_path


def build(folder, n_classes=4, texts=None, held_out=None):
    return ag_news_tokens(
        vocabulary_size=100,
        length=6,
        n_classes=n_classes,
        storage=Storage(str(folder), "", FILES),
        texts=Texts(**(texts or {})),
        held_out=HeldOut(**{"n_val": 3, **(held_out or {})}),
    )


def test_tokens_are_numbered_by_the_training_split(folder):
    dataset = build(folder, texts={"bucketing": False})
    words = dataset.content.vocabulary
    assert words[:2] == ("<unk>", "<pad>")
    batch = next(iter(dataset.test.batches(10)))
    assert batch.x.dtype == torch.int64
    texts = [[words[number] for number in row] for row in batch.x]
    assert texts[0] == ["<unk>", "common", "<unk>", "<pad>", "<pad>", "<pad>"]  # testtitleN common unseenN
    assert batch.mask.tolist()[0] == [True] * 3 + [False] * 3
    assert not any("unseen" in word for word in words)
    assert (dataset.label, len(dataset.val), len(dataset.test)) == ("part", 3, 5)


def test_validation_can_come_from_the_training_rows(folder):
    dataset = build(folder, held_out={"val_from": "train"})
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (5, 3, 8)
    words = set(dataset.content.vocabulary)
    batch = next(iter(dataset.val.batches(10)))
    assert (batch.x == 0).any(), "the words of the rows held out are unknown"
    assert sum(f"word{i}" in words for i in range(8)) == 5
    with pytest.raises(ValueError, match=r"n_val 8 \(from train\)"):
        build(folder, held_out={"val_from": "train", "n_val": 8})


def test_the_encoder_travels_as_plain_values(folder):
    from dl_lab.datasets.text.encoders import encoder_of

    dataset = build(folder)
    again = encoder_of(dataset.preprocessing["encoder"])
    assert again.encode("common never") == dataset.content.encoder.encode("common never")
    assert dataset.preprocessing["layout"]["length"] == 6


def test_classes_are_four(folder):
    with pytest.raises(ValueError, match="AG News has 4 classes, not 5"):
        build(folder, n_classes=5)


def test_padding_must_be_a_special(folder):
    with pytest.raises(ValueError, match="pad_with '<eos>' is none of the specials <unk>, <pad>"):
        build(folder, texts={"pad_with": "<eos>"})


def test_real_rows(real_data):
    composed = config.Composer().compose(["dataset=ag_news_tokens", "model=text_transformer"])
    dataset = config.build(composed.config, "dataset")
    assert len(dataset.train) == 10_000
    assert len(dataset.val) + len(dataset.test) == 7_600
    batch = next(iter(dataset.train.batches(10_000)))
    assert 35 < batch.mask.sum(dim=1).float().mean() < 55
    assert batch.x.max() < composed.config["dataset"]["vocabulary_size"]
