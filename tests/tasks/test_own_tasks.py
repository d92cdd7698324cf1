"""Weighted classification, several labels, segmentation, and metrics of torchmetrics: exact over uneven batches."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dl_lab.datasets.dataset import Dataset
from dl_lab.tasks.classification import Classification, balanced_weights
from dl_lab.tasks.multi_label import MultiLabel
from dl_lab.tasks.segmentation import Segmentation
from dl_lab.training.learners import GradientLearner
from dl_lab.types import LabelledBatch, add_tallies, read_tally, split_batch

CPU = torch.device("cpu")
torch.manual_seed(0)
X = torch.randn(11, 4)
Y = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2])
DATA = Dataset.from_arrays((X, Y), (X, Y), (X, Y), class_names=("a", "b", "c"))


@torch.no_grad()
def same_in_parts(task: Any, model: nn.Module, batch: Any) -> dict[str, float]:
    """Return the metrics of a batch; check that its uneven parts give the same."""
    whole = read_tally(task.measure(model, batch))
    total: dict[str, Any] = {}
    for part in split_batch(batch, 3):
        total = add_tallies(total, task.measure(model, part))
    assert read_tally(total) == pytest.approx(whole, rel=1e-6)
    return whole


def test_automatic_weights_balance_the_classes():
    assert balanced_weights(torch.tensor([6, 3, 2])).tolist() == pytest.approx([11 / 18, 11 / 9, 11 / 6])
    task = Classification(weight="auto")
    task.start(DATA, CPU)
    model = nn.Linear(4, 3)
    losses = F.cross_entropy(model(X), Y, reduction="none").detach()
    balanced = torch.stack([losses[c == Y].mean() for c in range(3)]).mean()
    loss, _ = task.loss(model, LabelledBatch(X, Y))
    assert loss.detach().item() == pytest.approx(balanced.item(), rel=1e-5)
    same_in_parts(task, model, LabelledBatch(X, Y))


def test_micro_batches_of_a_weighted_loss_have_the_gradient_of_the_whole():
    gradients = []
    for accumulation in (1, 3):
        torch.manual_seed(1)
        model = nn.Linear(4, 3)
        learner = GradientLearner(
            model, Classification(weight=[1, 2, 5]), partial(torch.optim.SGD, lr=1.0), accumulation=accumulation
        )
        learner.start(DATA)
        learner.update(LabelledBatch(X, Y))
        gradients.append(model.weight.detach().clone())
    assert torch.allclose(*gradients, atol=1e-6)


def test_a_missing_weight_gives_one_sentence():
    task = Classification(weight=[1.0, 2.0])
    task.start(DATA, CPU)
    with pytest.raises(ValueError, match="2 factors, but the model has 3 classes"):
        task.loss(nn.Linear(4, 3), LabelledBatch(X, Y))


def test_mappings_and_outputs_with_logits():
    class Bert(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 3)

        def forward(self, input_ids, attention_mask=None):
            return SimpleNamespace(logits=self.head(input_ids))

    model = Bert()
    batch = {"input_ids": X, "labels": Y}
    learner = GradientLearner(model, Classification(), partial(torch.optim.SGD, lr=0.1), accumulation=2)
    assert set(learner.update(batch)) == {"loss", "accuracy"}
    assert learner.predict(batch).shape == (11, 3)
    same_in_parts(Classification(), model, batch)


def test_several_labels():
    model = nn.Linear(4, 3)
    labels = (torch.rand(11, 3) > 0.6).long()
    task = MultiLabel(positive_weight="auto")
    task.start(Dataset.from_arrays((X, labels), (X, labels), (X, labels)), CPU)
    metrics = same_in_parts(task, model, LabelledBatch(X, labels))
    from sklearn.metrics import accuracy_score, f1_score

    predicted = (model(X) > 0).long()
    assert metrics["f1_micro"] == pytest.approx(f1_score(labels, predicted, average="micro"))
    assert metrics["f1_macro"] == pytest.approx(f1_score(labels, predicted, average="macro", zero_division=0))
    assert metrics["exact_match"] == pytest.approx(accuracy_score(labels, predicted))


def test_segmentation_by_hand():
    y = torch.tensor([[[0, 1], [1, 255]]])
    logits = F.one_hot(torch.tensor([[[0, 1], [0, 0]]]), 2).permute(0, 3, 1, 2).float() * 9
    task = Segmentation()
    metrics = read_tally(task.measure(nn.Identity(), LabelledBatch(logits, y)))
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert metrics["iou"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    images = torch.randn(7, 3, 4, 4)
    same_in_parts(task, nn.Conv2d(3, 5, 1), LabelledBatch(images, torch.randint(0, 5, (7, 4, 4))))


def test_metrics_of_torchmetrics_are_exact_over_batches():
    classification = pytest.importorskip("torchmetrics.classification", reason="torchmetrics is not installed")
    from dl_lab.tasks.from_torchmetrics import FromTorchmetrics

    metrics = {
        "auroc": classification.MulticlassAUROC(3),
        "f1": classification.MulticlassF1Score(3, average="macro"),
        "recall": classification.MulticlassRecall(3, average=None),
    }
    task = FromTorchmetrics(Classification(), metrics)
    task.start(DATA, CPU)
    found = same_in_parts(task, nn.Linear(4, 3), LabelledBatch(X, Y))
    assert {"auroc", "f1", "recall_0", "recall_1", "recall_2", "loss", "accuracy"} <= set(found)
    with pytest.raises(ValueError, match=r"metrics.x is a int"):
        FromTorchmetrics(Classification(), {"x": 3})
