"""Ragged texts as batches: padding, truncation, buckets; and the three tokenizers as encoders."""

from __future__ import annotations

import random

import pytest
import torch

from dl_lab.datasets.batches import in_order
from dl_lab.datasets.text.encoders import (
    BytePairEncoder,
    Vocabulary,
    WordEncoder,
    encoder_of,
    generate_texts,
    remove_tags,
    train_encoder,
)
from dl_lab.datasets.text.tokens import Layout, Ragged, TokenSplit, smallest_integer, token_dataset
from dl_lab.types import UserError

TEXTS = [[5, 6, 7], [8], [9, 10]]


@pytest.mark.parametrize(
    ("padding", "keep", "rows"),
    [
        ("right", "head", [[5, 6], [8, 1], [9, 10]]),
        ("left", "head", [[5, 6], [1, 8], [9, 10]]),
        ("right", "tail", [[6, 7], [8, 1], [9, 10]]),
        ("left", "tail", [[6, 7], [1, 8], [9, 10]]),
    ],
)
def test_padding_and_truncation(padding, keep, rows):
    x, mask = Layout(2, padding, keep, bucketing=False).pad(TEXTS)
    assert x.tolist() == rows
    assert mask.tolist() == [[number != 1 for number in row] for row in rows]


def test_bucketing_decides_the_length_of_a_batch():
    assert Layout(7, bucketing=True).pad(TEXTS)[0].shape == (3, 3)
    assert Layout(7, bucketing=False).pad(TEXTS)[0].shape == (3, 7)
    with pytest.raises(ValueError, match="length 0 is not at least 1"):
        Layout(0)


@pytest.mark.parametrize("size", [2, 256, 257, 2**15, 2**15 + 1])
def test_the_smallest_integer_type_holds_every_number(size):
    dtype = smallest_integer(size)
    assert torch.tensor([size - 1]).to(dtype).item() == size - 1
    smaller = [d for d in (torch.uint8, torch.int16) if d.itemsize < dtype.itemsize]
    assert all(torch.tensor([size - 1]).to(d).item() != size - 1 for d in smaller)
    assert Ragged.of([[0, size - 1]], size).numbers.dtype == dtype


def split(bucketing, n=300, order=None):
    rng = random.Random(0)
    texts = [[i] * rng.randint(1, 40) for i in range(2, n + 2)]  # a text holds its own number: labels can be checked
    layout = Layout(40, bucketing=bucketing)
    ragged = Ragged.of(texts, n + 2)
    labels = torch.arange(2, n + 2)
    parts = dict.fromkeys(("train", "val", "test"), (ragged, labels))
    words = WordEncoder("whitespace", Vocabulary(tuple(map(str, range(n + 2)))))
    extra = {} if order is None else {"order": order}
    return token_dataset("t", parts, words, layout, label="generated", class_names=["a"], **extra).train


@pytest.mark.parametrize("bucketing", [False, True])
def test_an_epoch_has_every_text_once_with_its_label(bucketing):
    train = split(bucketing)
    epochs = [list(train.epoch(16, seed=1, epoch=epoch)) for epoch in (0, 1, 0)]
    for batches in epochs:
        assert len(batches) == train.n_batches(16) == 19
        assert sorted(y for batch in batches for y in batch.y.tolist()) == list(range(2, 302))
        for batch in batches:
            assert (batch.x[batch.mask] == batch.y[:, None].expand_as(batch.x)[batch.mask]).all()
    orders = [[y for batch in batches for y in batch.y.tolist()] for batches in epochs]
    assert orders[0] == orders[2]
    assert orders[0] != orders[1]
    resumed = list(train.epoch(16, seed=1, epoch=0, start=7))
    assert [b.y.tolist() for b in resumed] == [b.y.tolist() for b in epochs[0][7:]]


def test_buckets_hold_little_padding_and_stay_shuffled():
    padding = {}
    for bucketing in (False, True):
        batches = list(split(bucketing, n=2000).epoch(16, seed=1, epoch=0))
        padding[bucketing] = sum(int((~b.mask).sum()) for b in batches) / sum(b.mask.numel() for b in batches)
        longest = [b.x.shape[1] for b in batches]
        assert not bucketing or longest != sorted(longest)
    assert padding[True] < 0.1
    assert padding[False] > 0.4


def test_an_unshuffled_epoch_has_the_stored_order():
    train = split(True, order=in_order)
    stored = [b.y.tolist() for b in train.batches(16)]
    assert [b.y.tolist() for b in train.epoch(16, seed=1, epoch=3)] == stored


def test_a_split_keeps_the_small_type_on_the_device():
    train = split(True).to(torch.device("cpu"))
    assert isinstance(train, TokenSplit)
    assert train.resident[0].dtype == torch.int16
    assert next(iter(train.batches(4))).x.dtype == torch.int64


# -- encoders


def corpus(n=200):
    import numpy as np

    return [text for _, text in generate_texts(n, 2, np.random.default_rng(0), n_words=200)]


@pytest.mark.parametrize("tokenizer", ["basic_english", "whitespace", "byte_pair"])
def test_encoders_come_back_from_plain_values(tokenizer):
    import json

    encoder = train_encoder(tokenizer, corpus(), 400, ("<unk>", "<pad>"))
    assert encoder.words[:2] == ("<unk>", "<pad>")
    assert len(encoder.words) <= 400
    again = encoder_of(json.loads(json.dumps(encoder.plain())))
    for text in (*corpus(5), "Never seen before!", "", "é"):
        numbers = again.encode(text)
        assert numbers == encoder.encode(text)
        assert numbers
        assert all(0 <= number < len(encoder.words) for number in numbers)
    assert again.words == encoder.words


def test_whitespace_and_basic_english_differ_as_they_should():
    words = {name: train_encoder(name, ["A b, c!"], None, ("<unk>",)) for name in ("whitespace", "basic_english")}
    assert words["whitespace"].split("A b, c!") == ["A", "b,", "c!"]
    assert words["basic_english"].split("A b, c!") == ["a", "b", ",", "c", "!"]


def test_byte_pairs_are_learned_from_the_given_texts_and_lose_nothing():
    encoder = train_encoder("byte_pair", ["low lower lowest"] * 50, 270, ("<unk>", "<pad>"))
    assert isinstance(encoder, BytePairEncoder)
    assert "Ġlow" in encoder.words
    assert encoder.split("Lower") == encoder.split("lower")
    assert "".join(encoder.split("naïve 日本")).replace("Ġ", "") != ""
    assert 0 not in encoder.encode("naïve 日本")
    same = train_encoder("byte_pair", ["low lower lowest"] * 50, 270, ("<unk>", "<pad>"))
    assert same.plain() == encoder.plain()
    with pytest.raises(ValueError, match="no room for the 256 bytes"):
        train_encoder("byte_pair", ["a"], 200, ("<unk>",))
    with pytest.raises(ValueError, match="needs a vocabulary_size"):
        train_encoder("byte_pair", ["a"], None, ("<unk>",))


@pytest.mark.parametrize("plain", [{}, {"tokenizer": "words"}, {"tokenizer": "whitespace"}])
def test_a_damaged_vocabulary_is_named(plain):
    with pytest.raises(UserError, match="vocabulary cannot be read"):
        encoder_of(plain)


def test_tags_become_blanks_and_signs_stay():
    assert remove_tags("good<br /><br/>film</p> <em>really</em>").split() == ["good", "film", "really"]
    assert remove_tags("I <3 it, 1 < 2 > 0 <-- so") == "I <3 it, 1 < 2 > 0 <-- so"
