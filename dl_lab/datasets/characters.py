"""Text as characters, characters as numbers: the IST course's 35 symbols."""

from __future__ import annotations

import string
from collections.abc import Sequence

import torch
from torch import Tensor

from dl_lab.types import PADDING, START, STOP, UNKNOWN

SYMBOLS = "<>@# ,.?-" + string.ascii_lowercase  # START, STOP, PADDING, UNKNOWN, SPACE, then what is written


def encode(text: str) -> list[int]:
    """START, the lower-case characters (UNKNOWN for one that has no number, so that no text can write START), STOP."""
    return [START, *(_NUMBERS.get(character, UNKNOWN) for character in text.lower()), STOP]


_NUMBERS = {character: number for number, character in enumerate(SYMBOLS) if number > UNKNOWN}


def encode_all(texts: Sequence[str], length: int) -> Tensor:
    """(texts, length) int64: each text cut to length - 2 characters, encoded, padded behind."""
    if length < 3:
        raise ValueError(f"text_length {length} has no room for a character between start and stop")
    tokens = torch.full((len(texts), length), PADDING)
    for row, text in zip(tokens, texts, strict=True):
        numbers = encode(text.lower()[: length - 2])
        row[: len(numbers)] = torch.tensor(numbers)
    return tokens


def decode(numbers: Sequence[int]) -> str:
    """The text before the first STOP, without START and PADDING."""
    written = list(numbers)
    written = written[: written.index(STOP)] if STOP in written else written
    return "".join(SYMBOLS[number] for number in written if number not in (START, PADDING))
