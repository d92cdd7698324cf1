"""A project with a training loop of its own: a line through points."""

from __future__ import annotations

from dl_lab.starters import common

LOOP = '''"""A training loop of our own. dl-lab keeps its records, resumes it exactly and sweeps over its arguments."""

import torch
from torch import nn


class Line:
    """Fits a line to noisy points.

    Args:
        lr: learning rate.
        epochs: updates; each is on all points.
        noise: standard deviation of the points around the line.
    """

    def __init__(self, lr: float = 0.1, epochs: int = 50, noise: float = 0.1):
        self.lr = lr
        self.epochs = epochs
        self.noise = noise

    def __call__(self, run) -> dict[str, float]:
        x = torch.linspace(-1, 1, 40)[:, None]
        y = 2 * x + 1 + self.noise * torch.randn_like(x)
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=self.lr)
        state = run.restore()
        first = 1
        if state is not None:
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
            first = state["epoch"] + 1
            x, y = state["x"], state["y"]
        loss = judged = torch.tensor(float("nan"))
        for epoch in range(first, self.epochs + 1):
            loss = nn.functional.mse_loss(model(x[::2]), y[::2])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                judged = nn.functional.mse_loss(model(x[1::2]), y[1::2])
            run.log({"train/loss": loss.item(), "val/loss": judged.item()}, step=epoch, epoch=epoch)
            parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            run.checkpoint({**parts, "epoch": epoch, "x": x, "y": y})
        return {"val/loss": judged.item(), "slope": model.weight.item(), "offset": model.bias.item()}
'''
CONFIG = """# Our own loop.
_target_: NAME.loop.Line
lr: 0.1
epochs: 50
noise: 0.1
"""
SWEEP = """# Which learning rate is best, over three seeds?
grid:
  procedure.lr: [0.3, 0.1, 0.03]
  seed: [0, 1, 2]
"""


def files() -> dict[str, str | bytes]:
    """Return the files of the project: name -> content."""
    made = common.make(
        about="Fits a line with a training loop of our own.",
        question="Does the loop find the line?",
        overrides="  - override /procedure: line\n",
        settings="procedure: {epochs: 100}\n",
        predict="dl-lab compare                                   # the runs side by side",
        short="procedure.epochs=2",
        sweep=SWEEP,
    )
    return {**made, "NAME/loop.py": LOOP, "conf/procedure/line.yaml": CONFIG}
