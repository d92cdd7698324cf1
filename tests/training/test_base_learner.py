"""A learner of one's own is `update` and `evaluate`: the base keeps the books, and a resumed training is bit-exact."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import CosineAnnealingLR, StepLR

from dl_lab.datasets.batches import TensorSplit
from dl_lab.datasets.dataset import Dataset
from dl_lab.runs.board import NoBoard
from dl_lab.runs.files import read_records
from dl_lab.runs.recorder import Run
from dl_lab.training.base_learner import BaseLearner
from dl_lab.training.schedules import Schedule
from dl_lab.training.trainer import Trainer
from dl_lab.types import ConfigError, LabelledBatch, Ratio, UserError


class Gan(BaseLearner):
    """A generative adversarial network (Goodfellow et al. 2014) whose discriminator learns in every update."""

    def __init__(self, n_features: int = 2, noise: int = 3):
        self.generator = nn.Sequential(nn.Linear(noise, 8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, n_features))
        self.discriminator = nn.Sequential(nn.Linear(n_features, 8), nn.LeakyReLU(), nn.Linear(8, 1))
        self.generator_adam = torch.optim.Adam(self.generator.parameters(), lr=1e-3)
        self.discriminator_adam = torch.optim.Adam(self.discriminator.parameters(), lr=1e-3)
        self.schedule = Schedule(CosineAnnealingLR, self.generator_adam)
        self.noise = noise
        self.n_updates = 0

    def update(self, batch, weight=1.0):
        self.n_updates += 1
        fake = self.generator(torch.randn(len(batch.x), self.noise, device=self.device))
        loss = F.softplus(-self.discriminator(batch.x)).mean() + F.softplus(self.discriminator(fake.detach())).mean()
        self.take_step(self.discriminator_adam, loss)
        if self.n_updates % 2 == 0:
            self.take_step(self.generator_adam, F.softplus(-self.discriminator(fake)).mean())
        return {"loss": Ratio(loss.detach() * len(batch.x), len(batch.x))}

    @staticmethod
    def take_step(optimizer, loss):
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    @torch.no_grad()
    def evaluate(self, batch):
        real = self.discriminator(batch.x) > 0
        return {"loss": Ratio(real.sum(), len(real))}


def data(n: int = 40) -> Dataset:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 2, generator=generator)
    split = TensorSplit(LabelledBatch(x, torch.zeros(n, dtype=torch.int64)), lambda batch: batch)
    return Dataset("points", "generated", split, split, split, "points")


def trainer(**settings) -> Trainer:
    return Trainer(max_epochs=4, batch_size=8, checkpoint_seconds=0, **settings)


def train(folder, learner=None, **settings):
    torch.manual_seed(0)
    run = Run.create(folder, {}, {}, NoBoard(), {})
    learner = learner or Gan()
    return learner, trainer(**settings).fit(learner, data(), run)


class Stop:
    """A callback that breaks the training off at a step, and has no other method."""

    def __init__(self, step: int):
        self.step = step

    def update_end(self, session):
        if session.step == self.step:
            raise UserError("the machine went away")


def test_a_gan_resumes_bit_for_bit(tmp_path):
    whole, _ = train(tmp_path / "whole")
    with pytest.raises(UserError, match="went away"):
        train(tmp_path / "broken", callbacks={"stop": Stop(12)}, checkpoint_steps=3)
    torch.manual_seed(99)  # another process has other random numbers
    again = Gan()
    trainer(checkpoint_steps=3).fit(again, data(), Run.reopen(tmp_path / "broken", {}, NoBoard()))
    assert again.n_updates == whole.n_updates == 20
    for name, tensor in whole.weights().items():
        assert torch.equal(tensor, again.weights()[name]), name
    assert read_records(tmp_path / "whole" / "metrics.jsonl") == read_records(tmp_path / "broken" / "metrics.jsonl")


def test_the_books_of_several_modules_and_optimizers():
    learner = Gan()
    assert list(learner.modules()) == ["generator", "discriminator"]
    assert learner.main_module() is learner.generator
    assert {"0.weight", "discriminator/0.weight"} <= set(learner.weights())
    n = sum(p.numel() for part in (learner.generator, learner.discriminator) for p in part.parameters())
    assert learner.n_parameters() == (n, n)
    learner.plan(10, 50)
    learner.generator_adam.step()
    assert learner.rates() == {"lr/generator_adam": 1e-3, "lr/discriminator_adam": 1e-3}
    learner.end_epoch({})
    assert learner.rates()["lr/generator_adam"] < 1e-3 == learner.rates()["lr/discriminator_adam"]


def test_weights_go_back_where_they_came_from():
    torch.manual_seed(0)
    one = Gan()
    other = Gan()
    other.load_weights(one.weights())
    assert all(torch.equal(a, other.weights()[name]) for name, a in one.weights().items())


class Counting(BaseLearner):
    def __init__(self):
        self.model = nn.Linear(1, 1)
        self.same = self.model
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1.0)
        self.halving = StepLR(self.optimizer, step_size=1, gamma=0.5)
        self.mean = torch.zeros(2)
        self.generator = torch.Generator().manual_seed(5)


def test_numbers_tensors_and_generators_are_part_of_the_state():
    one = Counting()
    one.mean += 3
    one.optimizer.step()
    one.end_epoch({})
    drawn = torch.rand(2, generator=one.generator)
    other = Counting()
    torch.rand(7, generator=other.generator)
    other.load_state_dict(one.state_dict())
    assert torch.equal(other.mean, torch.full((2,), 3.0))
    assert other.rates() == {"lr": 0.5}
    following = torch.rand(2, generator=other.generator)
    assert torch.equal(torch.rand(2, generator=one.generator), following) and not torch.equal(drawn, following)
    assert list(one.modules()) == ["model"]  # a second name is no second module


def test_a_bare_parameter_is_refused_because_the_optimizer_would_lose_it():
    learner = Counting()
    learner.temperature = nn.Parameter(torch.ones(1))  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(UserError, match=r"temperature is a bare nn.Parameter"):
        learner.weights()


def test_several_processes_are_refused_in_one_sentence():
    with pytest.raises(ConfigError, match="A Gan works in one process"):
        Gan().distribute(2)


class Incomplete:
    def update(self, batch):
        return {}


def test_a_learner_without_the_base_is_told_what_it_lacks():
    with pytest.raises(ConfigError, match=r"Incomplete lacks initialise, start, to, plan, .*BaseLearner"):
        trainer().rehearse(Incomplete(), data())  # pyright: ignore[reportArgumentType]


class NoLoss(Gan):
    def update(self, batch, weight=1.0):
        return {"error": super().update(batch)["loss"]}


def test_a_tally_without_a_loss_is_refused_before_the_training():
    with pytest.raises(ConfigError, match=r"needs an entry 'loss', .* it has error"):
        trainer().rehearse(NoLoss(), data())


@pytest.mark.parametrize(("every", "length"), [("epoch", 10), ("step", 50)])
def test_a_schedule_is_as_long_as_the_training_in_its_own_unit(every, length):
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    schedule = Schedule(partial(CosineAnnealingLR, T_max=None), optimizer, every)  # pyright: ignore[reportArgumentType]
    schedule.plan(10, 50)
    for _ in range(length):
        optimizer.step()
        schedule.end_update()
        schedule.end_epoch({})
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)
