"""The loop: best weights by validation only, one look at test, early stopping, schedules, refusals, repeatability."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from dl_lab.datasets.dataset import Dataset
from dl_lab.runs.board import NoBoard
from dl_lab.runs.files import read_json, read_records
from dl_lab.runs.recorder import Run
from dl_lab.runs.weights import load_weights, save_same, save_weights
from dl_lab.tasks.classification import Classification
from dl_lab.tasks.transcription import ConnectionistTranscription
from dl_lab.training.callbacks import EarlyStopping
from dl_lab.training.learners import GradientLearner
from dl_lab.training.trainer import Trainer
from dl_lab.types import ConfigError, Diverged, UserError

SMALL = [
    "dataset.source=generated",
    "dataset.n_generated=100",
    "model.hidden=[8]",
    "trainer.batch_size=16",
    "logger=none",
    "callbacks.curves=null",
    "callbacks.confusion_matrix=null",
]


@pytest.fixture(scope="module")
def noisy(tmp_path_factory, execute_in) -> Path:
    """A run whose validation loss goes up and down: its best epoch is not its last."""
    folder = tmp_path_factory.mktemp("noisy") / "run"
    execute_in(folder, *SMALL, "trainer.max_epochs=6", "optimizer.lr=0.1", "model.dropout=0.5")
    return folder


def validation_losses(folder: Path) -> list[float]:
    return [record["val/loss"] for record in read_records(folder / "metrics.jsonl") if "val/loss" in record]


# -- best weights, and test ---------------------------------------------------------------------------------------


def test_best_is_the_epoch_of_least_validation_loss(noisy):
    losses, summary = validation_losses(noisy), read_json(noisy / "summary.json")
    assert summary["best_epoch"] == 1 + int(np.argmin(losses)) < 6, losses
    assert summary["metrics"]["val/loss"] == min(losses)
    assert (summary["weights"], summary["test_looks"], summary["steps"]) == ("best", 1, 6 * 7)


def test_best_and_last_are_one_file_only_where_they_are_the_same(noisy, tmp_path, execute_in):
    best, last = (noisy / "checkpoints" / f"{name}.safetensors" for name in ("best", "last"))
    assert best.read_bytes() != last.read_bytes()
    folder = tmp_path / "run"
    execute_in(folder, *SMALL, "trainer.max_epochs=1")
    best, last = (folder / "checkpoints" / f"{name}.safetensors" for name in ("best", "last"))
    assert best.samefile(last)
    save_weights(last, {"x": torch.ones(1)}, {})  # replaces last alone
    assert "x" in load_weights(last) and "x" not in load_weights(best)


def test_best_is_not_last_where_a_callback_changed_the_weights_after_the_epoch(tmp_path, execute_in, monkeypatch):
    def halve(self, session, metrics):
        with torch.no_grad():
            for parameter in session.learner.model.parameters():
                parameter.mul_(0.5)

    monkeypatch.setattr(EarlyStopping, "epoch_end", halve)
    folder = tmp_path / "run"
    execute_in(folder, *SMALL, "trainer.max_epochs=1", "callbacks=early_stopping")
    best, last = (load_weights(folder / "checkpoints" / f"{name}.safetensors") for name in ("best", "last"))
    assert all(torch.equal(best[name] * 0.5, last[name]) for name in best)


def test_without_links_the_file_is_copied(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    (tmp_path / "a").write_bytes(b"weights")
    save_same(tmp_path / "b", tmp_path / "a")
    assert (tmp_path / "b").read_bytes() == b"weights" and len(list(tmp_path.iterdir())) == 2


def judged(folder: Path, weights: str, execute_in) -> dict[str, float]:
    """The test split judged by scikit-learn with the saved weights, from the frozen config alone."""
    from sklearn import metrics

    from dl_lab import configs as config

    built = config.build(config.read_config(folder), "procedure")
    model = built.learner.model.eval()
    model.load_state_dict(load_weights(folder / "checkpoints" / f"{weights}.safetensors"))
    split = built.dataset.test
    with torch.no_grad():
        logits = torch.cat([model(batch.x) for batch in split.batches(7)])
    true, predicted = split.columns.y, logits.argmax(dim=1)
    return {
        "test/accuracy": metrics.accuracy_score(true, predicted),
        "test/balanced_accuracy": metrics.balanced_accuracy_score(true, predicted),
        "test/loss": metrics.log_loss(true, logits.double().softmax(1), labels=range(10)),
        "confusion": metrics.confusion_matrix(true, predicted, labels=range(10)).tolist(),
    }


def test_recorded_test_metrics_are_scikit_learns_of_the_best_weights(noisy, execute_in):
    wanted = judged(noisy, "best", execute_in)
    recorded = read_json(noisy / "summary.json")["metrics"]
    assert {name: recorded[name] for name in recorded if name.startswith("test/")} == pytest.approx(
        {name: wanted[name] for name in recorded if name.startswith("test/")}, rel=1e-6
    )
    assert wanted["test/loss"] != pytest.approx(judged(noisy, "last", execute_in)["test/loss"], rel=1e-3)


def test_last_weights_are_judged_where_the_coursework_does(tmp_path, execute_in):
    overrides = [*SMALL, "trainer.max_epochs=4", "optimizer.lr=0.1", "model.dropout=0.5", "trainer.test_weights=last"]
    overrides.remove("callbacks.confusion_matrix=null")
    metrics = execute_in(tmp_path / "run", *overrides)
    wanted = judged(tmp_path / "run", "last", execute_in)
    assert metrics["test/loss"] == pytest.approx(wanted["test/loss"], rel=1e-6)
    assert metrics["val/loss"] == validation_losses(tmp_path / "run")[-1]
    table = (tmp_path / "run" / "tables" / "confusion_matrix.csv").read_text().splitlines()[1:]
    assert [list(map(int, row.split(",")[1:])) for row in table] == wanted["confusion"]


@pytest.mark.parametrize("monitor", ["test/accuracy", "test/loss", "train/loss", "loss"])
def test_selection_by_anything_but_validation_is_an_error(monitor, tmp_path, execute_in):
    with pytest.raises(ConfigError, match="is not a val/ metric"):
        execute_in(tmp_path / "run", *SMALL, f"trainer.monitor={monitor}")
    assert not (tmp_path / "run").exists(), "found before anything is written"
    with pytest.raises(ValueError, match="must not look at train or test"):
        EarlyStopping(monitor=monitor)


def test_a_monitor_that_is_not_measured_lists_the_measured_metrics(tmp_path, execute_in):
    with pytest.raises(ConfigError, match=r"val/f1.*there are val/accuracy, val/balanced_accuracy, val/loss"):
        execute_in(tmp_path / "run", *SMALL, "trainer.monitor=val/f1")


def test_greatest_accuracy_is_the_best_where_mode_is_max(tmp_path, execute_in):
    execute_in(tmp_path / "run", *SMALL, "trainer.max_epochs=5", "trainer.monitor=val/accuracy", "trainer.mode=max")
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    scores = [record["val/accuracy"] for record in records if "val/accuracy" in record]
    assert read_json(tmp_path / "run" / "summary.json")["best_epoch"] == 1 + int(np.argmax(scores))


@pytest.mark.parametrize("sizes", [{"max_epochs": 0}, {"batch_size": 0}, {"eval_batch_size": 0}])
def test_sizes_below_one_are_refused(sizes):
    with pytest.raises(ValueError, match="at least 1"):
        Trainer(**{"max_epochs": 1, "batch_size": 1, **sizes})


def test_a_missing_device_is_one_sentence(tmp_path, execute_in):
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(UserError, match=r"trainer.device=cuda cannot be used: this machine has no CUDA device"):
        execute_in(tmp_path / "run", *SMALL, "trainer.device=cuda")


# -- early stopping -----------------------------------------------------------------------------------------------


class Stage:
    stop_reason = ""


def waits(losses: list[float], **options) -> int:
    """The epoch after which it stops; 0: never."""
    stopping, session = EarlyStopping(**options), Stage()
    for epoch, loss in enumerate(losses, 1):
        stopping.epoch_end(session, {"val/loss": loss, "val/accuracy": loss})
        if session.stop_reason:
            return epoch
    return 0


@pytest.mark.parametrize(
    ("losses", "options", "stops"),
    [
        ([5, 4, 3, 2, 1], {"patience": 1}, 0),
        ([5, 4, 4, 4, 4], {"patience": 2}, 4),
        ([5, 6, 4, 5, 6, 7], {"patience": 3}, 6),
        ([5, 4.9, 4.8, 4.7], {"patience": 2, "min_delta": 0.15}, 0),
        ([5, 4.9, 4.8, 4.7], {"patience": 1, "min_delta": 0.15}, 2),
        ([1, 2, 3, 3], {"patience": 1, "monitor": "val/accuracy", "mode": "max"}, 4),
        ([math.nan, math.nan, 1], {"patience": 2}, 2),
    ],
)
def test_early_stopping_waits_as_long_as_it_says(losses, options, stops):
    assert waits(losses, **options) == stops


def test_early_stopping_continues_with_its_state():
    losses = [5, 4, 4.5, 4.6, 4.7]
    first, second, session = EarlyStopping(patience=3), EarlyStopping(patience=3), Stage()
    for loss in losses[:3]:
        first.epoch_end(session, {"val/loss": loss})
    second.load_state_dict(first.state_dict())
    for loss in losses[3:]:
        assert not session.stop_reason
        second.epoch_end(session, {"val/loss": loss})
    assert session.stop_reason == "val/loss did not improve for 3 epochs"


def test_a_run_stops_early_and_says_why(tmp_path, execute_in):
    execute_in(
        tmp_path / "run", *SMALL, "trainer.max_epochs=30", "callbacks=early_stopping",
        "callbacks.early_stopping.patience=2", "callbacks.early_stopping.min_delta=100",
    )  # fmt: skip
    summary = read_json(tmp_path / "run" / "summary.json")
    assert summary["epochs"] == len(validation_losses(tmp_path / "run")) == 3
    assert summary["stop_reason"] == "val/loss did not improve for 2 epochs"


# -- schedules ----------------------------------------------------------------------------------------------------


def rates(folder: Path) -> list[float]:
    return [record["lr"] for record in read_records(folder / "metrics.jsonl") if "lr" in record]


@pytest.mark.parametrize(
    ("scheduler", "wanted"),
    [
        ([], [0.5] * 6),
        (["scheduler=step", "scheduler.step_size=2"], [0.5, 0.5, 0.05, 0.05, 0.005, 0.005]),
        (["scheduler=exponential", "scheduler.gamma=0.5"], [0.5 * 0.5**epoch for epoch in range(6)]),
        (["scheduler=cosine"], [0.25 * (1 + math.cos(math.pi * epoch / 6)) for epoch in range(6)]),
    ],
)
def test_learning_rates_follow_the_schedule(tmp_path, execute_in, scheduler, wanted):
    """The rate recorded with an epoch is the one it was trained with."""
    execute_in(tmp_path / "run", *SMALL, *scheduler, "optimizer=sgd", "optimizer.lr=0.5", "trainer.max_epochs=6")
    assert rates(tmp_path / "run") == pytest.approx(wanted, rel=1e-6)


def test_a_schedule_by_the_step(tmp_path, execute_in):
    """Seven updates an epoch, each halving: the rate after the epoch's last update is recorded."""
    execute_in(
        tmp_path / "run", *SMALL, "scheduler=exponential", "scheduler.gamma=0.5", "learner.schedule_every=step",
        "optimizer=sgd", "optimizer.lr=0.5", "trainer.max_epochs=2",
    )  # fmt: skip
    assert rates(tmp_path / "run") == pytest.approx([0.5 * 0.5**7, 0.5 * 0.5**14], rel=1e-6)


