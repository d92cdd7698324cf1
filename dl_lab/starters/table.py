"""A project on a table: houses and their prices."""

from __future__ import annotations

import random

from dl_lab.starters import common

MODEL = '''"""A small net for tables."""

from torch import nn


class Net(nn.Sequential):
    """(batch, n_features) -> (batch, n_classes): classes, or one number of a regression."""

    def __init__(self, n_features: int, n_classes: int, width: int = 32):
        super().__init__(
            nn.Flatten(),
            nn.Linear(n_features, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, n_classes),
        )
'''
CONFIG = """# Our own net.
_target_: NAME.models.Net
n_features: ${product:${dataset.input_shape}}
n_classes: ${dataset.n_classes}
width: 32
"""
FOLDS = """# Which learning rate is best in a cross-validation? Folds repeat a setting, as seeds do.
grid:
  dataset/rows: [folds]
  optimizer.lr: [0.01, 0.001]
  dataset.rows.fold: [0, 1, 2, 3, 4]
replicates: [dataset.rows.fold]
"""


def files() -> dict[str, str | bytes]:
    """Return the files of the project: name -> content."""
    made = common.make(
        about="Predicts the price of a house from a CSV, with a net of our own.",
        question="How well does a small net predict the price of a house?",
        overrides="  - override /dataset: table\n  - override /model: net\n",
        settings="dataset: {path: data/houses.csv, target: price}\ntrainer: {max_epochs: 20, batch_size: 16}\n",
        predict="dl-lab predict last data/new_houses.csv          # predict new rows",
    )
    new = "".join(line.rpartition(",")[0] + "\n" for line in _houses(5, seed=1).splitlines())
    return {
        **made,
        "NAME/models.py": MODEL,
        "conf/model/net.yaml": CONFIG,
        "conf/sweep/folds.yaml": FOLDS,
        "data/houses.csv": _houses(300, seed=0),
        "data/new_houses.csv": new,
    }


def _houses(n: int, seed: int) -> str:
    rng = random.Random(seed)
    lines = ["area,rooms,age,district,price"]
    for _ in range(n):
        area = rng.randint(30, 180)
        rooms = max(1, area // 28 + rng.randint(-1, 1))
        age = rng.randint(0, 80)
        district = rng.choice(["centre", "north", "south"])
        base = {"centre": 4200, "north": 2900, "south": 2300}[district]
        price = base * area - 900 * age + 5000 * rooms + rng.gauss(0, 9000)
        lines.append(f"{area},{rooms},{age},{district},{price:.0f}")
    return "\n".join(lines) + "\n"
