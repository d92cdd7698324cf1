"""Text as tokens, tokens as numbers: tokenizers, the vocabulary, the encoders that travel with a run, bags of words."""

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
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")  # "<3" and "a < b" are no tags
_SPACED = str.maketrans({"'": " '  ", ".": " . ", ",": " , ", "(": " ( ", ")": " ) ", "!": " ! ", "?": " ? "})
_SPACED |= str.maketrans({";": " ", ":": " "})


def basic_english(text: str) -> list[str]:
    """Tokens of torchtext's "basic_english": lower case, punctuation apart, quotes and HTML line breaks dropped.

    torchtext replaces twelve regular expressions in turn; this is the same function several times as fast.
    """
    return text.lower().replace('"', "").replace("<br />", " ").translate(_SPACED).split()


def whitespace(text: str) -> list[str]:
    """What stands between blanks, tabs and line ends, as it is."""
    return text.split()


def without_tags(text: str) -> str:
    """HTML tags as blanks, so that the words beside them stay apart."""
    return _TAG.sub(" ", text)


SPLITTERS: dict[str, Callable[[str], list[str]]] = {"basic_english": basic_english, "whitespace": whitespace}


@dataclass(frozen=True)
class Vocabulary:
    """Words by number; words that are not in it get the number of the first special (the unknown word)."""

    words: tuple[str, ...]

    @classmethod
    def of(
        cls, texts: Iterable[Sequence[str]], size: int | None = None, specials: Sequence[str] = (UNKNOWN,)
    ) -> Vocabulary:
        """The specials, then the most frequent words, `size` in all at most (None: every word).

        Equally frequent words come in alphabetical order, as in torchtext. Give it training texts only.
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
        return {word: number for number, word in enumerate(self.words)}

    def encode(self, tokens: Iterable[str]) -> list[int]:
        numbers = self.numbers
        return [numbers.get(word, 0) for word in tokens]


def bags_of_words(encoded: Sequence[Sequence[int]], size: int) -> Tensor:
    """Numbers below `size` of each text -> (texts, size) uint8: 1 where the word occurs at least once."""
    bags = torch.zeros(len(encoded), size, dtype=torch.uint8)
    for bag, numbers in zip(bags, encoded, strict=True):
        bag[torch.tensor(sorted(set(numbers)), dtype=torch.int64)] = 1
    return bags


# -- encoders: text -> numbers ------------------------------------------------------------------------------------


class Encoder(Protocol):
    """Text -> numbers below len(words). A text without any token becomes one unknown word."""

    @property
    def words(self) -> tuple[str, ...]: ...

    def split(self, text: str) -> list[str]:
        """The tokens of a text, before they become numbers."""
        ...

    def encode(self, text: str) -> list[int]: ...

    def plain(self) -> dict[str, Any]:
        """Plain JSON values from which `encoder_of` makes the same encoder."""
        ...


@dataclass(frozen=True)
class WordEncoder:
    """Words by a rule, numbered by a vocabulary."""

    tokenizer: str
    vocabulary: Vocabulary

    @property
    def words(self) -> tuple[str, ...]:
        return self.vocabulary.words

    def split(self, text: str) -> list[str]:
        return SPLITTERS[self.tokenizer](text)

    def encode(self, text: str) -> list[int]:
        return self.vocabulary.encode(self.split(text)) or [0]

    def plain(self) -> dict[str, Any]:
        return {"tokenizer": self.tokenizer, "words": list(self.words)}


class BytePairEncoder:
    """Byte-pair encoding of lower-cased bytes (Sennrich et al. 2016; bytes as in GPT-2): nothing is unknown to it.

    description: of the `tokenizers` library, as JSON.
    """

    def __init__(self, description: str) -> None:
        from tokenizers import Tokenizer as Trained

        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads do not survive the fork of a sweep's job
        self.description, self._trained = description, Trained.from_str(description)
        numbers = self._trained.get_vocab()
        self.words = tuple(sorted(numbers, key=numbers.__getitem__))

    @classmethod
    def trained(cls, texts: Iterable[str], size: int, specials: Sequence[str]) -> BytePairEncoder:
        """Merges learned from the texts until there are `size` tokens; 256 of them are the bytes."""
        from tokenizers import Tokenizer as Trained
        from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        if size < len(specials) + 256:
            raise ValueError(f"vocabulary_size {size} has no room for the 256 bytes and {', '.join(specials)}")
        trained = Trained(models.BPE())
        trained.normalizer = normalizers.Lowercase()  # pyright: ignore[reportAttributeAccessIssue]
        trained.pre_tokenizer = pre_tokenizers.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
        trained.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=size, special_tokens=list(specials), initial_alphabet=alphabet, show_progress=False
        )
        trained.train_from_iterator(texts, trainer)
        return cls(trained.to_str())

    def split(self, text: str) -> list[str]:
        return self._trained.encode(text, add_special_tokens=False).tokens

    def encode(self, text: str) -> list[int]:
        return self._trained.encode(text, add_special_tokens=False).ids or [0]

    def plain(self) -> dict[str, Any]:
        return {"tokenizer": "byte_pair", "byte_pair": self.description}


def train_encoder(tokenizer: Tokenizer, texts: Sequence[str], size: int | None, specials: Sequence[str]) -> Encoder:
    """The encoder whose vocabulary (at most `size`, the specials first) comes from these texts: training texts only.

    Raises ValueError where the size leaves no room, and for byte pairs without a size.
    """
    if tokenizer != "byte_pair":
        split = SPLITTERS[tokenizer]
        return WordEncoder(tokenizer, Vocabulary.of((split(text) for text in texts), size, specials))
    if size is None:
        raise ValueError("tokenizer byte_pair needs a vocabulary_size")
    return BytePairEncoder.trained(texts, size, specials)


def encoder_of(plain: Mapping[str, Any]) -> Encoder:
    """The encoder that `plain()` describes. Raises UserError where it describes none."""
    try:
        if plain["tokenizer"] == "byte_pair":
            return BytePairEncoder(plain["byte_pair"])
        if plain["tokenizer"] not in SPLITTERS:
            raise KeyError(plain["tokenizer"])
        return WordEncoder(plain["tokenizer"], Vocabulary(tuple(plain["words"])))
    except (KeyError, TypeError) as error:
        raise UserError(f"The run's vocabulary cannot be read: {error} is missing or unknown.") from error


# -- texts that can be learned, for tests and profile=smoke ----------------------------------------------------------


def generated_texts(n: int, n_classes: int, rng: np.random.Generator, n_words: int = 1500) -> list[tuple[int, str]]:
    """n (label, text) of invented words, 8 to 32 each: a quarter of a text's words are its class's own."""
    words = np.array([f"word{i}" for i in range(n_words)])
    own = words[: 50 * n_classes].reshape(n_classes, -1)
    labels = rng.permutation(np.arange(n) % n_classes)
    sizes = rng.integers(2, 9, size=n)
    return [
        (int(label), " ".join([*rng.choice(own[label], size), *rng.choice(words, 3 * size)]))
        for label, size in zip(labels, sizes, strict=True)
    ]
