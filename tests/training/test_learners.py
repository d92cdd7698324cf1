"""One update: the gradient of the whole batch, whatever the micro-batches, the precision, the memory."""

from __future__ import annotations

import copy
import gc
import weakref
from functools import partial

import pytest
import torch
from torch import nn

from dl_lab.models.mlp import MLP
from dl_lab.models.oct_cnn import PooledCNN
from dl_lab.tasks.classification import Classification
from dl_lab.training.learners import GradientLearner
from dl_lab.types import LabelledBatch, read_tally

SGD = partial(torch.optim.SGD, lr=0.1)


def learner_of(model: nn.Module, **options) -> GradientLearner:
    return GradientLearner(model, Classification(), options.pop("optimizer", SGD), **options)


def batch_of(n: int, seed: int = 0) -> LabelledBatch:
    generator = torch.Generator().manual_seed(seed)
    return LabelledBatch(torch.rand(n, 1, 8, 8, generator=generator), torch.randint(10, (n,), generator=generator))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return MLP((1, 8, 8), 10, [16])


def weights(learner: GradientLearner) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in learner.weights().values()]).clone()


@pytest.mark.parametrize(("n", "parts"), [(12, 2), (13, 3), (7, 5), (3, 8)])
def test_micro_batches_give_the_gradient_of_the_whole_batch(model, n, parts):
    whole, split = learner_of(model), learner_of(copy.deepcopy(model), accumulation=parts)
    tallies = [learner.update(batch_of(n)) for learner in (whole, split)]
    torch.testing.assert_close(weights(split), weights(whole), rtol=1e-5, atol=1e-7)
    assert read_tally(tallies[1]) == pytest.approx(read_tally(tallies[0]), rel=1e-5)


class Narrow(nn.Module):
    """Has memory for `most` items at once."""

    def __init__(self, model: nn.Module, most: int) -> None:
        super().__init__()
        self.model, self.most, self.sizes = model, most, []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x))
        if len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.model(x)


def test_a_full_memory_halves_the_micro_batch_and_changes_nothing_else(model):
    narrow = Narrow(copy.deepcopy(model), most=3)
    whole, learner = learner_of(model), learner_of(narrow)
    whole.update(batch_of(12))
    with pytest.warns(UserWarning, match="Out of memory") as warned:
        learner.update(batch_of(12))
    assert [str(w.message).split("from")[0] for w in warned] == [
        "Out of memory: micro-batches of 6 items ",
        "Out of memory: micro-batches of 3 items ",
    ]
    assert learner.notes() == {"accumulation": 4}
    torch.testing.assert_close(weights(learner), weights(whole), rtol=1e-5, atol=1e-7)
    narrow.sizes.clear()
    learner.update(batch_of(12, seed=1))
    assert narrow.sizes == [3, 3, 3, 3], "the next batch starts with the size that fitted"


def test_a_full_memory_halves_the_batch_of_an_evaluation_too(model):
    narrow = Narrow(model, most=3)
    learner = learner_of(narrow)
    with pytest.warns(UserWarning, match="Out of memory: evaluation batches of [63] items from now on"):
        tally = learner.evaluate(batch_of(11))
    assert read_tally(tally) == pytest.approx(read_tally(learner_of(model).evaluate(batch_of(11))), rel=1e-5)
    assert learner.notes() == {"accumulation": 1, "evaluation_parts": 4}
    narrow.sizes.clear()
    learner.evaluate(batch_of(11))
    assert narrow.sizes == [3, 3, 3, 2], "the next batch starts with the size that fitted"


@pytest.mark.parametrize("step", ["update", "evaluate"])
def test_a_device_that_cannot_hold_one_item_is_an_error(model, step):
    learner = learner_of(Narrow(model, most=0))
    with pytest.warns(UserWarning, match="Out of memory"), pytest.raises(torch.OutOfMemoryError):
        getattr(learner, step)(batch_of(4))


def test_out_of_memory_raise(model):
    learner = learner_of(Narrow(model, most=3), out_of_memory="raise")
    for step in (learner.update, learner.evaluate):
        with pytest.raises(torch.OutOfMemoryError):
            step(batch_of(12))
    assert learner.accumulation == learner.evaluation_parts == 1


