"""The optimizers' short way: the same bits as torch's own, and torch's compiler is never imported."""

from __future__ import annotations

import copy
import functools
import subprocess
import sys
import warnings
from pathlib import Path

import dl_lab.conf
import pytest
import torch
from torch import nn

from dl_lab import config
from dl_lab.training.startup import plain_step

OPTIMIZERS = sorted(path.stem for path in (Path(dl_lab.conf.__file__).parent / "optimizer").glob("*.yaml"))
SCHEDULERS = ["step", "cosine", "exponential"]


@functools.cache
def config_of(group: str, name: str) -> dict:
    return config.Composer().compose([f"{group}={name}"]).config


def built(group: str, name: str):
    return config.build(config_of(group, name), group)


def train(optimizer_name: str, scheduler_name: str, plain: bool) -> list[torch.Tensor]:
    """Ten updates with momentum-like state in every optimizer, the rate scheduled after each."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    optimizer = built("optimizer", optimizer_name)(model.parameters())
    scheduler = built("scheduler", scheduler_name)(optimizer)
    step = plain_step(optimizer) if plain else optimizer.step
    for i in range(10):
        x = torch.rand(4, 6, generator=torch.Generator().manual_seed(i))
        model(x).square().sum().backward()
        step()
        optimizer.zero_grad(set_to_none=True)
        scheduler.step()
    return [parameter.detach() for parameter in model.parameters()]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_plain_step_is_the_optimizers_step_bit_for_bit(optimizer, scheduler):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own = train(optimizer, scheduler, plain=False)
        plain = train(optimizer, scheduler, plain=True)
    assert all(torch.equal(a, b) for a, b in zip(own, plain, strict=True))


def test_plain_step_leaves_other_optimizers_alone():
    class Own(torch.optim.SGD):
        pass

    model = nn.Linear(2, 1)
    for optimizer in (Own(model.parameters(), lr=1.0), torch.optim.SGD(model.parameters(), differentiable=True)):
        assert plain_step(optimizer) == optimizer.step


def test_plain_step_keeps_no_graph():
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    start = copy.deepcopy(model.weight.detach())
    model(torch.ones(1, 2)).sum().backward()
    plain_step(optimizer)()
    assert model.weight.is_leaf
    assert torch.equal(model.weight, start - 1)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_a_training_step_does_not_import_the_compiler(optimizer):
    """It would cost as much as half of torch's own import."""
    code = f"""
import sys
from dl_lab import config
built = config.rehearse(config.Composer().compose(
    ["optimizer={optimizer}", "scheduler=cosine", "learner.clip_norm=1", "dataset.source=generated"]).config)
built.learner.update(next(built.dataset.train.epoch(8, 0, 0)))
built.learner.end_epoch({{}})
loaded = [name for name in ("torch._dynamo", "torchvision", "sklearn", "matplotlib") if name in sys.modules]
assert not loaded, loaded
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
