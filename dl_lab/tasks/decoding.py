"""Write text with a speech model: greedy and beam search, over a decoder or over the steps of CTC, in whole batches.

A model that writes has `encode`, `start` and `step` (see `SpeechToText`). Its state holds what it has read, so that a
symbol costs one step and the prefix is not read again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dl_lab.types import PADDING, START, STOP

LOOK_EVERY = 8  # symbols between two looks whether every text has ended: a look waits for the device


@torch.no_grad()
def search_greedily(model: Any, features: Tensor, n_frames: Tensor, length: int) -> Tensor:
    """Write the most probable symbol at every step.

    Args:
        model: A model that writes.
        features: Log-mel features (batch, frames, n_mels).
        n_frames: Frames of each clip, (batch,).
        length: The most symbols after START.

    Returns:
        The texts (batch, at most length + 1) int64: START, the symbols, STOP, then PADDING.
    """
    memory = model.encode(features, n_frames)
    state = model.start(len(features), 1, features.device)
    tokens = torch.full((len(features), 1), START, device=features.device)
    written = [tokens]
    ended = torch.zeros_like(tokens, dtype=torch.bool)
    for i in range(length):
        logits, state = model.step(tokens, state, memory)  # (batch, 1, n_symbols)
        tokens = logits.argmax(dim=-1).masked_fill(ended, PADDING)
        written.append(tokens)
        ended = ended | (tokens == STOP)
        if i % LOOK_EVERY == 0 and bool(ended.all()):
            break
    return torch.cat(written, dim=1)


@torch.no_grad()
def search_beams(
    model: Any, features: Tensor, n_frames: Tensor, length: int, beams: int, length_penalty: float = 0.0
) -> Tensor:
    """Write the most probable of the texts that `beams` prefixes per clip lead to.

    A text that reaches `length` without a STOP competes as it is.

    Args:
        model: A model that writes.
        features: Log-mel features (batch, frames, n_mels).
        n_frames: Frames of each clip, (batch,).
        length: The most symbols after START.
        beams: Prefixes kept for each clip.
        length_penalty: The exponent a: texts of n symbols compete by log-probability / n^a (Wu et al. 2016, section 7,
            without their constant). 0 compares the log-probabilities themselves, which favours short texts.

    Returns:
        The texts, as `search_greedily` returns them.

    Raises:
        ValueError: `beams` is below 1.
    """
    if beams < 1:
        raise ValueError(f"beams {beams} is not at least 1")
    n = len(features)
    device = features.device
    memory = model.encode(features, n_frames)
    state = model.start(n, beams, device)
    tokens = torch.full((n, beams), START, device=device)
    written = tokens[..., None]  # (batch, beams, length so far)
    scores = torch.full((n, beams), -torch.inf, device=device)
    scores[:, 0] = 0  # all beams start as the same prefix, so only one of them counts
    ended = torch.zeros_like(tokens, dtype=torch.bool)
    sizes = torch.zeros_like(tokens)
    rows = torch.arange(n, device=device)[:, None]
    for i in range(length):
        logits, state = model.step(tokens, state, memory)
        gains = logits.float().log_softmax(dim=-1)
        after_stop = torch.full_like(gains, -torch.inf)
        after_stop[..., PADDING] = 0  # a text that has ended stays as it is
        totals = scores[..., None] + torch.where(ended[..., None], after_stop, gains)
        scores, best = totals.flatten(1).topk(beams)  # (batch, beams)
        parents = best // gains.shape[-1]
        tokens = best % gains.shape[-1]
        state = type(state)(*[part[rows, parents] for part in state])
        written = torch.cat([written[rows, parents], tokens[..., None]], dim=2)
        ended = ended[rows, parents]
        sizes = sizes[rows, parents] + ~ended
        ended = ended | (tokens == STOP)
        if i % LOOK_EVERY == 0 and bool(ended.all()):
            break
    best = (scores / sizes.clamp(min=1) ** length_penalty).argmax(dim=1)
    return written[rows[:, 0], best]


def find_best_path(logits: Tensor, n_steps: Tensor) -> Tensor:
    """Find CTC's most probable path; merge repetitions and drop blanks (Graves et al. 2006, section 3.2).

    Args:
        logits: Logits (batch, steps, n_symbols); PADDING is the blank.
        n_steps: Steps of each clip, (batch,).

    Returns:
        The texts (batch, steps + 2) int64: START, the symbols, STOP, then PADDING.
    """
    symbols = logits.argmax(dim=-1)
    steps = torch.arange(symbols.shape[1], device=symbols.device)
    before = torch.nn.functional.pad(symbols[:, :-1], (1, 0), value=-1)
    kept = (symbols != before) & (symbols != PADDING) & (steps < n_steps[:, None])
    rows, places = kept.nonzero(as_tuple=True)
    texts = torch.full_like(symbols, PADDING)
    texts[rows, kept.cumsum(dim=1)[rows, places] - 1] = symbols[rows, places]
    return _frame(texts, kept.sum(dim=1))


def find_best_text(logits: Tensor, n_steps: Tensor, beams: int) -> Tensor:
    """Find CTC's most probable text among those that `search_prefixes` finds.

    The probability of a text is the sum over all its alignments. The best path looks at a single alignment.

    Args:
        logits: Logits (batch, steps, n_symbols); PADDING is the blank.
        n_steps: Steps of each clip, (batch,).
        beams: Prefixes kept for each clip.

    Returns:
        The texts (batch, steps + 2) int64: START, the symbols, STOP, then PADDING.

    Raises:
        ValueError: `beams` is below 1.
    """
    texts, sizes, _ = search_prefixes(logits, n_steps, beams)
    return _frame(texts[:, 0], sizes[:, 0])


@torch.no_grad()
def search_prefixes(logits: Tensor, n_steps: Tensor, beams: int) -> tuple[Tensor, Tensor, Tensor]:
    """Search the texts of CTC's steps by their prefixes (Hannun et al. 2014, algorithm 1, without its language model).

    A log-probability is a sum over the alignments whose prefixes were among the `beams` best at every step. With enough
    beams these are all alignments. If there are fewer texts than beams, the other entries have -inf and mean nothing.

    Args:
        logits: Logits (batch, steps, n_symbols); PADDING is the blank.
        n_steps: Steps of each clip, (batch,).
        beams: Prefixes kept for each clip.

    Returns:
        The texts (batch, beams, steps) int64 with PADDING behind each, best first; their sizes (batch, beams) int64;
        their log-probabilities (batch, beams).

    Raises:
        ValueError: `beams` is below 1.
    """
    if beams < 1:
        raise ValueError(f"beams {beams} is not at least 1")
    gains = logits.float().log_softmax(dim=-1)
    n, length, n_symbols = gains.shape
    device = gains.device
    idle = torch.full((n_symbols,), -torch.inf, device=device)
    idle[PADDING] = 0  # behind a clip's end a blank is certain, so that its prefixes stay as they are
    behind = torch.arange(length, device=device) >= n_steps[:, None]
    gains = torch.where(behind[..., None], idle, gains)
    texts = torch.full((n, beams, length), PADDING, device=device)
    sizes = torch.zeros(n, beams, dtype=torch.int64, device=device)
    by_symbol = torch.full((n, beams), -torch.inf, device=device)  # of alignments that end with the last symbol
    by_blank = by_symbol.clone()  # of alignments that end with a blank
    by_blank[:, 0] = 0  # all beams start as the same prefix, so only one of them counts
    rows = torch.arange(n, device=device)[:, None]
    for t in range(length):
        gain = gains[:, t, None]  # (batch, 1, n_symbols)
        last = texts.gather(2, (sizes - 1).clamp(min=0)[..., None])  # (batch, beams, 1), PADDING of the empty prefix
        is_last = torch.nn.functional.one_hot(last[..., 0], n_symbols).bool()
        totals = torch.logaddexp(by_blank, by_symbol)
        # The last symbol makes a prefix longer only after a blank; the empty prefix has no symbol to repeat.
        longer = torch.where(is_last, by_blank[..., None], totals[..., None]) + gain  # (batch, beams, n_symbols)
        same_by_blank = totals + gain[..., PADDING]
        same_by_symbol = by_symbol + gain.expand_as(longer).gather(2, last)[..., 0]
        # A prefix and a symbol may make another prefix of the beam. Its probability then moves to that prefix.
        known = texts[..., : t + 1]  # no prefix is longer than t
        shortened = known.scatter(2, (sizes - 1).clamp(min=0)[..., None], PADDING)
        child = (shortened[:, :, None] == known[:, None]).all(dim=3)  # (batch, child, parent)
        alive = totals > -torch.inf
        child &= (alive & (sizes > 0))[:, :, None] & alive[:, None]
        share = longer.gather(2, last.mT.expand(-1, beams, -1)).mT.masked_fill(~child, -torch.inf)
        same_by_symbol = torch.logaddexp(same_by_symbol, share.amax(dim=2))  # a prefix has one parent
        moved = child.mT.float() @ is_last.float() > 0  # (batch, parent, n_symbols)
        longer = longer.masked_fill(moved, -torch.inf)
        # In the column of the blank stands the prefix that stays as it is.
        longer[..., PADDING] = torch.logaddexp(same_by_blank, same_by_symbol)
        best = longer.flatten(1).topk(beams)
        parents = best.indices // n_symbols
        symbols = best.indices % n_symbols
        stays = symbols == PADDING
        by_blank = torch.where(stays, same_by_blank[rows, parents], -torch.inf)
        by_symbol = torch.where(stays, same_by_symbol[rows, parents], best.values)
        sizes = sizes[rows, parents]
        texts = texts[rows, parents].scatter(2, sizes[..., None], symbols[..., None])
        sizes = sizes + ~stays
    return texts, sizes, torch.logaddexp(by_blank, by_symbol)


def _frame(texts: Tensor, sizes: Tensor) -> Tensor:
    """Put START and STOP around texts (batch, length) of sizes (batch,) symbols: (batch, length + 2)."""
    framed = torch.nn.functional.pad(texts, (1, 1), value=PADDING)
    framed[:, 0] = START
    framed[torch.arange(len(framed), device=framed.device), sizes + 1] = STOP
    return framed
