"""Tokens and vocabulary as torchtext's, and bags of words."""

from __future__ import annotations

import random
import re

import pytest

from dl_lab.datasets.text.encoders import UNKNOWN, Vocabulary, bags_of_words, basic_english

# torchtext 0.x, data/utils.py: what "basic_english" replaces, in this order.
TORCHTEXT = (
    (r"\'", " '  "), (r"\"", ""), (r"\.", " . "), (r"<br \/>", " "), (r",", " , "), (r"\(", " ( "), (r"\)", " ) "),
    (r"\!", " ! "), (r"\?", " ? "), (r"\;", " "), (r"\:", " "), (r"\s+", " "),
)  # fmt: skip


def by_regular_expressions(text):
    text = text.lower()
    for pattern, replacement in TORCHTEXT:
        text = re.sub(pattern, replacement, text)
    return text.split()


@pytest.mark.parametrize("seed", range(200))
def test_tokens_equal_those_of_torchtext(seed):
    rng = random.Random(seed)
    pieces = [
        "'",
        '"',
        ".",
        "<br />",
        "<br",
        " />",
        ",",
        "(",
        ")",
        "!",
        "?",
        ";",
        ":",
        " ",
        "\t",
        "\n",
        "A",
        "é",
        "-",
        "#39;",
        "Word",
        "\u00a0",
    ]
    text = "".join(rng.choices(pieces, k=60))
    assert basic_english(text) == by_regular_expressions(text)


def test_tokens():
    assert basic_english('Oil\'s up: "$46"<br />(Reuters)') == ["oil", "'", "s", "up", "$46", "(", "reuters", ")"]


def test_vocabulary_ranks_by_frequency_then_alphabet():
    vocabulary = Vocabulary.of([["b", "a", "c"], ["c", "d"]], size=4)
    assert vocabulary.words == (UNKNOWN, "c", "a", "b")
    assert vocabulary.encode(["d", "c", "b", "never seen"]) == [0, 1, 3, 0]
    assert len(Vocabulary.of([["b", "a", "c"], ["c", "d"]])) == 5


def test_specials_come_once_and_first():
    vocabulary = Vocabulary.of([["<pad>", "x", "<unk>"]], specials=("<unk>", "<pad>"))
    assert vocabulary.words == ("<unk>", "<pad>", "x")


def test_vocabulary_needs_room():
    with pytest.raises(ValueError, match="no room"):
        Vocabulary.of([["a"]], size=1)


def test_bags_mark_every_word_that_occurs():
    bags = bags_of_words([[1, 1, 3], [], [0]], size=4)
    assert bags.tolist() == [[0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert bags.dtype.itemsize == 1