# -- what cannot go on --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "explained"), [(math.inf, True), (-math.inf, False), (math.nan, False)])
def test_an_infinite_loss_is_explained_by_its_task(value, explained):
    learner = GradientLearner(torch.nn.Linear(1, 1), ConnectionistTranscription(), partial(torch.optim.SGD, lr=0.1))
    assert ("a clip has fewer steps" in learner.advice(value)) == explained
    assert "smaller learning rate" in learner.advice(value)


def test_a_loss_that_is_not_finite_stops_the_run(lab, tmp_path):
    done = lab(*SMALL, "optimizer=sgd", "optimizer.lr=1e30", "trainer.max_epochs=3", "hydra.run.dir=run")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    message, advice = done.stderr.strip().splitlines()[-2:]
    assert "The training loss became nan at step" in message or "The training loss became inf at step" in message
    assert "dl-lab doctor run" in advice
    assert "lr 1e+30" in message and "(epoch 1" in message
    status = read_json(tmp_path / "run" / "status.json")
    assert status["state"] == "failed"
    assert "became" in status["error"]["message"]
    assert "Traceback" in status["error"]["traceback"]
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_data_that_are_not_finite_are_named_as_the_cause(tmp_path, value):
    x = torch.rand(20, 3)
    x[5, 1] = value
    y = torch.arange(20) % 2
    data = Dataset.from_arrays((x, y), (x[:4], y[:4]), (x[:4], y[:4]))
    learner = GradientLearner(torch.nn.Linear(3, 2), Classification(), partial(torch.optim.SGD, lr=0.1))
    run = Run.create(tmp_path / "run", {}, {}, NoBoard(), {})
    with pytest.raises(
        Diverged, match=r"The data are the cause: column x of this batch has nan or infinite values \(1\)"
    ):
        Trainer(max_epochs=1, batch_size=4).fit(learner, data, run)


