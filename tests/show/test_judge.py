"""Verdicts on published figures."""

from __future__ import annotations

import pytest

from dl_lab.configs.reference import check_reference
from dl_lab.show.judge import judge
from dl_lab.types import ConfigError


@pytest.mark.parametrize(
    ("mode", "measured", "passed"),
    [
        ("max", 0.75, True),
        ("max", 0.7499, False),
        ("max", 0.99, True),
        ("min", 1.05, True),
        ("min", 1.06, False),
        ("min", 0.1, True),
        ("equal", 1.05, True),
        ("equal", 0.94, False),
        ("equal", 1.06, False),
    ],
)
def test_each_mode_judges_by_its_own_bound(mode, measured, passed):
    value, tolerance = (0.8, 0.05) if mode == "max" else (1.0, 0.0500001)
    tolerance = 0.0500001 if mode == "max" else tolerance
    reference = {"test/x": {"value": value, "tolerance": tolerance, "mode": mode}}
    assert [v.passed for v in judge({"test/x": measured}, reference)] == [passed]


def test_the_default_is_at_least_without_tolerance():
    reference = {"test/x": {"value": 0.8}}
    assert judge({"test/x": 0.8}, reference)[0].passed
    assert not judge({"test/x": 0.7999}, reference)[0].passed


def test_a_figure_that_was_not_measured_does_not_pass():
    assert not judge({}, {"test/x": {"value": 0.0, "tolerance": 9.0}})[0].passed


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (0.5, "number as value"),
        ({"value": "high"}, "number as value"),
        ({"value": 0.5, "tolerence": 0.1}, r"reference\.test/x\.tolerence"),
        ({"value": 0.5, "tolerance": -0.1}, "at least 0"),
        ({"value": 0.5, "mode": "best"}, "max, min, equal"),
    ],
)
def test_a_reference_that_cannot_be_judged_is_refused(entry, words):
    with pytest.raises(ConfigError, match=words):
        check_reference({"test/x": entry})
