"""The benchmark's score: its anchors, its normalisation, and a case worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dl_lab.procedures.nab import PROFILES, best_score, nab_score, probation, row_weights, scaled_sigmoid

STANDARD = PROFILES["standard"]
WINDOWS = [(300, 399), (700, 799)]


def detections(*rows, n=1000):
    detected = np.zeros(n, dtype=bool)
    detected[list(rows)] = True
    return detected


def test_published_values_of_the_sigmoid():
    assert [round(scaled_sigmoid(p), 5) for p in (-1, -0.5, 0, 1, 3)] == [0.98661, 0.84828, 0, -0.98661, -1]


def test_probation_is_15_percent_but_at_most_750_rows():
    assert (probation(1000), probation(10320)) == (150, 750)


def test_nothing_detected_is_0_and_the_first_row_of_each_window_100():
    assert nab_score(detections(), WINDOWS, STANDARD) == 0
    assert math.isclose(nab_score(detections(300, 700), WINDOWS, STANDARD), 100)
    assert math.isclose(nab_score(detections(300, 305, 390, 700), WINDOWS, STANDARD), 100), "the earliest counts"


def test_one_window_found_late_and_a_false_detection_by_hand():
    late = 2 / (1 + math.exp(-5 * 50 / 100)) - 1  # row 350: 50 of 100 rows before the edge
    false = 2 / (1 + math.exp(5 * 33 / 99)) - 1  # 33 rows behind a window of 100
    raw = late / scaled_sigmoid(-1) - 1 + 0.11 * false
    expected = 100 * (raw + 2) / 4
    assert math.isclose(nab_score(detections(350, 432), WINDOWS, STANDARD), expected)


def test_false_detections_before_any_window_cost_most_and_probation_costs_nothing():
    assert math.isclose(nab_score(detections(200), WINDOWS, STANDARD), 100 * -0.11 / 4)
    assert nab_score(detections(0, 100, 149), WINDOWS, STANDARD) == 0
    assert nab_score(detections(200), WINDOWS, PROFILES["reward_low_FP_rate"]) < nab_score(
        detections(200), WINDOWS, STANDARD
    )


def test_weights_are_positive_inside_windows_only():
    weights = row_weights(1000, WINDOWS, STANDARD)
    inside = np.zeros(1000, dtype=bool)
    inside[300:400] = inside[700:800] = True
    assert (weights[inside] > 0).all()
    assert (weights[~inside] < 0).all()


def test_hindsight_finds_the_separating_threshold():
    scores = np.linspace(0, 0.1, 1000)
    scores[[300, 700]] = 5
    assert math.isclose(best_score(scores, WINDOWS, STANDARD), 100)
    with pytest.raises(ValueError, match="no labelled window lies after the probation"):
        nab_score(detections(), [(0, 20)], STANDARD)
