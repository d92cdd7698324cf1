"""How near a written text is to the one spoken: the IST course's similarities, character and word error rate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from rapidfuzz.distance import OSA, Levenshtein
from torch import Tensor

from dl_lab.types import PADDING, SPACE, START, STOP, Ratio, Tally

Tokens = Sequence[int]


def jaccard(a: Tokens, b: Tokens) -> float:
    """|A ∩ B| / |A ∪ B| of the two multisets; 1 where both are empty."""
    shared = _overlap(a, b)
    union = len(a) + len(b) - shared
    return shared / union if union else 1.0


def cosine(a: Tokens, b: Tokens) -> float:
    """Otsuka-Ochiai: |A ∩ B| / sqrt(|A| |B|) of the two multisets; 1 where both are empty, 0 where one is."""
    if not a or not b:
        return float(len(a) == len(b))
    return _overlap(a, b) / (len(a) * len(b)) ** 0.5


def damerau_levenshtein(a: Tokens, b: Tokens) -> float:
    """1 - distance / the longer length; insertions, deletions, substitutions and swaps of neighbours, no part changed
    twice (optimal string alignment, textdistance's own choice); 1 where both are empty."""
    return OSA.normalized_similarity(a, b)


def _overlap(a: Tokens, b: Tokens) -> int:
    return (Counter(a) & Counter(b)).total()


def ended(row: Sequence[int]) -> list[int]:
    """Up to and with the first STOP; where there is none the last symbol becomes one, as the course has it."""
    tokens = list(row)
    if STOP in tokens:
        return tokens[: tokens.index(STOP) + 1]
    return [*tokens[:-1], STOP]


def characters(tokens: Tokens) -> list[int]:
    return [token for token in tokens if token not in (START, STOP, PADDING)]


def words(tokens: Tokens) -> list[tuple[int, ...]]:
    """The runs between spaces."""
    return [tuple(run) for is_space, run in groupby(characters(tokens), lambda t: t == SPACE) if not is_space]


def compared(written: Tensor, spoken: Tensor) -> Tally:
    """Tally of texts (batch, length) against targets (batch, text_length), both START ... STOP PADDING.

    jaccard, cosine, damerau_levenshtein: of the symbols with START and STOP, averaged over clips. cer, wer: all edits
    (Levenshtein) over all characters, or words, of the targets.
    """
    pairs = [(ended(w), ended(s)) for w, s in zip(written.tolist(), spoken.tolist(), strict=True)]
    tally: Tally = {
        name: Ratio(sum(similarity(w, s) for w, s in pairs), len(pairs))
        for name, similarity in (("jaccard", jaccard), ("cosine", cosine), ("damerau_levenshtein", damerau_levenshtein))
    }
    for name, units in (("cer", characters), ("wer", words)):
        edits = sum(Levenshtein.distance(units(w), units(s)) for w, s in pairs)
        tally[name] = Ratio(edits, sum(len(units(s)) for _, s in pairs))
    return tally
