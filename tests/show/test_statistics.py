"""Statistics over seeds, compared with scipy and with counting by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats

from dl_lab.show import statistics

VALUES = [0.91, 0.94, 0.90, 0.97, 0.93]


def test_mean_deviation_and_interval_are_scipys():
    found = statistics.spread(VALUES)
    assert found.mean == pytest.approx(np.mean(VALUES))
    assert found.std == pytest.approx(np.std(VALUES, ddof=1))
    expected = scipy.stats.t.interval(0.95, 4, loc=np.mean(VALUES), scale=scipy.stats.sem(VALUES))
    assert (found.low, found.high) == pytest.approx(expected)


def test_the_interval_holds_the_true_mean_in_95_of_100_samples():
    samples = np.random.default_rng(0).normal(3.0, 2.0, size=(4000, 3))
    held = [s.low <= 3.0 <= s.high for s in (statistics.spread(list(map(float, row))) for row in samples)]
    assert np.mean(held) == pytest.approx(0.95, abs=0.011)


def test_one_value_has_no_spread_and_none_is_an_error():
    assert statistics.spread([0.5]) == statistics.Spread(1, 0.5)
    with pytest.raises(ValueError, match="no values"):
        statistics.spread([])


def test_pairs_are_the_common_seeds():
    one = {0: 0.9, 1: 0.8, 2: 0.95, 7: 0.1}
    other = {0: 0.85, 1: 0.79, 2: 0.91, 9: 0.99}
    found = statistics.compare_pairs(one, other)
    assert found.n == 3
    expected = scipy.stats.ttest_rel([0.9, 0.8, 0.95], [0.85, 0.79, 0.91])
    assert found.p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p_signs == found.smallest == 0.25  # all three point the same way
    assert statistics.compare_pairs({0: 1.0}, {1: 1.0}) is None


def test_sign_flips_are_scipys_permutation_test():
    differences = [0.3, -0.1, 0.2, 0.4, 0.05]
    found = statistics.compare_pairs(dict(enumerate(differences)), dict.fromkeys(range(5), 0.0))
    expected = scipy.stats.permutation_test(
        (np.array(differences), np.zeros(5)), lambda x, y: np.mean(x - y), permutation_type="samples"
    )
    assert found.p_signs == pytest.approx(expected.pvalue)


def test_equal_results_are_no_difference():
    same = dict(enumerate(VALUES))
    assert statistics.compare_pairs(same, same).p == 1.0
    shifted = {seed: value + 0.25 for seed, value in {0: 0.5, 1: 0.25}.items()}
    assert statistics.compare_pairs(shifted, {0: 0.5, 1: 0.25}).p == 0.0


def test_the_number_of_seeds_bounds_the_p_value():
    assert [statistics.smallest_p(n) for n in (1, 2, 3)] == [1.0, 0.5, 0.25]
    for n in (3, 5):
        patterns = list(itertools.product((1, -1), repeat=n))
        assert statistics.smallest_p(n) == sum(abs(sum(p)) == n for p in patterns) / len(patterns)
    assert statistics.fewest_pairs() == 6


def test_holms_correction_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03, None]) == pytest.approx([0.03, 0.06, 0.06, None])
    assert statistics.holm([0.6, 0.7]) == [1.0, 1.0]
    assert statistics.holm([]) == []


@pytest.mark.parametrize(("spreads", "decimals"), [([0.0123], 3), ([1.2, 1.3, 50.0], 1), ([12.0], 0), ([None, 0.0], 4)])
def test_decimals_show_two_digits_of_the_deviation(spreads, decimals):
    assert statistics.decimals(spreads) == decimals


@pytest.mark.parametrize(
    ("means", "decimals"),
    [([0.0036, 0.0041, 0.0038], 6), ([0.0000123], 6), ([0.01, 0.97], 4), ([812.0], 4), ([0.0, float("nan")], 4)],
)
def test_without_a_deviation_small_means_show_four_digits(means, decimals):
    assert statistics.decimals([None, 0.0], means) == decimals


def test_intervals_stay_within_the_bounds_of_their_metric():
    accuracies = [0.99, 1.0, 0.95]
    found = statistics.spread(accuracies, statistics.scale_of("test/accuracy", accuracies))
    assert 0 < found.low < found.mean < found.high < 1
    losses = [0.01, 0.3, 0.02]
    found = statistics.spread(losses, statistics.scale_of("val/loss", losses))
    assert 0 < found.low < found.mean < found.high
    same = statistics.spread([1.0, 1.0], "logit")
    assert (same.low, same.high) == (1.0, 1.0)


def test_intervals_of_small_deviations_are_students():
    values = [0.700, 0.701, 0.702]
    plain = statistics.spread(values)
    assert plain.high - plain.mean == pytest.approx(plain.mean - plain.low)
    for scale in ("log", "logit"):
        found = statistics.spread(values, scale)
        assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=1e-4)


def test_only_values_within_the_bounds_have_a_bounded_scale():
    assert statistics.scale_of("test/accuracy", [0.5, 70.0]) == "plain"
    assert statistics.scale_of("val/loss", [-1.0, 2.0]) == "plain"
    assert statistics.scale_of("test/r2", [0.5, 0.6]) == "plain"
