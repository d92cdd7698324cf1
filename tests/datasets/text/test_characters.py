"""Characters: the course's 35 symbols, padding, cutting, and back."""

from __future__ import annotations

import torch

from dl_lab.datasets.text.characters import SYMBOLS, decode, encode, encode_all
from dl_lab.types import PADDING, SPACE, START, STOP, UNKNOWN


def test_the_symbols_of_the_course_in_their_order():
    assert len(SYMBOLS) == 35
    assert [SYMBOLS[i] for i in (START, STOP, PADDING, UNKNOWN, SPACE)] == ["<", ">", "@", "#", " "]
    assert SYMBOLS[4:9] == " ,.?-"
    assert SYMBOLS[9:] == "abcdefghijklmnopqrstuvwxyz"


def test_encode_and_decode():
    assert encode("Ab, z!") == [START, 9, 10, 5, SPACE, 34, UNKNOWN, STOP]
    assert decode(encode("Printing, in the only sense")) == "printing, in the only sense"


def test_no_text_can_write_a_special_symbol():
    assert encode("<>@#") == [START, *[UNKNOWN] * 4, STOP]


def test_texts_are_cut_and_padded():
    tokens = encode_all(["abcdef", "a"], 5)
    assert tokens.tolist() == [[START, 9, 10, 11, STOP], [START, 9, STOP, PADDING, PADDING]]
    assert tokens.dtype == torch.int64
    assert [decode(row) for row in tokens.tolist()] == ["abc", "a"]


def test_nothing_after_the_stop_is_read():
    assert decode([START, 9, STOP, 10]) == "a"
    assert decode([9, 10]) == "ab"
