"""Regression: figures in the unit of the number, exact over uneven batches, as scikit-learn computes them."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from torch import nn

from dl_lab.tasks.of_table import of_table
from dl_lab.tasks.regression import Regression
from dl_lab.types import ConfigError, LabelledBatch, add_tallies, read_tally


def test_figures_are_those_of_scikit_learn():
    torch.manual_seed(0)
    x, y = torch.randn(50, 3), torch.randn(50)
    model = nn.Linear(3, 1).requires_grad_(False)
    task = Regression(scale=7.0)
    tally = {}
    for start, end in ((0, 7), (7, 50)):
        tally = add_tallies(tally, task.measure(model, LabelledBatch(x[start:end], y[start:end])))
    found = read_tally(tally)
    actual = (y * 7).numpy()
    predicted = (model(x)[:, 0] * 7).numpy()
    assert found["mae"] == pytest.approx(mean_absolute_error(actual, predicted), rel=1e-5)
    assert found["rmse"] == pytest.approx(root_mean_squared_error(actual, predicted), rel=1e-5)
    assert found["r2"] == pytest.approx(r2_score(actual, predicted), rel=1e-4)


def test_r2_of_a_constant_is_left_out():
    task = Regression()
    model = nn.Linear(2, 1).requires_grad_(False)
    assert "r2" not in read_tally(task.measure(model, LabelledBatch(torch.randn(4, 2), torch.ones(4))))


def test_a_model_of_several_outputs_is_refused():
    with pytest.raises(ValueError, match=r"one output for each item, not \(4, 3\)"):
        Regression().loss(nn.Linear(2, 3), LabelledBatch(torch.randn(4, 2), torch.randn(4)))


@pytest.mark.parametrize(
    ("loss", "by_hand"),
    [
        ("mse", lambda e: e**2),
        ("l1", abs),
        ("huber", lambda e: e**2 / 2 if abs(e) < 1 else abs(e) - 0.5),
        (nn.HuberLoss(delta=0.5), lambda e: e**2 / 2 if abs(e) < 0.5 else 0.5 * (abs(e) - 0.25)),
        (lambda predicted, actual: (predicted - actual).abs().pow(3).mean(), lambda e: abs(e) ** 3),
    ],
)
def test_any_loss_by_hand_and_exact_over_uneven_parts(loss, by_hand):
    torch.manual_seed(0)
    x, y = torch.randn(20, 3), 2 * torch.randn(20)
    model = nn.Linear(3, 1).requires_grad_(False)
    task = Regression(scale=7.0, loss=loss)
    wanted = sum(by_hand(error) for error in (model(x)[:, 0] - y).tolist()) / 20
    found, _ = task.loss(model, LabelledBatch(x, y))
    assert found.item() == pytest.approx(wanted, rel=1e-5)
    parts = [task.measure(model, LabelledBatch(x[a:b], y[a:b])) for a, b in ((0, 3), (3, 20))]
    metrics = read_tally(add_tallies(*parts))
    assert metrics["loss"] == pytest.approx(wanted, rel=1e-5)
    assert metrics["mae"] == pytest.approx(7 * (model(x)[:, 0] - y).abs().mean().item(), rel=1e-5)


def test_a_loss_that_cannot_be_used_is_one_sentence():
    with pytest.raises(ValueError, match="'hubber' is not one of mse, l1, huber, smooth_l1"):
        Regression(loss="hubber")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="needs the mean over the batch"):
        Regression(loss=nn.L1Loss(reduction="sum"))
    with pytest.raises(ValueError, match="the target is a number"):
        of_table("regression", label_smoothing=0.1)


def test_a_config_chooses_the_loss_by_name_or_by_class():
    from dl_lab import configs

    def build(*words):
        config = configs.Composer().compose(["task=regression", *words]).config
        configs.check(config)
        return configs.build(config["procedure"]["learner"], "task")

    assert build("task.loss=smooth_l1").criterion is torch.nn.functional.smooth_l1_loss
    assert build("task.loss={_target_:torch.nn.HuberLoss,delta:0.5}").criterion.delta == 0.5
    with pytest.raises(ConfigError, match=r"one of mse, l1, huber, smooth_l1 or .* \(_target_\)\. Did you mean huber"):
        build("task.loss=hubr")
