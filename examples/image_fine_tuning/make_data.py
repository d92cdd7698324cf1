"""Write two folders of small images, one folder for each class: data/many/* and data/few/*."""

from pathlib import Path

import numpy as np
from PIL import Image

rng = np.random.default_rng(0)
rows, columns = np.mgrid[:16, :16]


def draw(shape: str) -> Image.Image:
    y, x, size = rng.integers(5, 11), rng.integers(5, 11), rng.integers(3, 5)
    down, right = abs(rows - y), abs(columns - x)
    inside = {
        "disc": down**2 + right**2 <= size**2,
        "square": np.maximum(down, right) <= size,
        "cross": (np.minimum(down, right) == 0) & (np.maximum(down, right) <= size),
        "diamond": down + right <= size,
        "ring": abs(down**2 + right**2 - size**2) <= size,
    }[shape]
    pixels = rng.integers(0, 60, (16, 16, 3))
    pixels[inside] = rng.integers(120, 256, 3)
    return Image.fromarray(pixels.astype(np.uint8))


for folder, shapes, n in [("many", ["disc", "square", "cross"], 100), ("few", ["diamond", "ring"], 24)]:
    for shape in shapes:
        place = Path("data", folder, shape)
        place.mkdir(parents=True, exist_ok=True)
        for i in range(n):
            draw(shape).save(place / f"{i:03d}.png")
