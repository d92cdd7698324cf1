"""How texts become tokens, and tokens the rows of a batch: what every data set of texts is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from dl_lab.datasets.text.encoders import PADDING, UNKNOWN, Encoder, Tokenizer, remove_tags, train_encoder
from dl_lab.datasets.text.tokens import End, Layout, Ragged, Side, pad_number


@dataclass(frozen=True)
class Texts:
    """How texts become tokens, and tokens the rows of a batch.

    Args:
        tokenizer: "basic_english" (lower case, punctuation apart), "whitespace" or "byte_pair".
        clean_html: Whether HTML tags become blanks first.
        specials: The first tokens of the vocabulary. The first one stands for unknown words.
        pad_with: The special that fills shorter texts.
        padding: The side of a shorter text that is filled.
        keep: The end of a longer text that stays.
        bucketing: Whether a batch is only as long as its longest text.
    """

    tokenizer: Tokenizer = "basic_english"
    clean_html: bool = False
    specials: Sequence[str] = (UNKNOWN, PADDING)
    pad_with: str = PADDING
    padding: Side = "right"
    keep: End = "head"
    bucketing: bool = True

    def layout(self, length: int) -> Layout:
        """Return how tokens become the rows of a batch.

        Args:
            length: The most tokens of a text.

        Raises:
            ValueError: `pad_with` is none of the specials, or `length` is less than 1.
        """
        return Layout(length, self.padding, self.keep, self.bucketing, pad_number(self.specials, self.pad_with))

    def clean(self, text: str) -> str:
        """Return the text without HTML tags, where `clean_html` says so."""
        return remove_tags(text) if self.clean_html else text

    def encode(
        self, parts: Mapping[str, tuple[Sequence[str], Tensor]], vocabulary_size: int
    ) -> tuple[dict[str, tuple[Ragged, Tensor]], Encoder]:
        """Encode the texts of each split by the vocabulary of the training texts.

        Args:
            parts: Split -> texts, labels (n,).
            vocabulary_size: The most words that the vocabulary may have, the specials included.

        Returns:
            Split -> encoded texts, labels (n,); and the encoder.
        """
        cleaned = {split: [self.clean(text) for text in texts] for split, (texts, _) in parts.items()}
        encoder = self.train_encoder(cleaned["train"], vocabulary_size)
        encoded: dict[str, tuple[Ragged, Tensor]] = {}
        for split, (_, labels) in parts.items():
            numbers = [encoder.encode(text) for text in cleaned[split]]
            encoded[split] = (Ragged.of(numbers, len(encoder.words)), labels)
        return encoded, encoder

    def train_encoder(self, texts: Sequence[str], vocabulary_size: int) -> Encoder:
        """Return the encoder whose vocabulary comes from these texts: training texts only."""
        return train_encoder(self.tokenizer, texts, vocabulary_size, self.specials)


@dataclass(frozen=True)
class HeldOut:
    """Which rows of the two official files or halves, train and test, are used, and where validation comes from.

    Args:
        n_train: Training rows. None: all that are left.
        n_val: Validation rows.
        n_test: Test rows. None: all that are left.
        val_from: The half that gives the validation rows.
        seed: Seed of the draw.
    """

    n_train: int | None = None
    n_val: int = 1_000
    n_test: int | None = None
    val_from: Literal["train", "test"] = "test"
    seed: int = 4242
