"""Write three kinds of tones as WAV files, one folder for each kind."""

from pathlib import Path

import numpy as np
import soundfile

RATE = 16000  # samples a second
rng = np.random.default_rng(0)
time = np.arange(int(0.4 * RATE)) / RATE
for kind, lowest, highest, slope in [("low", 200, 400, 0), ("high", 1500, 2500, 0), ("slide", 300, 600, 4000)]:
    Path("tones", kind).mkdir(parents=True, exist_ok=True)
    for i in range(30):
        frequency = rng.uniform(lowest, highest)
        tone = 0.5 * np.sin(2 * np.pi * (frequency * time + slope * time**2 / 2))
        soundfile.write(f"tones/{kind}/{i:02d}.wav", tone + 0.05 * rng.standard_normal(len(time)), RATE)
