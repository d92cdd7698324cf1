"""Which swept keys matter: shares of variance with their intervals, and where compare and report show them."""

from __future__ import annotations

import random
import statistics

import pytest

from dl_lab.sweeps.results import importance, outcome

VALUES = {
    (lr, seed): {0.5: 0.9, 0.25: 0.5, 0.75: 0.7}[lr] + seed / 1000 for lr in (0.5, 0.25, 0.75) for seed in range(3)
}


def test_the_key_that_changes_the_metric_explains_it(make_sweep):
    first, second = importance.measure_importance(outcome.read(make_sweep(VALUES)), "val/accuracy")
    assert (first.key, second.key) == ("optimizer.lr", "seed")
    assert first.share > 0.99
    assert first.interval and second.interval
    assert 0.9 < first.interval[0] <= first.share <= first.interval[1] + 1e-9
    assert second.share < 0.01
    assert second.interval[1] < 0.01  # also with one job for each seed and rate
    assert first.slices["0.5"] == pytest.approx(0.901)


def test_main_effects_of_a_balanced_grid_add_up(make_sweep):
    """Without an interaction, the shares of a balanced grid sum to 1."""
    found = importance.measure_importance(outcome.read(make_sweep(VALUES)), "val/accuracy")
    assert sum(one.share for one in found) == pytest.approx(1.0)


def test_the_interval_holds_the_share_of_many_noisy_grids():
    """Nominally 90 of 100 hold the share that the effects and the variance of the noise give; of 300, 83 % did."""
    noise, held = 0.1, 0
    labels = [lr for lr in "abc" for _ in range(5)], [str(seed) for _ in "abc" for seed in range(5)]
    for number in range(100):
        draw = random.Random(number)
        values = [{"a": 0.0, "b": 0.1, "c": 0.3}[lr] + draw.gauss(0, noise) for lr in labels[0]]
        low, high = next(importance._resample(labels, values)) or (0.0, 0.0)
        between = statistics.pvariance([0.0, 0.1, 0.3])
        held += low <= between / (between + noise**2) <= high
    assert 75 <= held <= 100


def test_one_job_for_each_value_has_no_interval(make_sweep, command):
    folder = make_sweep({(lr, 0): 0.5 + lr / 10 for lr in (0.1, 0.2, 0.3, 0.4)})
    (only,) = importance.measure_importance(outcome.read(folder), "val/accuracy")
    assert (only.share, only.interval) == (pytest.approx(1.0), None)


def test_too_few_jobs_or_equal_results_give_no_importance(make_sweep):
    folder = make_sweep({(0.5, 0): 0.1, (0.25, 0): 0.2})
    assert importance.measure_importance(outcome.read(folder), "val/accuracy") == []


def test_a_number_with_many_values_is_divided_into_quarters():
    labels = importance._label([i / 10 for i in range(12)])
    assert len(set(labels)) == 4
    assert labels == sorted(labels, key=lambda text: float(text.split()[0]))


def test_compare_and_report_show_the_importances(command, make_sweep):
    folder = make_sweep(VALUES)
    _, out, _ = command("compare", str(folder))
    assert "What matters for val/accuracy" in out
    assert "0.5: 0.9010" in out
    command("report", str(folder))
    assert "### What matters" in (folder / "report.md").read_text()
    assert ">What matters</h" in (folder / "report.html").read_text()


def test_optuna_measures_the_importances_of_a_search(sweep, command):
    swept = sweep(
        "search=random", "n_trials=6", "optimizer.lr=tag(log,interval(1e-4,1e-1))", "model.dropout=interval(0,0.5)"
    )
    found = importance.measure_importance(outcome.read(swept.folder), "val/loss")
    assert {one.key for one in found} >= {"optimizer.lr", "model.dropout"}
    assert sum(one.share for one in found if one.key != "seed") == pytest.approx(1.0, abs=0.01)
    assert all(one.interval and one.interval[0] <= one.share <= one.interval[1] for one in found)
