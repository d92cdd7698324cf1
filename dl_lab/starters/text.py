"""A project on a table of texts: short reviews and whether they are good."""

from __future__ import annotations

import random

from dl_lab.starters import common

MODEL = '''"""A bag of word vectors."""

import torch
from torch import Tensor, nn


class Net(nn.Module):
    """Token numbers x (batch, length) and mask (batch, length), True for a token -> (batch, n_classes) logits."""

    def __init__(self, vocabulary_size: int, n_classes: int, width: int = 32):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, width)
        self.head = nn.Linear(width, n_classes)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        vectors = self.embedding(x) * mask[..., None]
        mean = vectors.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1)
        return self.head(torch.relu(mean))
'''
CONFIG = """# Our own net.
_target_: NAME.models.Net
vocabulary_size: ${dataset.vocabulary_size}
n_classes: ${dataset.n_classes}
width: 32
"""
WORDS = {
    "good": ("lovely", "moving", "clever", "warm", "bright", "gripping"),
    "bad": ("dull", "cold", "clumsy", "slow", "loud", "empty"),
}
THINGS = ("story", "cast", "music", "ending", "dialogue", "scenery")
NEW = "a clever and warm story\nthe music is loud and the cast rather cold\n"


def files() -> dict[str, str | bytes]:
    """Return the files of the project: name -> content."""
    made = common.make(
        about="Tells good from bad reviews in a CSV, with a net of our own.",
        question="Do word vectors alone tell good from bad reviews?",
        overrides="  - override /dataset: text_table\n  - override /model: net\n",
        settings="dataset: {path: data/reviews.csv, text: review, label: rating, length: 32}\n"
        "trainer: {max_epochs: 20, batch_size: 16}\n",
        predict="dl-lab predict last data/new.txt                 # the class of each line; a text in quotes works too",
    )
    return {
        **made,
        "NAME/models.py": MODEL,
        "conf/model/net.yaml": CONFIG,
        "data/reviews.csv": _reviews(240),
        "data/new.txt": NEW,
    }


def _reviews(n: int) -> str:
    rng = random.Random(0)
    lines = ["review,rating"]
    for i in range(n):
        rating = ("good", "bad")[i % 2]
        first, second = rng.sample(WORDS[rating], 2)
        one, other = rng.sample(THINGS, 2)
        lines.append(f"the {one} is {first} and the {other} rather {second},{rating}")
    return "\n".join(lines) + "\n"
