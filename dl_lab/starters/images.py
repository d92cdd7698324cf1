"""A project on a folder of images: three shapes."""

from __future__ import annotations

import io

from dl_lab.starters import common

MODEL = '''"""A small convolutional net."""

from collections.abc import Sequence

from torch import nn


class Net(nn.Sequential):
    """Images (batch, channels, height, width) -> (batch, n_classes) logits."""

    def __init__(self, input_shape: Sequence[int], n_classes: int, width: int = 16):
        super().__init__(
            nn.Conv2d(input_shape[0], width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(width * 16, n_classes),
        )
'''
CONFIG = """# Our own net.
_target_: NAME.models.Net
input_shape: ${dataset.input_shape}
n_classes: ${dataset.n_classes}
width: 16
"""
SHAPES = ("disc", "square", "cross")
SIZE = 16


def files() -> dict[str, str | bytes]:
    """Return the files of the project: name -> content."""
    made = common.make(
        about="Tells shapes apart in a folder of images, one folder a class, with a net of our own.",
        question="Does a small convolutional net tell discs, squares and crosses apart?",
        overrides="  - override /dataset: image_folder\n  - override /model: net\n",
        settings="dataset: {storage: {data_dir: data}, folder: shapes, n_classes: 3, input_shape: [3, 16, 16]}\n"
        "trainer: {max_epochs: 10, batch_size: 16}\n",
        predict="dl-lab predict last data/new.png                 # the class of a new image",
    )
    return {**made, "NAME/models.py": MODEL, "conf/model/net.yaml": CONFIG, **_images()}


def _images() -> dict[str, bytes]:
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIZE, :SIZE]

    def draw(shape: str) -> bytes:
        y, x = rng.integers(5, 11, 2)
        size = int(rng.integers(3, 5))
        down = np.abs(rows - y)
        right = np.abs(columns - x)
        inside = {
            "disc": down**2 + right**2 <= size**2,
            "square": np.maximum(down, right) <= size,
            "cross": (np.minimum(down, right) == 0) & (np.maximum(down, right) <= size),
        }[shape]
        colour = rng.integers(120, 256, 3)
        pixels = rng.integers(0, 60, (SIZE, SIZE, 3))
        pixels[inside] = colour
        file = io.BytesIO()
        Image.fromarray(pixels.astype(np.uint8)).save(file, format="PNG")
        return file.getvalue()

    made = {f"data/shapes/{shape}/{i:02d}.png": draw(shape) for shape in SHAPES for i in range(30)}
    return {**made, "data/new.png": draw("disc")}
