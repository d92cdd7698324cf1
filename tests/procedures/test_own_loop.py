"""A user's own training loop: `run.checkpoint` and `run.restore` continue it exactly."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dl_lab.runs.board import NoBoard
from dl_lab.runs.recorder import Run


def train(run: Run, stop_at: int | None = None) -> dict[str, float]:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    epoch = 0
    loss = 0.0
    state = run.restore()
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        epoch = state["epoch"]
    while epoch < 6:
        x = torch.randn(8, 3)
        error = (model(x) - x.sum(dim=1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        epoch += 1
        loss = error.item()
        run.log({"train/loss": loss}, step=epoch, epoch=epoch)
        if epoch == stop_at:
            raise RuntimeError("the machine went away")
        if epoch % 2 == 0:
            run.checkpoint({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch})
    return {"train/loss": loss}


def test_an_own_loop_resumes_exactly(tmp_path):
    whole = Run.create(tmp_path / "whole", {}, {}, NoBoard(), {})
    wanted = train(whole)
    with pytest.raises(RuntimeError, match="went away"):
        train(Run.create(tmp_path / "run", {}, {}, NoBoard(), {}), stop_at=5)
    found = train(Run.reopen(tmp_path / "run", {}, NoBoard()))
    assert found == wanted
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


def test_without_a_checkpoint_it_begins_again(tmp_path):
    with pytest.raises(RuntimeError, match="went away"):
        train(Run.create(tmp_path / "run", {}, {}, NoBoard(), {}), stop_at=1)
    run = Run.reopen(tmp_path / "run", {}, NoBoard())
    train(run)
    assert [record["epoch"] for record in run.records()] == [1, 2, 3, 4, 5, 6]
