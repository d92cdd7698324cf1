"""A batch that is a mapping: every task gives what it gives for the same columns in a tuple."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dl_lab.tasks.binary_classification import BinaryClassification
from dl_lab.tasks.classification import Classification
from dl_lab.tasks.forecasting import Forecasting
from dl_lab.tasks.multi_label import MultiLabel
from dl_lab.tasks.penalty import Penalised
from dl_lab.tasks.reconstruction import Reconstruction
from dl_lab.tasks.regression import Regression
from dl_lab.tasks.segmentation import Segmentation
from dl_lab.tasks.transcription import ConnectionistTranscription, Transcription
from dl_lab.tasks.variational import Variational
from dl_lab.types import ForecastBatch, LabelledBatch, SpeechBatch, UserError, WindowBatch, read_tally

SYMBOLS = 9
torch.manual_seed(0)
X = torch.randn(6, 4)
SERIES = torch.randn(6, 5, 2)
TOKENS = torch.tensor([[0, 5, 6, 1, 2], [0, 7, 8, 6, 1], [0, 5, 1, 2, 2]])


class Forward(nn.Module):
    """A model whose input is called x."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class Told(nn.Module):
    """A model that is told the label of the item before."""

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(4, 1)

    def forward(self, x: Tensor, previous: Tensor) -> Tensor:
        return self.map(x) + previous[:, None]


class Code(nn.Module):
    """A variational autoencoder."""

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(4, 4)

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor, Tensor]:
        return self.map(x), x[:, :2], x[:, 2:]


class Writer(nn.Module):
    """Symbols from features (batch, frames, 4): those after the given ones, or one for each frame (CTC)."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, SYMBOLS)

    def forward(self, features: Tensor, n_frames: Tensor, tokens: Tensor | None = None) -> Any:
        if tokens is None:
            return self.first(features), n_frames
        return self.first(features[:, : tokens.shape[1]])


class Greedy(Transcription):
    """Without the search, which needs a whole decoder."""

    def write(self, model: Any, batch: Any) -> Tensor:
        return TOKENS


LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
SPEECH = SpeechBatch(torch.randn(3, 12, 4), torch.tensor([12, 11, 10]), TOKENS)
CASES: dict[str, tuple[Any, nn.Module, Any]] = {
    "classification": (Classification(), Forward(nn.Linear(4, 3)), LabelledBatch(X, LABELS)),
    "no name": (Classification(), nn.Sequential(nn.Linear(4, 3)), LabelledBatch(X, LABELS)),
    "binary": (BinaryClassification(), Forward(nn.Linear(4, 1)), LabelledBatch(X, LABELS % 2)),
    "leak": (BinaryClassification(prompt="previous_label"), Told(), LabelledBatch(X, LABELS % 2)),
    "regression": (Regression(3.0, "huber"), Forward(nn.Linear(4, 1)), LabelledBatch(X, X.sum(1))),
    "labels": (MultiLabel(), Forward(nn.Linear(4, 2)), LabelledBatch(X, (X[:, :2] > 0).long())),
    "penalised": (Penalised(Classification(), "l2", 0.1), Forward(nn.Linear(4, 3)), LabelledBatch(X, LABELS)),
    "segmentation": (
        Segmentation(),
        Forward(nn.Conv2d(1, 3, 1)),
        LabelledBatch(torch.randn(2, 1, 3, 3), torch.randint(0, 3, (2, 3, 3))),
    ),
    "reconstruction": (Reconstruction(), Forward(nn.Linear(4, 4)), WindowBatch(X)),
    "variational": (Variational(), Code(), WindowBatch(X.sigmoid())),
    "forecasting": (
        Forecasting([0]),
        Forward(nn.Linear(2, 2)),
        ForecastBatch(SERIES, SERIES.flip(0), torch.rand(6, 5, 2) > 0.3),
    ),
    "forecasting without gaps": (Forecasting(), Forward(nn.Linear(2, 2)), LabelledBatch(SERIES, SERIES.flip(0))),
    "transcription": (Greedy(0.1, True, 1, 0.0), Writer(), SPEECH),
    "ctc": (ConnectionistTranscription(), Writer(), SPEECH),
}


@pytest.mark.parametrize("name", CASES)
def test_a_mapping_is_judged_like_a_tuple(name):
    task, model, batch = CASES[name]
    named = batch._asdict()
    loss, tally = task.loss(model, batch)
    other_loss, other_tally = task.loss(model, named)
    assert torch.equal(loss, other_loss) and loss.requires_grad
    with torch.no_grad():
        assert read_tally(tally) == read_tally(other_tally)
        assert read_tally(task.measure(model, batch)) == read_tally(task.measure(model, named))


@pytest.mark.parametrize("name", ["forecasting", "reconstruction", "ctc"])
def test_a_missing_column_is_named(name):
    task, model, batch = CASES[name]
    named = {f"my_{column}": values for column, values in batch._asdict().items()}
    with pytest.raises(UserError, match=r"A batch with the columns my_.* has no "):
        task.loss(model, named)


def test_metrics_of_torchmetrics_of_a_mapping():
    metrics = pytest.importorskip("torchmetrics.classification", reason="torchmetrics is not installed")
    from dl_lab.tasks.from_torchmetrics import FromTorchmetrics

    task = FromTorchmetrics(Classification(), {"f1": metrics.MulticlassF1Score(3)})
    _, model, batch = CASES["classification"]
    with torch.no_grad():
        assert read_tally(task.measure(model, batch)) == read_tally(task.measure(model, batch._asdict()))
