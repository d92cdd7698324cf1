"""Texts as tokens, and tokens as numbers: tokenizers, vocabularies, encoders, bags of words."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from dl_lab.types import UserError

UNKNOWN = "<unk>"
PADDING = "<pad>"
Tokenizer = Literal["basic_english", "whitespace", "byte_pair"]
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")  # "<3" and "a < b" are not tags
_SPACED = str.maketrans({"'": " '  ", ".": " . ", ",": " , ", "(": " ( ", ")": " ) ", "!": " ! ", "?": " ? "})
_SPACED |= str.maketrans({";": " ", ":": " "})


def basic_english(text: str) -> list[str]:
    """Split a text like torchtext's "basic_english": lower case, punctuation apart, no quotes or HTML line breaks.

    torchtext replaces twelve regular expressions in turn. This function does the same several times as fast.
    """
    return text.lower().replace('"', "").replace("<br />", " ").translate(_SPACED).split()


def whitespace(text: str) -> list[str]:
    """Split a text at blanks, tabs and line ends."""
    return text.split()


def remove_tags(text: str) -> str:
    """Replace HTML tags by blanks, so that the words beside them stay apart."""
    return _TAG.sub(" ", text)


SPLITTERS: dict[str, Callable[[str], list[str]]] = {"basic_english": basic_english, "whitespace": whitespace}


@dataclass(frozen=True)
class Vocabulary:
    """Words by number. Any other word gets the number 0, which is that of the first special (the unknown word).

    Args:
        words: The words, the specials first.
    """

    words: tuple[str, ...]

    @classmethod
    def of(
        cls, texts: Iterable[Sequence[str]], size: int | None = None, specials: Sequence[str] = (UNKNOWN,)
    ) -> Vocabulary:
        """Return the vocabulary of texts: the specials, then the most frequent words.

        Equally frequent words come in alphabetical order, as in torchtext.

        Args:
            texts: The tokens of each text: training texts only.
            size: The most words, the specials included. None takes every word.
            specials: The specials.

        Raises:
            ValueError: `size` leaves no room beside the specials.
        """
        counts = Counter(word for tokens in texts for word in tokens)
        for special in specials:
            counts.pop(special, None)
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        if size is not None:
            if size <= len(specials):
                raise ValueError(f"a vocabulary of {size} has no room beside {', '.join(specials)}")
            ranked = ranked[: size - len(specials)]
        return cls((*specials, *ranked))

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each word."""
        return {word: number for number, word in enumerate(self.words)}

    def encode(self, tokens: Iterable[str]) -> list[int]:
        """Return the numbers of tokens."""
        numbers = self.numbers
        return [numbers.get(word, 0) for word in tokens]


def bags_of_words(encoded: Sequence[Sequence[int]], size: int) -> Tensor:
    """Return (texts, size) uint8: 1 for each word that occurs at least once in a text.

    Args:
        encoded: The numbers of each text, below `size`.
        size: The number of words.
    """
    bags = torch.zeros(len(encoded), size, dtype=torch.uint8)
    for bag, numbers in zip(bags, encoded, strict=True):
        bag[torch.tensor(sorted(set(numbers)), dtype=torch.int64)] = 1
    return bags


# -- encoders: text -> numbers ------------------------------------------------------------------------------------


class Encoder(Protocol):
    """Text -> numbers below len(words). A text without any token becomes one unknown word."""

    @property
    def words(self) -> tuple[str, ...]:
        """The words by number."""
        ...

    def split(self, text: str) -> list[str]:
        """Return the tokens of a text, before they become numbers."""
        ...

    def encode(self, text: str) -> list[int]:
        """Return the numbers of a text."""
        ...

    def plain(self) -> dict[str, object]:
        """Return plain JSON values, from which `encoder_of` makes the same encoder."""
        ...


@dataclass(frozen=True)
class WordEncoder:
    """An encoder that splits texts into words by a rule, and numbers them by a vocabulary.

    Args:
        tokenizer: The name of the rule: a key of SPLITTERS.
        vocabulary: The vocabulary.
    """

    tokenizer: str
    vocabulary: Vocabulary

    @property
    def words(self) -> tuple[str, ...]:
        """The words by number."""
        return self.vocabulary.words

    def split(self, text: str) -> list[str]:
        """Return the words of a text."""
        return SPLITTERS[self.tokenizer](text)

    def encode(self, text: str) -> list[int]:
        """Return the numbers of a text."""
        return self.vocabulary.encode(self.split(text)) or [0]

    def plain(self) -> dict[str, object]:
        """Return plain JSON values, from which `encoder_of` makes the same encoder."""
        return {"tokenizer": self.tokenizer, "words": list(self.words)}


