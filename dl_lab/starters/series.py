"""A project on a time series: sales of a shop by day."""

from __future__ import annotations

import math
import random
from datetime import date, timedelta

from dl_lab.starters import common

MODEL = '''"""A small recurrent forecaster."""

from torch import Tensor, nn


class Net(nn.Module):
    """Windows (batch, length, n_features) -> the next steps (batch, horizon, n_features)."""

    def __init__(self, n_features: int, horizon: int, width: int = 32):
        super().__init__()
        self.horizon = horizon
        self.memory = nn.GRU(n_features, width, batch_first=True)
        self.head = nn.Linear(width, horizon * n_features)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.memory(x)
        return self.head(states[:, -1]).view(len(x), self.horizon, x.shape[2])
'''
CONFIG = """# Our own net.
_target_: NAME.models.Net
n_features: ${dataset.n_features}
horizon: ${dataset.horizon}
width: 32
"""


def files() -> dict[str, str | bytes]:
    """Return the files of the project: name -> content."""
    made = common.make(
        about="Forecasts the sales of a shop for the next days from a CSV, with a net of our own.",
        question="How well does a small recurrent net forecast the next three days?",
        overrides="  - override /dataset: series\n  - override /model: net\n",
        settings="dataset: {path: data/sales.csv, window: 14, horizon: 3, targets: [sales]}\n"
        "trainer: {max_epochs: 15, batch_size: 32}\n",
        predict="dl-lab predict last data/new_sales.csv           # forecast what follows a file",
    )
    return {
        **made,
        "NAME/models.py": MODEL,
        "conf/model/net.yaml": CONFIG,
        "data/sales.csv": _sales(0, 500),
        "data/new_sales.csv": _sales(500, 530),
    }


def _sales(first: int, end: int) -> str:
    """Return the days from number `first` to before `end`, as CSV."""
    rng = random.Random(first)
    lines = ["day,sales,visitors"]
    for i in range(first, end):
        day = date(2024, 1, 1) + timedelta(days=i)
        visitors = 200 + 60 * math.sin(2 * math.pi * i / 7) + 30 * math.sin(2 * math.pi * i / 91) + rng.gauss(0, 8)
        lines.append(f"{day},{visitors * 3 + rng.gauss(0, 15):.1f},{visitors:.0f}")
    return "\n".join(lines) + "\n"
