"""NumPy models in the runner: the skeleton's results come out of a run, whatever the batch size."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from dl_lab import configs as config
from dl_lab.from_scratch.logistic_regression import LogisticRegression
from dl_lab.from_scratch.mlp import MLP
from dl_lab.from_scratch.perceptron import Perceptron
from dl_lab.runs.files import read_records
from dl_lab.training.scratch import ScratchLearner
from dl_lab.types import LabelledBatch, UserError, read_tally

SMOKE = ("profile=smoke", "logger=none", "callbacks.curves=null", "callbacks.confusion_matrix=null")


@pytest.fixture(scope="module")
def generated():
    """The smoke profile's OCTMNIST as the skeleton holds it: split -> float64 (n, 784), labels."""
    composed = config.Composer().compose(["dataset=octmnist", *SMOKE])
    dataset = config.build(composed.config, "dataset")
    splits = {
        name: next(dataset_split.batches(1000))
        for name, dataset_split in vars(dataset).items()
        if name in ("train", "val", "test")
    }
    return {name: (b.x.flatten(1).double().numpy(), b.y.numpy()) for name, b in splits.items()}


def batch(n=6, n_features=5, n_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.integers(0, 256, (n, n_features)).astype(np.float32) / 256)
    return LabelledBatch(x, torch.from_numpy(rng.integers(0, n_classes, n)))


def test_a_run_is_the_skeleton_of_the_perceptron(execute, generated):
    """Seed, division by 256, bias feature, cumulative order, whole-split accuracy: all as in the coursework's loop."""
    folder, _ = execute("experiment=octmnist_perceptron", *SMOKE, "trainer.max_epochs=4", "trainer.batch_size=7")
    np.random.seed(42)
    data = {name: (np.hstack([x, np.ones((len(x), 1))]), y) for name, (x, y) in generated.items()}
    (x, y), W = data["train"], np.zeros((4, 785))
    expected = []
    for _ in range(4):
        order = np.random.permutation(len(x))
        x, y = x[order], y[order]
        for x_i, y_i in zip(x, y, strict=True):
            predicted = W.dot(x_i).argmax()
            if predicted != y_i:
                W[y_i] += x_i
                W[predicted] -= x_i
        expected.append([(data[s][0].dot(W.T).argmax(axis=1) == data[s][1]).mean() for s in ("train", "val")])
    records = read_records(folder / "metrics.jsonl")[:4]
    assert [[record["train/accuracy"], record["val/accuracy"]] for record in records] == expected
    assert len({tuple(pair) for pair in expected}) > 1, "the data are too easy to tell orders apart"


def test_a_run_is_the_skeleton_of_the_mlp(execute, generated):
    """Weights and orders come from one stream: normals_before in the experiment is their number."""
    _, metrics = execute("experiment=octmnist_mlp_numpy", *SMOKE, "trainer.batch_size=50")
    np.random.seed(42)
    W1, b1 = np.random.normal(0.1, 0.1, (200, 784)), np.zeros(200)
    W2, b2 = np.random.normal(0.1, 0.1, (4, 200)), np.zeros(4)
    x, y = generated["train"]
    order = np.random.permutation(len(x))
    total = 0.0
    for x_i, y_i in zip(x[order], y[order], strict=True):
        h = np.maximum(W1.dot(x_i) + b1, 0)
        z = W2.dot(h) + b2
        z -= z.max()
        p = np.exp(z) / np.exp(z).sum()
        total += np.log(np.exp(z).sum()) - z[y_i]
        d2 = p - np.eye(4)[y_i]
        d1 = W2.T.dot(d2) * (h > 0)
        W2, b2, W1, b1 = W2 - 0.001 * np.outer(d2, h), b2 - 0.001 * d2, W1 - 0.001 * np.outer(d1, x_i), b1 - 0.001 * d1
    assert metrics["train/loss_sum"] == pytest.approx(total, rel=1e-9)
    assert metrics["train/loss"] == pytest.approx(total / len(x), rel=1e-9)


def test_batch_size_changes_no_result(execute):
    runs = [
        execute("experiment=octmnist_logistic_regression_numpy", *SMOKE, f"trainer.batch_size={size}")[1]
        for size in (13, 1, 64)
    ]
    assert runs[0] == pytest.approx(runs[1], rel=1e-12)
    assert runs[0] == pytest.approx(runs[2], rel=1e-12)


def models():
    return [Perceptron(5, 3), LogisticRegression(5, 3, lr=0.1), MLP(5, 3, hidden=4, lr=0.1, seed=0)]


@pytest.mark.parametrize("index", range(3))
def test_state_continues_exactly(index):
    whole, first = ScratchLearner(models()[index]), ScratchLearner(models()[index])
    for learner in (whole, first):
        learner.update(batch(seed=1))
    second = ScratchLearner(models()[index])
    second.load_state_dict(torch_copy(first.state_dict()))
    for learner in (whole, second):
        learner.update(batch(seed=2))
    assert whole.weights().keys() == second.weights().keys()
    for name, value in whole.weights().items():
        assert torch.equal(value, second.weights()[name])


