"""The rehearsal explains a learner, a task or a loss that returns something else than the protocol says."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from dl_lab.datasets.dataset import Dataset
from dl_lab.tasks.classification import Classification
from dl_lab.training.base_learner import BaseLearner
from dl_lab.training.evaluation import judge
from dl_lab.training.learners import GradientLearner
from dl_lab.training.rehearsal import rehearse_fit
from dl_lab.types import ConfigError, Ratio, UserError, read_tally

X = torch.rand(8, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8) % 3
DATA = Dataset.from_arrays((X, Y), (X, Y), (X, Y))


class Own(BaseLearner):
    def __init__(self, tally: Any, evaluated: Any = None) -> None:
        self.net = nn.Linear(4, 3)
        self.optimizer = torch.optim.SGD(self.net.parameters(), 0.1)
        self.tally = tally
        self.evaluated = evaluated

    def update(self, batch, weight=1.0):
        loss = F.cross_entropy(self.net(batch.x), batch.y)
        loss.backward()
        self.optimizer.step()
        return self.tally(loss, len(batch.y))

    def evaluate(self, batch):
        loss = F.cross_entropy(self.net(batch.x), batch.y)
        return self.evaluated(loss) if self.evaluated else {"loss": Ratio(loss * len(batch.y), len(batch.y))}


class Task:
    def __init__(self, answer: Any, measured: Any = None) -> None:
        self.answer = answer
        self.measured = measured

    def loss(self, model, batch):
        loss = F.cross_entropy(model(batch.x), batch.y)
        return self.answer(loss, {"loss": Ratio(loss.detach(), 1)})

    def measure(self, model, batch):
        loss = F.cross_entropy(model(batch.x), batch.y)
        return self.measured(loss) if self.measured else {"loss": Ratio(loss, 1)}


def rehearse(learner: Any) -> dict[str, float]:
    return dict(rehearse_fit(learner, DATA, 1, ["val/loss"]))


def with_task(task: Any) -> GradientLearner:
    return GradientLearner(nn.Linear(4, 3), task, partial(torch.optim.SGD, lr=0.1))


@pytest.mark.parametrize(
    ("tally", "words"),
    [
        (lambda loss, n: None, "Own.update must return a tally, .* it returned nothing"),
        (lambda loss, n: loss, "it returned a scalar tensor"),
        (lambda loss, n: {"loss": loss.item()}, "the entry 'loss' .* must be a measure like Ratio.* it is a float"),
        (lambda loss, n: {"loss": loss}, "the entry 'loss' .* it is a scalar tensor"),
        (lambda loss, n: {"loss": Ratio(torch.ones(3), n)}, r"needs a scalar as its sum; it has .* shape \(3,\)"),
        (lambda loss, n: {"loss": Ratio(loss.detach(), torch.ones(3))}, "needs a scalar as its count"),
        (lambda loss, n: {"loss": Ratio(loss, n)}, r"holds the graph of autograd.*Write loss.detach\(\)"),
        (lambda loss, n: {"error": Ratio(loss.detach(), n)}, "needs an entry 'loss', .* it has error"),
    ],
)
def test_a_learner_that_returns_something_else(tally, words):
    with pytest.raises(ConfigError, match=words):
        rehearse(Own(tally))


@pytest.mark.parametrize(
    ("task", "words"),
    [
        (
            Task(lambda loss, tally: loss),
            "Task.loss must return the loss, a scalar, and a tally.*returned a scalar tens",
        ),
        (Task(lambda loss, tally: (tally, loss)), r"it returned \(a dict, a scalar tensor\)"),
        (Task(lambda loss, tally: (loss.detach(), tally)), "has no gradient: it was detached"),
        (Task(lambda loss, tally: (loss.repeat(2), tally)), r"the mean over the batch.*shape \(2,\)"),
        (Task(lambda loss, tally: (loss, {"loss": 0.5})), "Task.loss: the entry 'loss' .* it is a float"),
        (Task(lambda *pair: pair, lambda loss: loss), "Task.measure must return a tally.* it returned a scalar tensor"),
        (Task(lambda *pair: pair, lambda loss: {"acc": loss}), "Task.measure: the entry 'acc'.* it is a scalar tensor"),
        (nn.CrossEntropyLoss(), "CrossEntropyLoss is no task: it lacks a method loss.* goes into the task.loss"),
        (
            Classification(loss=lambda x, y: F.cross_entropy(x, y, reduction="none")),
            r"its loss is a tensor of the shape",
        ),
    ],
)
def test_a_task_that_returns_something_else(task, words):
    with pytest.raises(ConfigError, match=words):
        rehearse(with_task(task))


@pytest.mark.parametrize(
    ("column", "kind"), [(X.double(), "float64"), (X.half(), "float16"), ((X * 255).byte(), "uint8")]
)
def test_inputs_of_another_type_than_the_weights(column, kind):
    learner = GradientLearner(nn.Linear(4, 3), Classification(), partial(torch.optim.SGD, lr=0.1))
    data = Dataset.from_arrays((column, Y), (column, Y), (column, Y))
    with pytest.raises(ConfigError, match=f"column x of the data is {kind}, and the weights .* are float32. Convert"):
        rehearse_fit(learner, data, 1, [])


@pytest.mark.parametrize("part", ["val", "test"])
def test_items_of_another_shape_in_a_later_split(part):
    splits = {"train": (X, Y), "val": (X, Y), "test": (X, Y), part: (X[:, :3], Y)}
    with pytest.raises(
        ConfigError, match=rf"items of {part} do not fit .* x float32 \(3,\).* train have x float32 \(4,\)"
    ):
        rehearse_fit(with_task(Task(lambda *pair: pair)), Dataset.from_arrays(**splits), 1, [])


def test_a_model_may_take_items_of_several_shapes():
    """A net that averages over the pixels takes larger test images."""
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    learner = GradientLearner(net, Classification(), partial(torch.optim.SGD, lr=0.1))
    small, large = torch.rand(8, 1, 5, 5), torch.rand(8, 1, 9, 9)
    rehearse_fit(learner, Dataset.from_arrays((small, Y), (small, Y), (large, Y)), 1, ["val/loss"])


def test_something_else_than_a_data_set():
    with pytest.raises(ConfigError, match=r"The data set is \(a DataLoader, a DataLoader\), not a Dataset"):
        rehearse_fit(with_task(Classification()), (DataLoader([1]), DataLoader([1])), 1, [])  # pyright: ignore[reportArgumentType]


def test_what_the_protocol_says_passes():
    assert set(rehearse(Own(lambda loss, n: {"loss": Ratio(loss.detach(), n)}))) == {"val/loss"}
    assert set(rehearse(with_task(Task(lambda *pair: pair)))) == {"val/loss"}


def test_an_error_of_the_tasks_own_stays_itself():
    def answer(loss, tally):
        raise KeyError("weights")

    with pytest.raises(KeyError, match="weights"):
        rehearse(with_task(Task(answer)))


def test_a_learner_that_forgets_no_grad_keeps_no_graph_while_it_judges():
    tally = judge(Own(lambda loss, n: {}), DATA.val, 4)
    assert not tally["loss"].sum.requires_grad


def test_a_mean_over_nothing_is_one_sentence():
    with pytest.raises(UserError, match="loss is a mean over nothing: the count of its Ratio is 0"):
        read_tally({"loss": Ratio(0.0, 0)})


# -- weights that could not be saved, or not be loaded at the end of a training ---------------------------------------


class WithState(nn.Linear):
    def get_extra_state(self):
        return {"seen": 3}


def with_buffer(buffer: torch.Tensor) -> nn.Module:
    model = nn.Linear(4, 3)
    model.register_buffer("table", buffer)
    return model


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.LazyLinear(3), r"The weight weight has no size before the first batch \(a lazy layer\)"),
        (WithState(4, 3), "The state of the model has _extra_state, a dict, and dl-lab saves tensors only"),
        (nn.ModuleDict({"a/b": nn.Linear(4, 3)}), "The name of the weight a/b.weight has a slash"),
        (with_buffer(torch.rand(3).expand(2, 3)), "table is an expanded tensor, which cannot be loaded"),
    ],
)
def test_weights_that_cannot_be_saved_or_loaded_are_refused_before_the_training(model, words):
    own = Own(lambda loss, n: {"loss": Ratio(loss.detach(), n)})
    own.net = model
    with pytest.raises(ConfigError, match=words):
        rehearse(own)


@pytest.mark.parametrize("buffer", [torch.rand(3).expand(1, 3), torch.rand(4, 6).T, torch.rand(0), torch.tensor(3)])
def test_other_buffers_are_fine(buffer):
    own = Own(lambda loss, n: {"loss": Ratio(loss.detach(), n)})
    own.net = with_buffer(buffer)
    own.optimizer = torch.optim.SGD(own.net.parameters(), 0.1)
    assert set(rehearse(own)) == {"val/loss"}


def test_names_of_other_classes_are_refused_before_the_training():
    named = replace(DATA, class_names=("cat", "dog"))
    learner = GradientLearner(nn.Linear(4, 3), Classification(), partial(torch.optim.SGD, lr=0.1))
    with pytest.raises(ConfigError, match="The data set has 2 class_names, and the model tells 3 classes apart"):
        rehearse_fit(learner, named, 1, ["val/loss"])


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"names": {"a", "b"}}, "preprocessing: names cannot be saved as JSON: it holds a set"),
        ({"scale": [1, {"by": object()}]}, "preprocessing: scale cannot be saved as JSON: it holds a object"),
        ([1, 2], "preprocessing is a list; it must be a mapping"),
    ],
)
def test_facts_for_a_predictor_that_cannot_be_saved_are_refused(facts, words):
    """A run would write their text, and the predictor would read it."""
    own = Own(lambda loss, n: {"loss": Ratio(loss.detach(), n)})
    with pytest.raises(ConfigError, match=words):
        rehearse_fit(own, replace(DATA, preprocessing=facts), 1, ["val/loss"])
    arrays = {"mean": X.mean(dim=0), "n": X.numpy().shape[0], "names": ("a", "b"), "none": None}
    rehearse_fit(own, replace(DATA, preprocessing=arrays), 1, ["val/loss"])
