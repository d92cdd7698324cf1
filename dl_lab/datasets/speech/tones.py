"""Toy speech that a person can hear and a model can learn: each letter is a tone, and a space is silence."""

from __future__ import annotations

import string

import numpy as np

SAMPLE_RATE = 22_050
LOWEST = 300.0  # Hz, the tone of "a"
HIGHEST = 3600.0  # Hz, the tone of "z"
SECONDS = (0.05, 0.08)  # of one character
SILENCE = (0.0, 0.1)  # seconds before the first and after the last character


def draw_texts(n: int, seed: int) -> list[str]:
    """Draw n texts of one to three words, each of two to four random letters."""
    rng = np.random.default_rng(seed)

    def draw_word() -> str:
        return "".join(rng.choice(list(string.ascii_lowercase), rng.integers(2, 5)))

    texts: list[str] = []
    for _ in range(n):
        n_words = rng.integers(1, 4)
        texts.append(" ".join(draw_word() for _ in range(n_words)))
    return texts


def speak(text: str, seed: int) -> np.ndarray:
    """Return the tones of a text of letters and spaces; length, pitch and loudness vary a little.

    Args:
        text: Lower-case letters and spaces.
        seed: The seed of the variation.

    Returns:
        Samples (n,) float32 at 22,050 Hz.
    """
    rng = np.random.default_rng(seed)
    parts = [_make_silence(rng.uniform(*SILENCE))]
    parts += [_make_tone(character, rng) for character in text]
    parts.append(_make_silence(rng.uniform(*SILENCE)))
    samples = np.concatenate(parts)
    return (samples + rng.normal(scale=0.003, size=len(samples))).astype(np.float32)


def _make_silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * SAMPLE_RATE))


def _make_tone(character: str, rng: np.random.Generator) -> np.ndarray:
    seconds = rng.uniform(*SECONDS)
    if character == " ":
        return _make_silence(seconds)
    share = string.ascii_lowercase.index(character) / (len(string.ascii_lowercase) - 1)
    frequency = LOWEST * (HIGHEST / LOWEST) ** share * rng.uniform(0.99, 1.01)
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    fade = np.minimum(1, np.minimum(time, seconds - time) / 0.008)  # no clicks, and a gap between equal tones
    return rng.uniform(0.2, 0.5) * np.maximum(fade, 0) * np.sin(2 * np.pi * frequency * time)