class BytePairEncoder:
    """Byte-pair encoding of lower-cased bytes (Sennrich et al. 2016; bytes as in GPT-2): no word is unknown.

    Args:
        description: The JSON of the `tokenizers` library.
    """

    def __init__(self, description: str) -> None:
        from tokenizers import Tokenizer as Trained

        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the threads do not survive the fork of a sweep's job
        self.description = description
        self._trained = Trained.from_str(description)
        numbers = self._trained.get_vocab()
        self.words = tuple(sorted(numbers, key=numbers.__getitem__))

    @classmethod
    def train(cls, texts: Iterable[str], size: int, specials: Sequence[str]) -> BytePairEncoder:
        """Learn merges from texts until there are `size` tokens; 256 of them are the bytes.

        Raises:
            ValueError: `size` has no room for the bytes and the specials.
        """
        from tokenizers import Tokenizer as Trained
        from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        if size < len(specials) + 256:
            raise ValueError(f"vocabulary_size {size} has no room for the 256 bytes and {', '.join(specials)}")
        trained = Trained(models.BPE())
        trained.normalizer = normalizers.Lowercase()  # pyright: ignore[reportAttributeAccessIssue]  # stub: read-only
        trained.pre_tokenizer = pre_tokenizers.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]  # as above
        trained.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]  # as above
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=size, special_tokens=list(specials), initial_alphabet=alphabet, show_progress=False
        )
        trained.train_from_iterator(texts, trainer)
        return cls(trained.to_str())

    def split(self, text: str) -> list[str]:
        """Return the tokens of a text."""
        return self._trained.encode(text, add_special_tokens=False).tokens

    def encode(self, text: str) -> list[int]:
        """Return the numbers of a text."""
        return self._trained.encode(text, add_special_tokens=False).ids or [0]

    def plain(self) -> dict[str, object]:
        """Return plain JSON values, from which `encoder_of` makes the same encoder."""
        return {"tokenizer": "byte_pair", "byte_pair": self.description}


def train_encoder(tokenizer: Tokenizer, texts: Sequence[str], size: int | None, specials: Sequence[str]) -> Encoder:
    """Return the encoder whose vocabulary comes from texts.

    Args:
        tokenizer: How a text becomes tokens.
        texts: The texts: training texts only.
        size: The most words, the specials included. None takes every word.
        specials: The specials, which come first.

    Raises:
        ValueError: `size` leaves no room, or byte pairs have no size.
    """
    if tokenizer != "byte_pair":
        split = SPLITTERS[tokenizer]
        return WordEncoder(tokenizer, Vocabulary.of((split(text) for text in texts), size, specials))
    if size is None:
        raise ValueError("tokenizer byte_pair needs a vocabulary_size")
    return BytePairEncoder.train(texts, size, specials)


def encoder_of(plain: Mapping[str, Any]) -> Encoder:
    """Return the encoder that `Encoder.plain` describes.

    Raises:
        UserError: A value is missing or unknown.
    """
    try:
        if plain["tokenizer"] == "byte_pair":
            return BytePairEncoder(plain["byte_pair"])
        if plain["tokenizer"] not in SPLITTERS:
            raise KeyError(plain["tokenizer"])
        return WordEncoder(plain["tokenizer"], Vocabulary(tuple(plain["words"])))
    except (KeyError, TypeError) as error:
        raise UserError(f"The run's vocabulary cannot be read: {error} is missing or unknown.") from error


# -- texts that can be learned, for tests and profile=smoke ----------------------------------------------------------


def generate_texts(n: int, n_classes: int, rng: np.random.Generator, n_words: int = 1500) -> list[tuple[int, str]]:
    """Generate texts of 8 to 32 invented words. A quarter of a text's words belong to its class.

    Args:
        n: The number of texts.
        n_classes: The number of classes.
        rng: The generator.
        n_words: The number of invented words.

    Returns:
        The label and the text of each item.
    """
    words = np.array([f"word{i}" for i in range(n_words)])
    own = words[: 50 * n_classes].reshape(n_classes, -1)
    labels = rng.permutation(np.arange(n) % n_classes)
    sizes = rng.integers(2, 9, size=n)
    texts: list[tuple[int, str]] = []
    for label, size in zip(labels, sizes, strict=True):
        chosen = [*rng.choice(own[label], size), *rng.choice(words, 3 * size)]
        texts.append((int(label), " ".join(chosen)))
    return texts
