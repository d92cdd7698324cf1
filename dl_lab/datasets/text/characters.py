"""Texts as characters, and characters as numbers: the 35 symbols of the IST course."""

from __future__ import annotations

import string
from collections.abc import Sequence

import torch
from torch import Tensor

from dl_lab.types import PADDING, START, STOP, UNKNOWN

SYMBOLS = "<>@# ,.?-" + string.ascii_lowercase  # START, STOP, PADDING, UNKNOWN, SPACE, then signs and letters


def encode(text: str) -> list[int]:
    """Return START, the numbers of the lower-case characters, STOP.

    A character without a number becomes UNKNOWN, so that no text can write START.
    """
    characters = [_NUMBERS.get(character, UNKNOWN) for character in text.lower()]
    return [START, *characters, STOP]


_NUMBERS = {character: number for number, character in enumerate(SYMBOLS) if number > UNKNOWN}


def has_no_symbol(character: str) -> bool:
    """Return whether this lower-case character becomes UNKNOWN."""
    return character not in _NUMBERS


def encode_all(texts: Sequence[str], length: int) -> Tensor:
    """Encode texts that are cut to length - 2 characters, and pad them behind.

    Returns:
        (texts, length) int64.

    Raises:
        ValueError: `length` is less than 3.
    """
    if length < 3:
        raise ValueError(f"text_length {length} has no room for a character between start and stop")
    tokens = torch.full((len(texts), length), PADDING)
    for row, text in zip(tokens, texts, strict=True):
        numbers = encode(text.lower()[: length - 2])
        row[: len(numbers)] = torch.tensor(numbers)
    return tokens


def decode(numbers: Sequence[int]) -> str:
    """Return the text before the first STOP, without START and PADDING."""
    written = list(numbers)
    if STOP in written:
        written = written[: written.index(STOP)]
    return "".join(SYMBOLS[number] for number in written if number not in (START, PADDING))