# -- repeatability ------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path, execute_in):
    for name, seed in (("one", 7), ("two", 7), ("other", 8)):
        execute_in(tmp_path / name, *SMALL, "model.dropout=0.3", "trainer.max_epochs=2", f"seed={seed}")
    one, two, other = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("one", "two", "other")]
    assert one == two != other
    weights = [(tmp_path / name / "checkpoints" / "last.safetensors").read_bytes() for name in ("one", "two", "other")]
    assert weights[0] == weights[1] != weights[2]


def test_what_is_only_recorded_changes_nothing(tmp_path, execute_in):
    """Logging every step, checkpoints in between, TensorBoard, figures: the same values as without."""
    execute_in(tmp_path / "plain", *SMALL, "trainer.max_epochs=2", "trainer.log_steps=0", "model.dropout=0.3")
    loud = [word for word in SMALL if not word.startswith(("logger", "callbacks"))]
    execute_in(
        tmp_path / "loud", *loud, "trainer.max_epochs=2", "trainer.log_steps=1", "model.dropout=0.3",
        "trainer.checkpoint_steps=3", "trainer.checkpoint_seconds=0",
    )  # fmt: skip
    for name in ("metrics.jsonl", "checkpoints/last.safetensors"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "loud" / name).read_bytes(), name


