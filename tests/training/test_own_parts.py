"""Tasks, measures, callbacks and schedulers of one's own, and limits of a training: each works or is refused."""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from dl_lab.datasets.dataset import Dataset
from dl_lab.runs import checkpoints
from dl_lab.runs.board import NoBoard
from dl_lab.runs.files import read_json, read_records
from dl_lab.runs.recorder import Run
from dl_lab.runs.weights import load_weights
from dl_lab.tasks.classification import Classification
from dl_lab.training.continuation import read_measures, write_measures
from dl_lab.training.ema import EMA
from dl_lab.training.learners import GradientLearner
from dl_lab.training.trainer import Trainer
from dl_lab.types import ConfigError, Ratio, UserError

generator = torch.Generator().manual_seed(0)
X = torch.randn(41, 4, generator=generator)
Y = (X[:, 0] > 0).long()
DATA = Dataset.from_arrays((X, Y), (X, Y), (X, Y), class_names=("low", "high"))


def learner(task=None, model=None, **settings) -> GradientLearner:
    torch.manual_seed(0)
    sgd = partial(torch.optim.SGD, lr=0.1)
    return GradientLearner(model or nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 2)),
                           task or Classification(), sgd, **settings)  # fmt: skip


def fit(folder, own=None, run=None, **settings):
    own = own or learner()
    settings = {"max_epochs": 3, "batch_size": 8, "checkpoint_seconds": 0, **settings}
    run = run or Run.create(folder, {}, {}, NoBoard(), {})
    return own, Trainer(**settings).fit(own, DATA, run)


class Scaled(nn.Module):
    """A task with a parameter of its own: the logits are divided by a temperature."""

    def __init__(self):
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(1.0))
        self.task = Classification()

    def loss(self, model, batch):
        return self.task.loss(lambda x: model(x) / self.temperature, batch)  # pyright: ignore[reportArgumentType]

    def measure(self, model, batch):
        return self.task.measure(lambda x: model(x) / self.temperature, batch)  # pyright: ignore[reportArgumentType]


def test_a_task_that_is_a_module_is_trained_and_saved(tmp_path):
    own, _ = fit(tmp_path / "run", learner(Scaled()))
    temperature = own.task.temperature.item()
    assert temperature != 1.0
    weights = load_weights(tmp_path / "run" / "checkpoints" / "last.safetensors")
    assert weights["task/temperature"].item() == pytest.approx(temperature)
    other = learner(Scaled())
    other.load_weights(weights)
    assert other.task.temperature.item() == pytest.approx(temperature)
    assert other.n_parameters()[1] == 4 * 8 + 8 + 8 * 2 + 2 + 1


@dataclass
class Largest:
    """The largest value seen."""

    value: Tensor

    def __add__(self, other):
        return Largest(torch.maximum(self.value, other.value))

    def values(self, name):
        return {name: float(self.value)}


class Range:
    """A measure that is no dataclass."""

    def __init__(self, low, high):
        self.low, self.high = low, high

    def state(self):
        return self.low, self.high

    def __add__(self, other):
        return Range(min(self.low, other.low), max(self.high, other.high))

    def values(self, name):
        return {name: self.high - self.low}


class Measured(Classification):
    def loss(self, model, batch):
        loss, tally = super().loss(model, batch)
        return loss, {**tally, "largest": Largest(loss.detach()), "range": Range(len(batch.y), len(batch.y))}


class Stop:
    """A callback with a single method."""

    def __init__(self, step):
        self.step = step

    def update_end(self, session):
        if session.step == self.step:
            raise UserError("the machine went away")


def test_a_measure_of_ones_own_survives_a_resumed_run(tmp_path, monkeypatch):
    monkeypatch.setenv("DL_LAB_ALLOW", __name__.partition(".")[0])
    fit(tmp_path / "whole", learner(Measured()))
    with pytest.raises(UserError, match="went away"):
        fit(tmp_path / "run", learner(Measured()), callbacks={"stop": Stop(9)}, checkpoint_steps=2)
    again = Run.reopen(tmp_path / "run", {}, NoBoard())
    fit(tmp_path / "run", learner(Measured()), run=again, checkpoint_steps=2)
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    assert records == read_records(tmp_path / "whole" / "metrics.jsonl")
    assert records[1]["train/range"] == 7 and records[1]["train/largest"] > records[1]["train/loss"]


def test_a_measure_whose_class_no_config_could_name_is_not_restored(monkeypatch):
    monkeypatch.delenv("DL_LAB_ALLOW", raising=False)
    written = write_measures({"largest": Largest(torch.tensor(1.0)), "loss": Ratio(1.0, 2)})
    with pytest.raises(ConfigError, match="Largest"):
        read_measures(written)


def test_a_measure_without_a_state_is_one_sentence():
    with pytest.raises(UserError, match="must be a dataclass, or have a method state"):
        write_measures({"bad": object()})


