"""Classification's figures are those of torch and scikit-learn, computed on their own."""

from __future__ import annotations

import pytest
import torch
from sklearn import metrics
from torch import nn
from torch.nn import functional as F

from dl_lab.tasks.classification import Classification
from dl_lab.types import LabelledBatch, add_tallies, read_tally


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(101, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels() -> torch.Tensor:
    return torch.randint(4, (101,), generator=torch.Generator().manual_seed(1))


def test_measures_what_scikit_learn_measures(logits, labels):
    tally = {}
    for x, y in zip(logits.split(17), labels.split(17), strict=True):
        tally = add_tallies(tally, Classification().measure(nn.Identity(), LabelledBatch(x, y)))
    predicted, found = logits.argmax(1), read_tally(tally)
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predicted), abs=1e-12)
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(labels, predicted), abs=1e-12)
    assert found["loss"] == pytest.approx(metrics.log_loss(labels, logits.double().softmax(1)), rel=1e-5)
    assert tally["confusion"].counts.tolist() == metrics.confusion_matrix(labels, predicted).tolist()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_the_loss_is_the_mean_cross_entropy_in_training_and_evaluation(logits, labels, label_smoothing):
    task, batch = Classification(label_smoothing), LabelledBatch(logits, labels)
    loss, tally = task.loss(nn.Identity(), batch)
    wanted = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    assert loss == wanted
    assert read_tally(tally)["loss"] == pytest.approx(float(wanted), rel=1e-6)
    measured = read_tally(task.measure(nn.Identity(), batch))
    assert read_tally(tally) == {name: measured[name] for name in ("loss", "accuracy")}


def test_tally_of_a_training_step_keeps_no_graph(logits, labels):
    x = logits.clone().requires_grad_()
    _, tally = Classification().loss(nn.Identity(), LabelledBatch(x, labels))
    assert not tally["loss"].sum.requires_grad
