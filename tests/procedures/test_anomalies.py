"""Anomaly scores: the past does not depend on the future, the threshold not on the test part."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from dl_lab.datasets.series.tables import Series
from dl_lab.models.series_autoencoders import ConvAutoencoder
from dl_lab.procedures.anomalies import (
    choose_threshold,
    judge,
    list_windows,
    measure_window_errors,
    score_by_season,
    score_points,
)

LENGTH = 8


@pytest.fixture
def model():
    torch.manual_seed(0)
    return ConvAutoencoder((LENGTH, 1))


def values(n=100):
    return np.random.default_rng(0).normal(size=(n, 1))


@pytest.mark.parametrize("mode", ["trailing", "last"])
def test_cutting_the_future_off_changes_no_score_of_the_past(model, mode):
    whole = score_points(measure_window_errors(model, values(), LENGTH), mode)
    past = score_points(measure_window_errors(model, values()[:60], LENGTH), mode)
    np.testing.assert_allclose(past, whole[:60], rtol=1e-6, equal_nan=True)
    assert np.isnan(whole[: LENGTH - 1]).all()
    assert np.isfinite(whole[LENGTH - 1 :]).all()


def test_covering_windows_do_look_ahead(model):
    """This shows that the test above can fail."""
    whole = score_points(measure_window_errors(model, values(), LENGTH), "covering")
    past = score_points(measure_window_errors(model, values()[:60], LENGTH), "covering")
    assert not np.allclose(past[-LENGTH + 1 :], whole[60 - LENGTH + 1 : 60])


def test_seasonal_scores_look_back_only():
    np.testing.assert_allclose(
        score_by_season(values()[:60], 20, LENGTH), score_by_season(values(), 20, LENGTH)[:60], equal_nan=True
    )


def test_covering_is_the_mean_over_the_windows_of_a_point():
    errors = np.random.default_rng(1).random((5, 3))
    means = errors.mean(axis=1)
    expected = [means[max(0, i - 2) : i + 1].mean() for i in range(7)]
    expected[5:] = [means[3:].mean(), means[4:].mean()]
    np.testing.assert_allclose(score_points(errors, "covering"), expected)


def test_trailing_is_the_error_of_the_window_that_ends_at_the_point(model):
    data = values()
    scores = score_points(measure_window_errors(model, data, LENGTH), "trailing")
    x = torch.from_numpy(data[50 - LENGTH + 1 : 51]).float()[None]
    with torch.no_grad():
        assert np.isclose(scores[50], float(nn.functional.mse_loss(model(x), x)), rtol=1e-5)


@pytest.mark.parametrize(("rule", "level"), [("quantile", 0.9), ("sigmas", 3)])
def test_the_threshold_sees_validation_only(rule, level):
    scores = np.random.default_rng(0).random(300)
    threshold = choose_threshold(scores, [100, 200, 300], LENGTH, rule, level)
    changed = scores.copy()
    changed[:100] = changed[200:] = 99
    assert choose_threshold(changed, [100, 200, 300], LENGTH, rule, level) == threshold
    changed[150] = 50
    assert choose_threshold(changed, [100, 200, 300], LENGTH, rule, level) > threshold


def test_judged_by_hand():
    scores = np.zeros(400)
    labelled = [(200, 209), (300, 309)]
    scores[205:215] = 1
    metrics = judge(scores, 0.5, 100, labelled)
    assert metrics["precision"] == 0.5
    assert metrics["recall"] == 0.25
    assert metrics["accuracy"] == (300 - 5 - 15) / 300
    assert metrics["accuracy_of_none"] == 280 / 300
    assert metrics["windows_found"] == 1


def test_windows_table_says_found_or_missed():
    times = np.datetime64("2020-01-01T00:00:00") + np.arange(30) * np.timedelta64(1800, "s")
    series = Series(times, np.zeros((30, 1)), np.ones((30, 1), dtype=bool), ("value",))
    detected = np.zeros(30, dtype=bool)
    detected[7] = True
    first, second = list_windows(detected, series, [(5, 9), (20, 25)])
    assert (first["found"], first["delay_rows"], first["first_detection"]) == (True, 2, "2020-01-01T03:30:00")
    assert (second["found"], second["delay_rows"]) == (False, "")