def test_a_scheduler_gets_the_validation_metric(tmp_path):
    plateau = partial(ReduceLROnPlateau, mode="max", patience=0, factor=0.1)
    own = learner(scheduler=plateau, schedule_monitor="val/loss")  # a loss that falls is no improvement of "max"
    fit(tmp_path / "run", own, max_epochs=4)
    rates = [record["lr"] for record in read_records(tmp_path / "run" / "metrics.jsonl") if "lr" in record]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.001])
    with pytest.raises(ConfigError, match="ReduceLROnPlateau goes by a validation metric"):
        learner(scheduler=plateau, schedule_every="step")
    with pytest.raises(UserError, match="waits for 'val/f1', which is not measured"):
        fit(tmp_path / "other", learner(scheduler=plateau, schedule_monitor="val/f1"))


def test_batch_normalisation_and_a_last_batch_of_one(tmp_path):
    def normed():
        return learner(model=nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)))

    with pytest.raises(UserError, match=r"one item .* trainer.drop_last=true"):
        fit(tmp_path / "run", normed())
    fit(tmp_path / "other", normed(), drop_last=True)
    assert read_json(tmp_path / "other" / "summary.json")["steps"] == 15  # 41 items: five batches of 8 an epoch
    accumulating = learner(model=nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)), accumulation=4)
    Trainer(max_epochs=1, batch_size=8).rehearse(accumulating, DATA)


def test_a_callback_without_any_hook_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"callbacks.mine has none of the methods of a callback: fit_start"):
        fit(tmp_path / "run", callbacks={"mine": object()})


class WithState:
    def __init__(self, state):
        self.state = state

    def epoch_end(self, session, metrics):
        pass

    def state_dict(self):
        return {"seen": self.state}


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (np.ones(2), r"callbacks\.mine\.seen, a numpy\.ndarray"),
        ({"best": [np.float64(1.0)]}, r"callbacks\.mine\.seen\.best, a numpy\.float64"),  # isinstance(..., float)
        (lambda: 1, r"callbacks\.mine\.seen, a builtins\.function"),
        (frozenset([1]), r"callbacks\.mine\.seen, a builtins\.frozenset"),
    ],
)
def test_a_state_that_no_checkpoint_can_be_read_with_is_refused_before_the_first_update(tmp_path, state, kind):
    with pytest.raises(UserError, match=f"A checkpoint cannot hold {kind}"):
        fit(tmp_path / "run", callbacks={"mine": WithState(state)})
    assert not (tmp_path / "run" / "losses.f64").exists()


def test_what_a_checkpoint_takes_it_gives_back(tmp_path):
    state = {
        "tensor": torch.arange(3),
        "plain": [True, 1, 1.5, 1j, "a", b"b", bytearray(b"c"), None, (1, 2), {3}],
        "torch": [torch.Size([2]), torch.float32, torch.device("cpu")],
        "ordered": OrderedDict(a=1),
        "counter": Counter("aab"),  # of torch's MultiStepLR
        5: "a key that is a number",
    }
    checkpoints.save(tmp_path, state)
    found = checkpoints.load(tmp_path)
    assert found is not None
    assert torch.equal(found.pop("tensor"), state.pop("tensor"))
    assert found == state


class Metrical:
    def __init__(self, value):
        self.value = value

    def evaluation_end(self, session, split, metrics):
        metrics[f"{split}/own"] = self.value

    def fit_end(self, session, tally, metrics):
        metrics["test/end"] = self.value


@pytest.mark.parametrize("value", [np.float64(0.5), np.float32(0.5), torch.tensor(0.5)])
def test_a_metric_of_a_callback_becomes_a_plain_number(tmp_path, value):
    """NumPy's would make checkpoints that cannot be read."""
    fit(tmp_path / "run", callbacks={"mine": Metrical(value)}, checkpoint_steps=1)
    metrics = (read_json(tmp_path / "run" / "summary.json") or {})["metrics"]
    assert {name: metrics[name] for name in ("val/own", "test/own", "test/end")} == dict.fromkeys(
        ("val/own", "test/own", "test/end"), 0.5
    )
    state = checkpoints.load(tmp_path / "run" / "checkpoints")
    assert state is not None
    assert type(state["best"]["metrics"]["val/own"]) is type(state["history"][0]["val/own"]) is float


@pytest.mark.parametrize("value", ["good", np.ones(2), torch.ones(2), None])
def test_a_metric_that_is_no_number_is_one_sentence(tmp_path, value):
    with pytest.raises(UserError, match="The metric val/own must be a number; it is of the type"):
        fit(tmp_path / "run", callbacks={"mine": Metrical(value)})


class Chooses:
    """A callback that wants some updates only."""

    def __init__(self, chosen):
        self.chosen = chosen
        self.seen = []

    def choose_updates(self, session):
        assert session.n_updates == 18
        return self.chosen

    def update_start(self, session):
        self.seen.append(("start", session.step))

    def update_end(self, session):
        self.seen.append(("end", session.step))


