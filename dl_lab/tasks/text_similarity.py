"""Compare written texts with the spoken ones: the IST course's similarities, character and word error rate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from rapidfuzz.distance import OSA, Levenshtein
from torch import Tensor

from dl_lab.types import PADDING, SPACE, START, STOP, Ratio, Tally

Tokens = Sequence[int]


def jaccard(a: Tokens, b: Tokens) -> float:
    """Return |A ∩ B| / |A ∪ B| of the two multisets; 1 if both are empty."""
    shared = _count_shared(a, b)
    union = len(a) + len(b) - shared
    return shared / union if union else 1.0


def cosine(a: Tokens, b: Tokens) -> float:
    """Return |A ∩ B| / sqrt(|A| |B|) of the two multisets (Otsuka-Ochiai); 1 if both are empty, 0 if one is."""
    if not a or not b:
        return float(len(a) == len(b))
    return _count_shared(a, b) / (len(a) * len(b)) ** 0.5


def damerau_levenshtein(a: Tokens, b: Tokens) -> float:
    """Return 1 - distance / the longer length; 1 if both are empty.

    The distance counts insertions, deletions, substitutions and swaps of neighbours, and changes no part twice (optimal
    string alignment, which textdistance uses too).
    """
    return OSA.normalized_similarity(a, b)


SIMILARITIES = {"jaccard": jaccard, "cosine": cosine, "damerau_levenshtein": damerau_levenshtein}


def _count_shared(a: Tokens, b: Tokens) -> int:
    return (Counter(a) & Counter(b)).total()


def cut_at_stop(row: Sequence[int]) -> list[int]:
    """Return the symbols up to and with the first STOP.

    If there is no STOP, it replaces the last symbol, as in the IST course.
    """
    tokens = list(row)
    if STOP in tokens:
        return tokens[: tokens.index(STOP) + 1]
    return [*tokens[:-1], STOP]


def drop_markers(tokens: Tokens) -> list[int]:
    """Return the characters alone, without START, STOP and PADDING."""
    return [token for token in tokens if token not in (START, STOP, PADDING)]


def split_words(tokens: Tokens) -> list[tuple[int, ...]]:
    """Return the runs of characters between spaces."""
    runs = groupby(drop_markers(tokens), lambda token: token == SPACE)
    return [tuple(run) for is_space, run in runs if not is_space]


def compare(written: Tensor, spoken: Tensor) -> Tally:
    """Return the tally of written texts against the spoken ones.

    jaccard, cosine and damerau_levenshtein compare the symbols with START and STOP, averaged over clips. cer and wer
    divide all edits (Levenshtein) by all characters, or words, of the spoken texts.

    Args:
        written: Texts (batch, length), each START, symbols, STOP, PADDING.
        spoken: Texts (batch, text_length), the same way.
    """
    pairs = [(cut_at_stop(w), cut_at_stop(s)) for w, s in zip(written.tolist(), spoken.tolist(), strict=True)]
    tally: Tally = {}
    for name, similarity in SIMILARITIES.items():
        tally[name] = Ratio(sum(similarity(w, s) for w, s in pairs), len(pairs))
    for name, split in (("cer", drop_markers), ("wer", split_words)):
        edits = sum(Levenshtein.distance(split(w), split(s)) for w, s in pairs)
        tally[name] = Ratio(edits, sum(len(split(s)) for _, s in pairs))
    return tally