def torch_copy(state):
    import io

    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)


def test_weights_are_a_snapshot():
    learner = ScratchLearner(Perceptron(5, 3))
    before = learner.weights()["W"]
    learner.update(batch())
    assert not before.any()
    assert learner.weights()["W"].any()


def test_tallies_add_up_over_uneven_batches():
    learner = ScratchLearner(LogisticRegression(5, 3, lr=0.1))
    learner.update(batch(20))
    whole = batch(10, seed=3)
    parts = [LabelledBatch(whole.x[a:b], whole.y[a:b]) for a, b in ((0, 3), (3, 10))]
    tallies = [learner.evaluate(part) for part in parts]
    added = {name: tallies[0][name] + tallies[1][name] for name in tallies[0]}
    assert read_tally(added) == pytest.approx(read_tally(learner.evaluate(whole)))
    p = torch.from_numpy(learner.model.probabilities(whole.x.numpy()))
    expected = torch.nn.functional.nll_loss(p.log(), whole.y)
    assert read_tally(added)["cross_entropy"] == pytest.approx(float(expected))


def test_cross_entropy_stays_finite_where_a_probability_is_zero():
    model = LogisticRegression(1, 2, lr=1.0, bias=False, initial=[[5000.0], [-5000.0]])
    tally = ScratchLearner(model).evaluate(LabelledBatch(torch.ones(1, 1), torch.tensor([1])))
    assert 700 < read_tally(tally)["cross_entropy"] < 1000


def test_images_are_flattened_and_counted():
    learner = ScratchLearner(Perceptron(4, 2))
    learner.update(LabelledBatch(torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 1])))
    assert learner.n_parameters() == (10, 10)
    assert learner.rates() == {}
    assert ScratchLearner(LogisticRegression(4, 2, lr=0.3)).rates() == {"lr": 0.3}


def test_another_device_is_refused():
    with pytest.raises(UserError, match=r"trainer.device=cpu"):
        ScratchLearner(Perceptron(4, 2)).to(torch.device("meta"))


def test_judging_the_training_split_replaces_running_metrics(execute):
    overrides = ("dataset=digits", *SMOKE, "optimizer=sgd", "optimizer.lr=0.0", "model.dropout=0.5")
    running, judged = (execute(*overrides, f"trainer.judge_train={flag}")[1] for flag in ("false", "true"))
    again = execute(*overrides, "trainer.judge_train=true", "trainer.batch_size=8")[1]
    assert judged["train/loss"] == pytest.approx(again["train/loss"], rel=1e-6)  # no dropout noise: lr is 0
    assert judged["train/loss"] != running["train/loss"]
    assert "train/balanced_accuracy" in judged
    assert {k: v for k, v in judged.items() if not k.startswith("train/")} == {
        k: v for k, v in running.items() if not k.startswith("train/")
    }


@pytest.mark.figures
def test_a_probe_shows_probabilities(execute):
    folder, _ = execute("experiment=digits_softmax", *SMOKE)
    lines = (folder / "tables" / "probe.csv").read_text().splitlines()[1:]
    assert sum(float(line.partition(",")[2]) for line in lines) == pytest.approx(1)
    assert len(lines) == 10
    assert (folder / "figures" / "probe.png").stat().st_size > 1000


def test_a_probe_of_another_size_is_refused_before_training(execute):
    with pytest.raises(UserError, match=r"callbacks.probe=null"):
        execute("experiment=digits_softmax", "dataset=mnist", *SMOKE)


def test_softmax_on_the_digits_to_the_last_image(execute):
    """PD1-DIGITS is exactly reproducible: 50 passes over all 1,797 images leave 16 wrong."""
    folder, metrics = execute("experiment=digits_softmax", "logger=none")
    assert round(metrics["train/accuracy"] * 1797) == 1781
    assert json.loads((folder / "summary.json").read_text())["dataset"]["label"] == "full"


@pytest.mark.parametrize("name", ["numpy_perceptron", "numpy_logistic_regression", "numpy_mlp"])
def test_running_accuracy_judges_each_sample_before_its_own_step(name):
    from dl_lab import configs

    config = configs.Composer().compose([f"model={name}", "learner=scratch"]).config
    model = configs.build(config, "model")
    reference = configs.build(config, "model")
    rng = np.random.default_rng(0)
    x = rng.random((40, model.n_features))
    y = rng.integers(0, model.n_classes, 40)
    model.update(x, y)
    n_right = 0
    for x_i, y_i in zip(x, y, strict=True):
        n_right += int(reference.predict(x_i[None])[0] == y_i)
        reference.update(x_i[None], y_i[None])
    assert 0 < model.n_right == n_right
