"""Clips with their transcripts: their division into splits, their limits, and generated clips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from dl_lab.datasets.speech import tones
from dl_lab.datasets.speech.audio import read_wav
from dl_lab.datasets.text.characters import SYMBOLS, encode, has_no_symbol
from dl_lab.types import UserError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Clip:
    """One recording.

    Args:
        name: Its name.
        text: Its transcript.
        source: The WAV file, or the samples (n,) float32 in [-1, 1].
    """

    name: str
    text: str
    source: Path | np.ndarray

    def samples(self) -> np.ndarray:
        """Return the samples (n,) float32 in [-1, 1] at 22,050 Hz."""
        return read_wav(self.source) if isinstance(self.source, Path) else self.source


@dataclass(frozen=True)
class SpeechContent:
    """The content of a data set of clips beside its splits, which figures and transcripts need.

    Attributes:
        clips: The clips of each split.
        sample_rate: Samples in a second.
        hop_length: Samples from one feature frame to the next.
    """

    words: ClassVar[str] = "clips of speech"
    clips: Mapping[str, Sequence[Clip]]
    sample_rate: int
    hop_length: int


@dataclass(frozen=True)
class Parts:
    """How the clips, in the order of metadata.csv, become train, val and test.

    Args:
        fractions: The shares of training and validation; test is the rest. The default makes the course's 9,825 / 655 /
            2,620 of all 13,100 clips.
        n_train: The number of first clips to keep of the training part. None keeps all.
        n_val: The number of first clips to keep of the validation part. None keeps all.
        n_test: The number of first clips to keep of the test part. None keeps all.
    """

    fractions: Sequence[float] = (0.75, 0.05)
    n_train: int | None = None
    n_val: int | None = None
    n_test: int | None = None


@dataclass(frozen=True)
class Limits:
    """The limits of a clip and its transcript.

    Args:
        longest: The longest clip, in seconds.
        frames_per_symbol: Feature frames that a clip must have for each symbol of its transcript. None: any number. A
            model with CTC needs one step of two frames for each symbol, and one more between two equal symbols.
        max_unknown: The share of the letters in all transcripts that may have no symbol (and become the unknown one).
    """

    longest: float = 20.0
    frames_per_symbol: int | None = 2
    max_unknown: float = 0.01

    def find_fault(
        self, n_frames: int, frames_per_second: float, text: str, text_length: int, pad_frames: int | None
    ) -> Literal["too_long", "too_short"] | None:
        """Compare the length of a clip with its transcript.

        Args:
            n_frames: Feature frames of the clip.
            frames_per_second: Feature frames in a second.
            text: The transcript.
            text_length: Tokens that a transcript may have; it is cut after them.
            pad_frames: Frames that every clip is padded or cut to. None: clips keep their lengths.

        Returns:
            The fault; None for a clip within the limits.
        """
        if pad_frames is None and n_frames > self.longest * frames_per_second + 1:
            return "too_long"
        if self.frames_per_symbol is None:
            return None
        numbers = encode(text.lower()[: text_length - 2])[1:-1]
        n_steps = len(numbers) + sum(one == other for one, other in pairwise(numbers))
        n_kept = n_frames if pad_frames is None else min(n_frames, pad_frames)
        return "too_short" if n_kept < self.frames_per_symbol * n_steps else None


def split_clips(
    clips: Sequence[Clip], fractions: Sequence[float], limits: Sequence[int | None]
) -> dict[str, list[Clip]]:
    """Divide clips into contiguous parts, in their order.

    Args:
        clips: All clips.
        fractions: The shares of training and validation; test is the rest.
        limits: The number of first clips to keep of each part. None keeps all.

    Raises:
        ValueError: A split would have no clip.
    """
    train, val = fractions
    if train <= 0 or val <= 0 or train + val >= 1:
        raise ValueError(f"fractions {train} and {val} leave nothing for a split")
    ends = [round(len(clips) * share) for share in (0.0, train, train + val, 1.0)]
    parts: dict[str, list[Clip]] = {}
    for split, start, end, limit in zip(SPLITS, ends[:-1], ends[1:], limits, strict=True):
        parts[split] = list(clips[start:end][:limit])
        if not parts[split]:
            raise ValueError(f"{len(clips)} clips leave none for {split} with fractions {list(fractions)}")
    return parts


def check_symbols(parts: Mapping[str, Sequence[Clip]], max_unknown: float) -> str:
    """Return in words how many letters become the unknown symbol; "" for none.

    Args:
        parts: The clips of each split.
        max_unknown: The largest share of such letters.

    Raises:
        UserError: The share is larger.
    """
    n_letters = 0
    missing: Counter[str] = Counter()
    first = ""
    for clip in chain.from_iterable(parts.values()):
        letters = [character for character in clip.text.lower() if character.isalnum()]
        foreign = [character for character in letters if has_no_symbol(character)]
        n_letters += len(letters)
        missing.update(foreign)
        if foreign and not first:
            first = clip.name
    n_missing = missing.total()
    if not n_missing:
        return ""
    common = " ".join(letter for letter, _ in missing.most_common(8))
    words = f"{n_missing:,} of {n_letters:,} letters have no symbol ({common}; the first in {first})"
    if n_missing > max_unknown * n_letters:
        raise UserError(
            f"The transcripts are not of this alphabet ({SYMBOLS[5:]}): {words} and would become the unknown symbol."
            f" dataset.limits.max_unknown={max_unknown:g} is the largest share allowed."
        )
    return words


def generate_clips(n: int) -> dict[str, list[Clip]]:
    """Generate random words in tones: n clips for training, n / 8 (at least 4) each for validation and test."""
    sizes = {"train": n, "val": max(n // 8, 4), "test": max(n // 8, 4)}
    parts: dict[str, list[Clip]] = {}
    for place, (split, size) in enumerate(sizes.items()):
        parts[split] = []
        for i, text in enumerate(tones.draw_texts(size, seed=place)):
            samples = tones.speak(text, seed=place * 1_000_003 + i)
            parts[split].append(Clip(f"{split}-{i:04}", text, samples))
    return parts