def test_accumulation_survives_a_checkpoint(model):
    learner = learner_of(copy.deepcopy(model), accumulation=4)
    other = learner_of(model)
    other.load_state_dict(learner.state_dict())
    assert other.notes() == {"accumulation": 4}


@pytest.mark.parametrize("accumulation", [1, 3])
def test_clipping_bounds_the_step(model, accumulation):
    """With plain SGD at lr 1 the step is the clipped gradient: the same direction, at most that long."""
    sgd = partial(torch.optim.SGD, lr=1.0)
    start = torch.cat([p.detach().flatten() for p in model.parameters()]).clone()
    free = learner_of(copy.deepcopy(model), optimizer=sgd, accumulation=accumulation)
    clipped = learner_of(model, optimizer=sgd, clip_norm=0.01, accumulation=accumulation)
    for learner in (free, clipped):
        learner.update(batch_of(9))
    long, short = start - weights(free), start - weights(clipped)
    assert long.norm() > 0.1
    assert short.norm() == pytest.approx(0.01, rel=1e-3)
    assert torch.cosine_similarity(long, short, dim=0) > 0.9999


def test_bf16_autocast_runs_on_the_cpu_and_trains(model):
    learner = learner_of(model, precision="bf16")
    seen = []
    model[1].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    losses = [read_tally(learner.update(batch_of(16)))["loss"] for _ in range(30)]
    learner.evaluate(batch_of(4))
    assert set(seen) == {torch.bfloat16}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert losses[-1] < losses[0] / 1.2


def test_overfits_one_tiny_batch(model):
    learner, batch = learner_of(model, optimizer=partial(torch.optim.Adam, lr=0.01)), batch_of(16)
    for _ in range(300):
        learner.update(batch)
    measured = read_tally(learner.evaluate(batch))
    assert measured["accuracy"] == 1.0
    assert measured["loss"] < 0.01


def test_evaluating_changes_nothing(model):
    learner, state = learner_of(model), torch.get_rng_state()
    before = weights(learner)
    tally = learner.evaluate(batch_of(8))
    assert torch.equal(weights(learner), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(parameter.grad is not None for parameter in model.parameters())
    assert read_tally(tally).keys() == {"loss", "accuracy", "balanced_accuracy"}


def test_channels_last_changes_the_memory_order_only():
    torch.manual_seed(0)
    plain = learner_of(PooledCNN((1, 28, 28), 4, dropout=0.0))
    other = learner_of(copy.deepcopy(plain.model), channels_last=True)
    generator = torch.Generator().manual_seed(0)
    batch = LabelledBatch(torch.rand(8, 1, 28, 28, generator=generator), torch.arange(8) % 4)
    for learner in (plain, other):
        learner.to(torch.device("cpu"))
        for _ in range(3):
            learner.update(batch)
    assert other.model[0][3].weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(weights(other), weights(plain), rtol=1e-4, atol=1e-6)


def test_frozen_parameters_stay_and_are_counted(model):
    model[1].weight.requires_grad_(False)
    frozen = model[1].weight.clone()
    learner = learner_of(model)
    learner.update(batch_of(8))
    assert torch.equal(model[1].weight, frozen)
    assert learner.n_parameters() == (64 * 16 + 16 + 16 * 10 + 10, 16 + 16 * 10 + 10)


def test_accumulation_below_one_is_refused(model):
    with pytest.raises(ValueError, match="accumulation 0 is not at least 1"):
        learner_of(model, accumulation=0)


@pytest.mark.parametrize("scheduler", [None, partial(torch.optim.lr_scheduler.StepLR, step_size=1)])
def test_a_learner_is_freed_with_its_last_reference(scheduler):
    """A process that runs job after job must not keep the weights of those before until garbage is collected."""
    gc.disable()
    try:
        learner = learner_of(MLP((1, 8, 8), 10, [16]), scheduler=scheduler)
        learner.update(batch_of(2))
        learner.end_epoch({})
        weight = weakref.ref(next(learner.model.parameters()))
        del learner
        assert weight() is None
    finally:
        gc.enable()