def test_records_hold_values_only_and_timings_lie_apart(noisy):
    values, timings = (read_records(noisy / name) for name in ("metrics.jsonl", "timings.jsonl"))
    assert len(values) == 6 + 1 and len(timings) == 6
    assert not {"time", "samples_per_second", "validation_seconds"} & {key for record in values for key in record}
    assert all(record["samples_per_second"] > 0 for record in timings)
    assert [record["step"] for record in values] == [7, 14, 21, 28, 35, 42, 42]


def test_deterministic_runs_and_does_not_stick_to_the_next_run(tmp_path, execute_in):
    execute_in(tmp_path / "one", *SMALL, "trainer.max_epochs=1", "deterministic=true")
    assert torch.are_deterministic_algorithms_enabled()
    execute_in(tmp_path / "two", *SMALL, "trainer.max_epochs=1")
    assert not torch.are_deterministic_algorithms_enabled()
    assert json.loads((tmp_path / "one" / "summary.json").read_text())["metrics"] == pytest.approx(
        json.loads((tmp_path / "two" / "summary.json").read_text())["metrics"]
    )


# -- memory -------------------------------------------------------------------------------------------------------


def test_a_full_memory_is_recorded_in_the_summary(tmp_path, execute_in, monkeypatch):
    from dl_lab.models.mlp import MLP

    whole = MLP.forward

    def narrow(self, x):
        if self.training and len(x) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(self, x)

    execute_in(tmp_path / "whole", *SMALL, "trainer.max_epochs=2")
    monkeypatch.setattr(MLP, "forward", narrow)
    with pytest.warns(UserWarning, match="micro-batches of [48] items from now on"):
        execute_in(tmp_path / "run", *SMALL, "trainer.max_epochs=2")
    summaries = [read_json(tmp_path / name / "summary.json") for name in ("whole", "run")]
    assert [summary["accumulation"] for summary in summaries] == [1, 4]
    assert summaries[1]["metrics"] == pytest.approx(summaries[0]["metrics"], rel=1e-3)


def test_a_memory_that_stays_full_fails_in_one_sentence(tmp_path, execute_in, monkeypatch):
    from dl_lab.models.mlp import MLP

    def full(self, x):
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
        return nn_forward(self, x)

    nn_forward = MLP.forward
    monkeypatch.setattr(MLP, "forward", full)
    with pytest.raises(UserError, match="Tried to allocate 2 GiB"):
        execute_in(tmp_path / "run", *SMALL, "trainer.max_epochs=1", "learner.out_of_memory=raise")
    assert read_json(tmp_path / "run" / "status.json")["state"] == "failed"
