"""Toy speech that can be listened to and learned: each character is a tone of its own, a space is silence."""

from __future__ import annotations

import string

import numpy as np

SAMPLE_RATE = 22_050
LOWEST, HIGHEST = 300.0, 3600.0  # Hz, of "a" and "z"
SECONDS = (0.05, 0.08)  # of one character
SILENCE = (0.0, 0.1)  # before the first and after the last


def random_texts(n: int, seed: int) -> list[str]:
    """One to three words of two to four random letters each."""
    rng = np.random.default_rng(seed)

    def word() -> str:
        return "".join(rng.choice(list(string.ascii_lowercase), rng.integers(2, 5)))

    return [" ".join(word() for _ in range(rng.integers(1, 4))) for _ in range(n)]


def spoken(text: str, seed: int) -> np.ndarray:
    """Samples (n,) float32 at 22,050 Hz of a text of letters and spaces; length, pitch and loudness vary a little."""
    rng = np.random.default_rng(seed)
    parts = [_silence(rng.uniform(*SILENCE)), *(_tone(character, rng) for character in text)]
    samples = np.concatenate([*parts, _silence(rng.uniform(*SILENCE))])
    return (samples + rng.normal(scale=0.003, size=len(samples))).astype(np.float32)


def _silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * SAMPLE_RATE))


def _tone(character: str, rng: np.random.Generator) -> np.ndarray:
    seconds = rng.uniform(*SECONDS)
    if character == " ":
        return _silence(seconds)
    share = string.ascii_lowercase.index(character) / (len(string.ascii_lowercase) - 1)
    frequency = LOWEST * (HIGHEST / LOWEST) ** share * rng.uniform(0.99, 1.01)
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    fade = np.minimum(1, np.minimum(time, seconds - time) / 0.008)  # no clicks, and a gap between equal tones
    return rng.uniform(0.2, 0.5) * np.maximum(fade, 0) * np.sin(2 * np.pi * frequency * time)
