"""A project on a folder of sounds: three kinds of tone."""

from __future__ import annotations

import io
import wave

from dl_lab.starters import common
from dl_lab.starters.images import CONFIG, MODEL

RATE = 16000  # samples a second
SECONDS = 0.4


def files() -> dict[str, str | bytes]:
    """Return the files of the project: name -> content."""
    made = common.make(
        about="Tells sounds apart in a folder of WAV files, one folder a class, with a net of our own.",
        question="Does a small net on log-mel images tell low, high and sliding tones apart?",
        overrides="  - override /dataset: audio_folder\n  - override /model: net\n",
        settings="dataset: {path: data/tones}\ntrainer: {max_epochs: 10, batch_size: 16}\n",
        predict="dl-lab predict last data/new.wav                # the class of a new sound",
    )
    return {**made, "NAME/models.py": MODEL, "conf/model/net.yaml": CONFIG, **_tones()}


def _tones() -> dict[str, bytes]:
    import numpy as np

    rng = np.random.default_rng(0)
    time = np.arange(int(RATE * SECONDS)) / RATE
    ranges = {"low": (200, 400), "high": (1500, 2500), "slide": (300, 600)}  # of the first frequency, in Hz

    def play(kind: str) -> bytes:
        start = rng.uniform(*ranges[kind])
        slope = 4000.0 if kind == "slide" else 0.0
        phase = 2 * np.pi * (start * time + slope * time**2 / 2)
        samples = 0.5 * np.sin(phase) + 0.05 * rng.standard_normal(len(time))
        return _wav((samples * 32767).clip(-32768, 32767).astype("<i2").tobytes())

    made = {f"data/tones/{kind}/{i:02d}.wav": play(kind) for kind in ranges for i in range(20)}
    return {**made, "data/new.wav": play("slide")}


def _wav(samples: bytes) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(RATE)
        sound.writeframes(samples)
    return file.getvalue()
