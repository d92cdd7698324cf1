"""Similarities equal textdistance's on random token lists; error rates by hand."""

from __future__ import annotations

import random

import pytest
import textdistance
import torch

from dl_lab.tasks.text_similarity import compare, cosine, cut_at_stop, damerau_levenshtein, jaccard, split_words
from dl_lab.types import PADDING, SPACE, START, STOP, read_tally


def pairs():
    """Yield random lists of 0 to 30 tokens of few kinds, and lists that differ by a few edits and swaps."""
    rng = random.Random(0)
    for i in range(300):
        a = [rng.randrange(rng.choice([2, 5, 35])) for _ in range(rng.randrange(31))]
        b = [rng.randrange(35) for _ in range(rng.randrange(31))]
        if i % 2:
            b = list(a)
            for _ in range(rng.randrange(5)):
                place = rng.randrange(len(b) + 1)
                b[place : place + rng.randrange(3)] = [rng.randrange(35) for _ in range(rng.randrange(3))]
                if place + 1 < len(b):
                    b[place], b[place + 1] = b[place + 1], b[place]
        yield a, b
    yield [], []
    yield [1], []
    yield [1, 2, 3], [3, 1, 2]  # optimal string alignment changes no part twice: 2 edits


@pytest.mark.parametrize(
    ("own", "theirs"),
    [
        (jaccard, textdistance.Jaccard(external=False)),
        (cosine, textdistance.Cosine(external=False)),
        (damerau_levenshtein, textdistance.DamerauLevenshtein(external=False)),
    ],
    ids=["jaccard", "cosine", "damerau_levenshtein"],
)
def test_equals_textdistance(own, theirs):
    for a, b in pairs():
        assert own(a, b) == pytest.approx(theirs.normalized_similarity(a, b), abs=1e-12), (a, b)


def test_swaps_count_once():
    assert damerau_levenshtein([5, 6, 7], [6, 5, 7]) == pytest.approx(1 - 1 / 3)


def test_a_text_ends_at_its_first_stop_or_gets_one():
    assert cut_at_stop([START, 9, STOP, 10, STOP]) == [START, 9, STOP]
    assert cut_at_stop([START, 9, 10]) == [START, 9, STOP]


def test_words_are_runs_between_spaces():
    assert split_words([START, SPACE, 9, 10, SPACE, SPACE, 11, STOP]) == [(9, 10), (11,)]


def test_the_tally_counts_edits_over_all_clips():
    spoken = torch.tensor([[START, 9, 10, SPACE, 11, STOP], [START, 9, STOP, PADDING, PADDING, PADDING]])
    written = torch.tensor([[START, 9, 10, SPACE, 12, STOP], [START, 9, STOP, PADDING, PADDING, PADDING]])
    metrics = read_tally(compare(written, spoken))
    assert metrics["cer"] == pytest.approx(1 / 5)
    assert metrics["wer"] == pytest.approx(1 / 3)
    assert metrics["damerau_levenshtein"] == pytest.approx((5 / 6 + 1) / 2)
    assert metrics["jaccard"] == pytest.approx((5 / 7 + 1) / 2)
    assert metrics["cosine"] == pytest.approx((5 / 6 + 1) / 2)


def test_what_follows_a_stop_costs_nothing():
    spoken = torch.tensor([[START, 9, STOP, PADDING]])
    metrics = read_tally(compare(torch.tensor([[START, 9, STOP, 10]]), spoken))
    assert metrics["cer"] == 0 and metrics["jaccard"] == 1
