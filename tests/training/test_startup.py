"""The plain optimizer step: the same bits as torch's own, no import of the compiler, and no use of an unknown torch."""

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

from dl_lab import configs as config
from dl_lab.training.schedules import Schedule
from dl_lab.training.startup import plain_step, spare_compiler

OPTIMIZERS = sorted(path.stem for path in (Path(dl_lab.conf.__file__).parent / "optimizer").glob("*.yaml"))
SCHEDULERS = ["step", "cosine", "exponential"]


@functools.cache
def config_of(group: str, name: str) -> dict:
    return config.Composer().compose([f"{group}={name}"]).config


def build_part(group: str, name: str):
    return config.build(config_of(group, name), group)


def train(optimizer_name: str, scheduler_name: str, plain: bool) -> list[torch.Tensor]:
    """Ten updates with momentum-like state in every optimizer, the rate scheduled after each."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
    optimizer = build_part("optimizer", optimizer_name)(model.parameters())
    schedule = Schedule(build_part("scheduler", scheduler_name), optimizer, every="step")
    schedule.plan(n_epochs=1, n_updates=10)
    step = plain_step(optimizer) if plain else optimizer.step
    for i in range(10):
        x = torch.rand(4, 6, generator=torch.Generator().manual_seed(i))
        model(x).square().sum().backward()
        step()
        optimizer.zero_grad(set_to_none=True)
        schedule.end_update()
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


def test_hooks_on_the_step_still_run():
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    step = plain_step(optimizer)
    calls = []
    hook = optimizer.register_step_post_hook(lambda *_: calls.append("step"))
    model(torch.ones(1, 2)).sum().backward()
    step()
    hook.remove()
    step()
    assert calls == ["step"]


def test_an_unknown_wrapper_around_step_is_kept(monkeypatch):
    """A later torch may wrap `step` in something that must run."""
    calls = []
    known = torch.optim.SGD.step

    @functools.wraps(known)
    def wrapper(self, closure=None):
        calls.append("wrapper")
        return known(self, closure)

    monkeypatch.setattr(torch.optim.SGD, "step", wrapper)
    monkeypatch.setattr(torch.optim.SGD.step, "hooked", True, raising=False)  # torch adds no hook wrapper of its own
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    step = plain_step(optimizer)
    assert step == optimizer.step
    model(torch.ones(1, 2)).sum().backward()
    step()
    assert calls == ["wrapper"]


@pytest.mark.parametrize(("attribute", "marked"), [("__dynamo_disable", True), ("__another_name", False)])
def test_only_methods_that_look_for_the_mark_get_it(monkeypatch, attribute, marked):
    """`torch._disable_dynamo` of a later torch may work differently: its methods are then left alone."""
    source = f"""
import functools
def disable(function):
    @functools.wraps(function)
    def inner(*arguments):
        return getattr(function, "{attribute}", function)(*arguments)
    return inner
"""
    module = {"__name__": "torch._compile"}
    exec(source, module)

    def zero_grad(self):
        pass

    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    spare_compiler(type("Optimizer", (), {"zero_grad": module["disable"](zero_grad)}))
    assert hasattr(zero_grad, "__dynamo_disable") == marked


def test_a_training_step_does_not_import_the_compiler():
    """It would cost as much as half of torch's own import."""
    code = """
import sys
from dl_lab import configs as config
from dl_lab.jobs.rehearsal import rehearse
from dl_lab.training.summary import summarise_layers
for optimizer in ("adam", "adamw", "rmsprop"):
    built = rehearse(config.Composer().compose([
        f"optimizer={optimizer}", "scheduler=cosine", "learner.clip_norm=1", "dataset.source=generated"]).config)
    built.learner.update(next(built.dataset.train.epoch(8, 0, 0)))
    built.learner.end_epoch({})
    rows = summarise_layers(built.learner.model, built.learner.task, next(built.dataset.train.batches(1)))
    assert sum(row["flops"] for row in rows) > 0
    loaded = [name for name in ("torch._dynamo", "torchvision", "sklearn", "matplotlib") if name in sys.modules]
    assert not loaded, (optimizer, loaded)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
