"""A loss of one's own in each task: what it is given, that uneven batches add up, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dl_lab import configs
from dl_lab.tasks.binary_classification import BinaryClassification
from dl_lab.tasks.classification import Classification
from dl_lab.tasks.forecasting import Forecasting
from dl_lab.tasks.multi_label import MultiLabel
from dl_lab.tasks.of_table import of_table
from dl_lab.tasks.penalty import Penalised
from dl_lab.tasks.reconstruction import Reconstruction
from dl_lab.tasks.regression import Regression
from dl_lab.tasks.segmentation import Segmentation
from dl_lab.types import ConfigError, LabelledBatch, UserError, add_tallies, read_tally

N = 12
GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(N, 4, generator=GENERATOR)
CLASSES = torch.arange(N) % 3
LABELS = (torch.arange(3 * N).view(N, 3) % 5 < 2).long()
IMAGES = torch.rand(N, 1, 5, 5, generator=GENERATOR)
PIXELS = torch.arange(N * 25).view(N, 5, 5) % 3
WINDOWS = torch.rand(N, 6, 2, generator=GENERATOR)


def linear(n_in: int, n_out: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(n_in, n_out)


# Name -> task with the usual loss, the same loss as a class, inputs, labels, model.
USUAL = {
    "classification": (Classification, nn.CrossEntropyLoss(), X, CLASSES, linear(4, 3)),
    "binary": (BinaryClassification, nn.BCEWithLogitsLoss(), X, LABELS[:, 0], linear(4, 1)),
    "multi_label": (MultiLabel, nn.BCEWithLogitsLoss(), X, LABELS, linear(4, 3)),
    "segmentation": (Segmentation, nn.CrossEntropyLoss(), IMAGES, PIXELS, nn.Conv2d(1, 3, 3, padding=1)),
    "regression": (Regression, nn.MSELoss(), X, X.sum(1), linear(4, 1)),
    "reconstruction": (Reconstruction, nn.MSELoss(), X, CLASSES, linear(4, 4)),
    "forecasting": (Forecasting, nn.MSELoss(), WINDOWS, WINDOWS.flip(1), linear(2, 2)),
}


@pytest.mark.parametrize("name", USUAL)
def test_the_usual_loss_as_a_class_gives_the_same_figures(name):
    task, loss, x, y, model = USUAL[name]
    usual, own = task(), task(loss=loss)
    batch = LabelledBatch(x, y)
    own_loss, own_tally = own.loss(model, batch)
    usual_loss, usual_tally = usual.loss(model, batch)
    torch.testing.assert_close(own_loss, usual_loss)
    assert read_tally(own_tally) == pytest.approx(read_tally(usual_tally))
    with torch.no_grad():
        parts = [own.measure(model, LabelledBatch(x[a:b], y[a:b])) for a, b in ((0, 5), (5, N))]
        whole = read_tally(usual.measure(model, batch))
    assert read_tally(add_tallies(*parts)) == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("name", USUAL)
def test_another_loss_is_what_is_minimised_and_reported(name):
    task, _, x, y, model = USUAL[name]

    def twice_the_spread(output, target):
        assert len(output) == len(target)
        return 2 * output.square().mean()

    loss, tally = task(loss=twice_the_spread).loss(model, LabelledBatch(x, y))
    assert loss.item() == pytest.approx(2 * model(x).square().mean().item(), rel=1e-5)
    assert read_tally(tally)["loss"] == pytest.approx(loss.item(), rel=1e-6)


@pytest.mark.parametrize("name", USUAL)
def test_a_loss_that_cannot_be_used_is_one_sentence(name):
    task = USUAL[name][0]
    with pytest.raises(ValueError, match="loss 'dice' is not one of"):
        task(loss="dice")
    with pytest.raises(ValueError, match="reduction='none'; a task needs the mean over the batch"):
        task(loss=nn.L1Loss(reduction="none"))
    with pytest.raises(ValueError, match="Linear has weights to train, which the optimizer would not see"):
        task(loss=nn.Linear(2, 2))


@pytest.mark.parametrize("settings", [{"label_smoothing": 0.1}, {"weight": "auto"}])
def test_settings_of_the_cross_entropy_are_refused_beside_another_loss(settings):
    with pytest.raises(ValueError, match="belong to loss=cross_entropy"):
        Classification(loss=nn.MultiMarginLoss(), **settings)
    with pytest.raises(ValueError, match="belongs to loss=binary_cross_entropy"):
        MultiLabel("auto", loss=nn.MultiLabelSoftMarginLoss())


@pytest.mark.parametrize(("kind", "task"), [("regression", Regression), ("classes", Classification)])
def test_a_table_takes_a_loss_of_its_kind(kind, task):
    loss = nn.SmoothL1Loss()
    made = of_table(kind, loss=loss)
    assert isinstance(made, task)
    assert made.criterion is loss
    with pytest.raises(ValueError, match="is not one of"):
        of_table(kind, loss={"regression": "cross_entropy", "classes": "mse"}[kind])  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "task", ["classification", "binary_classification", "multi_label", "segmentation", "reconstruction", "forecasting"]
)
def test_a_config_gives_the_loss(task):
    words = [f"task={task}", "task.loss={_target_:torch.nn.HuberLoss,delta:0.5}"]
    config = configs.Composer().compose(words).config
    configs.check(config)
    assert configs.build(config["procedure"]["learner"], "task").criterion.delta == 0.5
    with pytest.raises(ConfigError, match=r"task\.loss: 'dice' \(str\) does not fit"):
        configs.check(configs.Composer().compose([f"task={task}", "task.loss=dice"]).config)


def test_the_loss_moves_to_the_device():
    task = Classification(loss=nn.MultiMarginLoss(weight=torch.ones(3)))
    task.start(None, torch.device("meta"))  # pyright: ignore[reportArgumentType]
    assert task.criterion.weight.device.type == "meta"  # pyright: ignore[reportFunctionMemberAccess]


def test_a_penalised_task_prepares_the_task_inside():
    inner = Classification(weight=[1.0, 2.0, 3.0])
    task = Penalised(inner, "l2", 0.0)
    task.start(None, torch.device("cpu"))  # pyright: ignore[reportArgumentType]
    loss, _ = task.loss(linear(4, 3), LabelledBatch(X, CLASSES))
    wanted = F.cross_entropy(linear(4, 3)(X), CLASSES, torch.tensor([1.0, 2.0, 3.0]), reduction="sum") / N
    torch.testing.assert_close(loss, wanted)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (CLASSES.int(), "The labels are int32; the task needs class numbers, int64"),
        (CLASSES.float(), "The labels are float32"),
        (CLASSES > 1, "The labels are bool"),
        (CLASSES[:, None], r"have the shape \(12, 1\); the task needs \(12,\)"),
        (F.one_hot(CLASSES, 3).float(), r"have the shape \(12, 3\)"),  # torch takes them for probabilities
        (CLASSES + 1, "run from 1 to 3; the classes of the model are 0 to 2"),
        (CLASSES - 1, "run from -1 to 1; the classes of the model are 0 to 2"),
    ],
)
def test_labels_that_are_no_class_numbers(labels, words):
    with pytest.raises(UserError, match=words):
        Classification().loss(linear(4, 3), LabelledBatch(X, labels))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (LABELS[:, 0] + 1, "run from 1 to 2; the classes of the model are 0 to 1"),
        (LABELS[:, 0] * 2 - 1, "run from -1 to 1"),
        (LABELS[:, 0].float(), "The labels are float32"),
    ],
)
def test_labels_of_two_classes_are_0_and_1(labels, words):
    with pytest.raises(UserError, match=words):
        BinaryClassification().measure(linear(4, 1), LabelledBatch(X, labels))


def test_an_output_without_classes_is_one_sentence():
    with pytest.raises(ValueError, match=r"the model's output is \(12,\), but the task needs \(batch, n_classes\)"):
        Classification().loss(nn.Sequential(linear(4, 1), nn.Flatten(0)), LabelledBatch(X, CLASSES))


def test_labels_of_pixels_are_class_numbers():
    model = nn.Conv2d(1, 3, 3, padding=1)
    with pytest.raises(UserError, match=r"have the shape \(12, 1, 5, 5\); the task needs \(12, 5, 5\)"):
        Segmentation().loss(model, LabelledBatch(IMAGES, PIXELS[:, None]))
    with pytest.raises(UserError, match="run from 1 to 3"):
        Segmentation().loss(model, LabelledBatch(IMAGES, PIXELS + 1))


def test_a_regressions_targets_are_not_broadcast():
    """torch would compare each output with each target: (12,) against (12, 1) gives (12, 12) errors."""
    with pytest.raises(ValueError, match=r"output is \(12,\), but the task needs \(12, 1\)"):
        Regression().loss(linear(4, 1), LabelledBatch(X, X.sum(1, keepdim=True)))
