"""Norm penalties: their value and gradient, and what is reported."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dl_lab.tasks.classification import Classification
from dl_lab.tasks.penalty import Penalised
from dl_lab.types import LabelledBatch, read_tally


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()


@pytest.fixture
def batch():
    return LabelledBatch(torch.rand(7, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2, 0]))


def gradient(model, loss):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


@pytest.mark.parametrize("norm", ["l1", "l2", "squared_l2"])
def test_adds_the_norm_of_all_parameters_and_its_gradient(model, batch, norm):
    theta = torch.cat([p.detach().flatten() for p in model.parameters()])  # biases too
    value = {"l1": theta.abs().sum(), "l2": theta.square().sum().sqrt(), "squared_l2": theta.square().sum()}[norm]
    slope = {"l1": theta.sign(), "l2": theta / theta.norm(), "squared_l2": 2 * theta}[norm]
    plain, _ = Classification().loss(model, batch)
    total, tally = Penalised(Classification(), norm, 0.3).loss(model, batch)
    assert (total - plain).item() == pytest.approx(0.3 * float(value))
    assert torch.allclose(gradient(model, total), gradient(model, plain) + 0.3 * slope)
    assert read_tally(tally)["penalty"] == pytest.approx(0.3 * float(value))


@torch.no_grad()
def test_reports_the_tasks_own_loss(model, batch):
    task, penalised = Classification(), Penalised(Classification(), "l2", 10.0)
    _, own = task.loss(model, batch)
    _, tally = penalised.loss(model, batch)
    assert read_tally(tally)["loss"] == pytest.approx(read_tally(own)["loss"])
    assert read_tally(penalised.measure(model, batch)) == read_tally(task.measure(model, batch))


def test_the_norm_of_zeros_has_a_gradient(model, batch):
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    loss, _ = Penalised(Classification(), "l2", 0.3).loss(model, batch)
    assert gradient(model, loss).isfinite().all()


def test_frozen_parameters_do_not_count(model, batch):
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    _, tally = Penalised(Classification(), "squared_l2", 1.0).loss(model, batch)
    assert read_tally(tally)["penalty"] == pytest.approx(
        sum(p.detach().square().sum().item() for p in model[2].parameters())
    )


def test_the_unsquared_norm_pulls_with_constant_force(model):
    """The source's L2 is not weight decay: its gradient has the length `strength` for weights of any size."""
    lengths = []
    for scale in (1.0, 100.0):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(scale)
        total, _ = Penalised(_Nothing(), "l2", 0.01).loss(model, (torch.zeros(1),))
        lengths.append(float(gradient(model, total).norm()))
    assert lengths == pytest.approx([0.01, 0.01])


class _Nothing:
    """A task whose loss is always 0."""

    def loss(self, model, batch):
        return sum(0.0 * p.sum() for p in model.parameters()), {}

    def measure(self, model, batch):
        return {}


def test_strength_is_not_negative():
    with pytest.raises(ValueError, match="negative"):
        Penalised(Classification(), "l1", -1.0)