@pytest.mark.parametrize(
    ("chosen", "updates"), [([3, 11], [3, 11]), (range(2, 18, 7), [2, 9, 16]), (None, range(18)), ((), [])]
)
def test_a_callback_is_called_for_the_updates_that_it_chose(tmp_path, chosen, updates):
    callback = Chooses(chosen)
    fit(tmp_path / "run", callbacks={"mine": callback})
    assert callback.seen == [entry for step in updates for entry in (("start", step), ("end", step + 1))]


def test_a_choice_of_updates_that_is_no_collection_is_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match="mine: choose_updates must return a collection of numbers, such as a range"):
        fit(tmp_path / "run", callbacks={"mine": Chooses(7)})


class LogsAtUpdates:
    def update_end(self, session):
        session.run.log({"own/step": session.step}, session.step)


def test_a_record_of_a_callback_has_the_trainers_epoch(tmp_path):
    """Not the step: a table of runs would show epoch 6 of 2."""
    fit(tmp_path / "run", callbacks={"mine": LogsAtUpdates()})
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    own = [record for record in records if "own/step" in record]
    n_batches = own[-1]["step"] / own[-1]["epoch"]
    assert len(own) > n_batches >= 2
    assert [record["epoch"] for record in own] == [round(record["step"] / n_batches, 4) for record in own]


class OtherArguments:
    def epoch_end(self, session):
        pass


class Foreign:
    def fit_start(self, session):
        pass

    def on_train_epoch_end(self, trainer, module):
        pass


@pytest.mark.parametrize(
    ("callback", "words"),
    [
        (OtherArguments(), r"callbacks\.mine: OtherArguments\.epoch_end must take the arguments session, metrics"),
        (Foreign(), r"callbacks\.mine: nothing calls on_train_epoch_end\. The hooks are fit_start, "),
    ],
)
def test_a_hook_that_cannot_be_called_is_refused_before_the_run(callback, words):
    with pytest.raises(ConfigError, match=words):
        Trainer(max_epochs=1, batch_size=8, callbacks={"mine": callback}).rehearse(learner(), DATA)


def test_max_steps_ends_within_an_epoch(tmp_path):
    fit(tmp_path / "run", max_epochs=10, max_steps=8)
    summary = read_json(tmp_path / "run" / "summary.json")
    assert summary["steps"] == 8 and summary["epochs"] == 2


def test_validation_within_an_epoch_can_be_the_best(tmp_path):
    fit(tmp_path / "run", validate_every_steps=4, max_epochs=2, log_steps=0)
    records = [record for record in read_records(tmp_path / "run" / "metrics.jsonl") if "val/loss" in record]
    assert [(record["step"], record["epoch"]) for record in records] == [
        (4, pytest.approx(0.6667)), (6, 1), (8, pytest.approx(1.3333)), (12, 2)
    ]  # fmt: skip
    fit(tmp_path / "plain", max_epochs=2)
    one, other = (load_weights(tmp_path / name / "checkpoints" / "last.safetensors") for name in ("run", "plain"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_of_limited_batches_says_so(tmp_path):
    fit(tmp_path / "run", limit_batches=2, eval_batch_size=10)
    summary = read_json(tmp_path / "run" / "summary.json")
    assert summary["steps"] == 6 and summary["limit_batches"] == 2


# -- averages of the weights ---------------------------------------------------------------------------------------


def test_the_average_is_judged_and_kept(tmp_path):
    class Look:
        def __init__(self):
            self.seen: list[dict[str, Tensor]] = []

        def update_end(self, session):
            self.seen.append({name: tensor.clone() for name, tensor in session.learner.weights().items()})

    look = Look()
    fit(tmp_path / "run", callbacks={"look": look, "ema": EMA(decay=0.5)}, test_weights="last")
    average = {name: tensor.clone() for name, tensor in learner().weights().items()}
    for step, weights in enumerate(look.seen, 1):
        decay = min(0.5, (1 + step) / (10 + step))
        average = {name: decay * average[name] + (1 - decay) * weights[name] for name in average}
    saved = load_weights(tmp_path / "run" / "checkpoints" / "last.safetensors")
    for name, tensor in average.items():
        torch.testing.assert_close(saved[name], tensor)


def test_an_average_leaves_the_training_as_it_is_and_resumes(tmp_path):
    fit(tmp_path / "plain")
    fit(tmp_path / "whole", callbacks={"ema": EMA(0.9)})
    plain, averaged = (read_records(tmp_path / name / "metrics.jsonl") for name in ("plain", "whole"))
    assert [r["train/loss"] for r in plain[:3]] == [r["train/loss"] for r in averaged[:3]]
    assert [r["val/loss"] for r in plain[:3]] != [r["val/loss"] for r in averaged[:3]]
    with pytest.raises(UserError, match="went away"):
        fit(tmp_path / "run", callbacks={"ema": EMA(0.9), "stop": Stop(9)}, checkpoint_steps=2)
    fit(tmp_path / "run", run=Run.reopen(tmp_path / "run", {}, NoBoard()), callbacks={"ema": EMA(0.9)})
    assert read_records(tmp_path / "run" / "metrics.jsonl") == averaged
