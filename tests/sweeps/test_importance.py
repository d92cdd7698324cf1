"""Which swept keys matter: shares of variance with their intervals, and where compare and report show them."""

from __future__ import annotations

import pytest

from dl_lab.sweeps.results import importance, outcome

VALUES = {
    (lr, seed): {0.5: 0.9, 0.25: 0.5, 0.75: 0.7}[lr] + seed / 1000 for lr in (0.5, 0.25, 0.75) for seed in range(3)
}


def test_the_key_that_changes_the_metric_explains_it(make_sweep):
    first, second = importance.measure_importance(outcome.read(make_sweep(VALUES)), "val/accuracy")
    assert (first.key, second.key) == ("optimizer.lr", "seed")
    assert first.share > 0.99
    assert 0.9 < first.low <= first.share + 1e-9
    assert second.share < 0.01
    assert first.slices["0.5"] == pytest.approx(0.901)


def test_main_effects_of_a_balanced_grid_add_up(make_sweep):
    """Without an interaction, the shares of a balanced grid sum to 1."""
    found = importance.measure_importance(outcome.read(make_sweep(VALUES)), "val/accuracy")
    assert sum(one.share for one in found) == pytest.approx(1.0)


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
    assert all(one.low <= one.share <= one.high for one in found)
