"""One logit and two classes: the loss, the counts, and the batch-wide loss of a public solution."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dl_lab.tasks.binary_classification import BinaryClassification
from dl_lab.types import LabelledBatch, add_tallies, read_tally


class Given(nn.Module):
    """A model that returns its input as logits."""

    def forward(self, x):
        return x[:, None]


def batch(logits, labels):
    return LabelledBatch(torch.tensor(logits), torch.tensor(labels))


def test_loss_and_counts():
    task, given = BinaryClassification(), batch([2.0, -1.0, 0.5, -3.0], [1, 0, 0, 1])
    loss, tally = task.loss(Given(), given)
    torch.testing.assert_close(loss, F.binary_cross_entropy(given.x.sigmoid(), given.y.float()))
    assert read_tally(tally)["accuracy"] == 0.5
    measured = task.measure(Given(), given)
    assert measured["confusion"].counts.tolist() == [[1, 1], [1, 1]]
    assert read_tally(measured)["accuracy"] == 0.5


def test_uneven_batches_average_exactly():
    task, whole = BinaryClassification(), batch([2.0, -1.0, 0.5], [1, 0, 0])
    parts = [batch([2.0, -1.0], [1, 0]), batch([0.5], [0])]
    added = add_tallies(*[task.measure(Given(), part) for part in parts])
    assert read_tally(added) == pytest.approx(read_tally(task.measure(Given(), whole)))


def test_the_cross_entropy_over_a_batch_hardly_depends_on_the_logits():
    """256 reviews, half positive: whatever the classifier says, the loss is near 128 log 256 = 710 (T4: 695.7)."""
    task, labels = BinaryClassification("cross_entropy_over_batch"), [i % 2 for i in range(256)]
    undecided, _ = task.loss(Given(), batch([0.0] * 256, labels))
    assert float(undecided) == pytest.approx(128 * math.log(256), rel=1e-5)
    perfect, _ = task.loss(Given(), batch([50.0 if label else -50.0 for label in labels], labels))
    assert 0.85 * float(undecided) < float(perfect) < float(undecided)
