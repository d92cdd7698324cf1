"""Errors of torch in the user's words."""

from __future__ import annotations

import pytest

from dl_lab.configs.explain import NO_KERNEL, fault, say


def test_a_layer_that_the_cpu_cannot_compute_is_said_in_plain_words():
    error = RuntimeError(
        "could not create a primitive descriptor for the LSTM forward propagation primitive. Run workload with"
        " environment variable ONEDNN_VERBOSE=all to get additional diagnostic information."
    )
    assert say(error) == fault(error) == NO_KERNEL


@pytest.mark.parametrize(
    ("error", "words"), [(KeyError(), "KeyError"), (RuntimeError("one\ntwo"), "one"), (ValueError(" three"), "three")]
)
def test_an_error_is_one_line(error, words):
    assert say(error) == words
