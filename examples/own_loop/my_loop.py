"""A training loop: fit y = x1 + x2 + x3 on new points in every epoch."""

import torch
from torch import nn


def regress(run, epochs: int, lr: float) -> dict[str, float]:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr)
    epoch, loss = 0, 0.0
    state = run.restore()  # None in a new run
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        epoch, loss = state["epoch"], state["loss"]
    while epoch < epochs:
        x = torch.randn(64, 3)
        error = (model(x)[:, 0] - x.sum(dim=1)).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        epoch, loss = epoch + 1, error.item()
        run.log({"train/loss": loss}, step=epoch, epoch=epoch)
        run.checkpoint({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch, "loss": loss})
    metrics = {"train/loss": loss}
    run.finish(metrics)
    return metrics
