"""Writing text with a speech model: greedy and beam search, over a decoder or over the steps of CTC. All of it batched.

A model that writes has `encode`, `start` and `step` (see `SpeechToText`); what it has read stays in its state, so a
symbol costs one step, not the whole prefix again.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dl_lab.types import PADDING, START, STOP

LOOK_EVERY = 8  # symbols between two questions to the device whether every text has ended


@torch.no_grad()
def greedy(model: Any, features: Tensor, n_frames: Tensor, length: int) -> Tensor:
    """The likeliest symbol at every step: (batch, up to length + 1) int64, START first, PADDING after STOP."""
    memory = model.encode(features, n_frames)
    state = model.start(len(features), 1, features.device)
    tokens = torch.full((len(features), 1), START, device=features.device)
    written, ended = [tokens], torch.zeros_like(tokens, dtype=torch.bool)
    for i in range(length):
        logits, state = model.step(tokens, state, memory)  # (batch, 1, n_symbols)
        tokens = logits.argmax(dim=-1).masked_fill(ended, PADDING)
        written.append(tokens)
        ended = ended | (tokens == STOP)
        if i % LOOK_EVERY == 0 and bool(ended.all()):
            break
    return torch.cat(written, dim=1)


@torch.no_grad()
def beam(
    model: Any, features: Tensor, n_frames: Tensor, length: int, beams: int, length_penalty: float = 0.0
) -> Tensor:
    """The text of the highest log-probability among those that `beams` prefixes a clip lead to; shape as `greedy`.

    length_penalty a: texts of n symbols compete by log-probability / n^a (0: as it is, which favours short ones; Wu
    et al. 2016, section 7, with their constant left out). A text that reaches `length` without STOP counts as it is.
    """
    if beams < 1:
        raise ValueError(f"beams {beams} is not at least 1")
    n, device = len(features), features.device
    memory = model.encode(features, n_frames)
    state = model.start(n, beams, device)
    tokens = torch.full((n, beams), START, device=device)
    written = tokens[..., None]  # (batch, beams, length so far)
    scores = torch.full((n, beams), -torch.inf, device=device)
    scores[:, 0] = 0  # all beams begin alike: only one of them counts
    ended, sizes = torch.zeros_like(tokens, dtype=torch.bool), torch.zeros_like(tokens)
    rows = torch.arange(n, device=device)[:, None]
    for i in range(length):
        logits, state = model.step(tokens, state, memory)
        gains = logits.float().log_softmax(dim=-1)
        after_stop = torch.full_like(gains, -torch.inf)
        after_stop[..., PADDING] = 0  # a text that has ended goes on as it is
        totals = scores[..., None] + torch.where(ended[..., None], after_stop, gains)
        scores, best = totals.flatten(1).topk(beams)  # (batch, beams)
        parents, tokens = best // gains.shape[-1], best % gains.shape[-1]
        state = type(state)(*[part[rows, parents] for part in state])
        written = torch.cat([written[rows, parents], tokens[..., None]], dim=2)
        ended, sizes = ended[rows, parents], sizes[rows, parents]
        sizes = sizes + ~ended
        ended = ended | (tokens == STOP)
        if i % LOOK_EVERY == 0 and bool(ended.all()):
            break
    best = (scores / sizes.clamp(min=1) ** length_penalty).argmax(dim=1)
    return written[rows[:, 0], best]


def best_path(logits: Tensor, n_steps: Tensor) -> Tensor:
    """CTC's likeliest path, repetitions merged and blanks (PADDING) dropped (Graves et al. 2006, section 3.2).

    logits (batch, steps, n_symbols), n_steps (batch,) -> (batch, steps + 2): START, the text, STOP, PADDING.
    """
    symbols = logits.argmax(dim=-1)
    steps = torch.arange(symbols.shape[1], device=symbols.device)
    before = torch.nn.functional.pad(symbols[:, :-1], (1, 0), value=-1)
    kept = (symbols != before) & (symbols != PADDING) & (steps < n_steps[:, None])
    rows, places = kept.nonzero(as_tuple=True)
    texts = torch.full_like(symbols, PADDING)
    texts[rows, kept.cumsum(dim=1)[rows, places] - 1] = symbols[rows, places]
    return _framed(texts, kept.sum(dim=1))


def best_prefix(logits: Tensor, n_steps: Tensor, beams: int) -> Tensor:
    """CTC's likeliest text among those that `beams` prefixes a clip lead to (see `prefixes`); shapes as `best_path`.

    A text is as likely as all its alignments together; the best path looks at a single one. Raises ValueError for
    less than one beam.
    """
    texts, sizes, _ = prefixes(logits, n_steps, beams)
    return _framed(texts[:, 0], sizes[:, 0])


@torch.no_grad()
def prefixes(logits: Tensor, n_steps: Tensor, beams: int) -> tuple[Tensor, Tensor, Tensor]:
    """Prefix beam search over CTC's steps (Hannun et al. 2014, algorithm 1, without its language model).

    logits (batch, steps, n_symbols), n_steps (batch,) -> texts (batch, beams, steps) int64 with PADDING, the blank,
    behind each; sizes (batch, beams) int64; log-probabilities (batch, beams), best first. They are sums over the
    alignments whose prefixes all stayed among the `beams` likeliest of their step: with enough beams, over all. Where
    there are fewer texts than beams the rest have -inf and mean nothing.
    """
    if beams < 1:
        raise ValueError(f"beams {beams} is not at least 1")
    gains = logits.float().log_softmax(dim=-1)
    n, length, n_symbols = gains.shape
    device = gains.device
    idle = torch.full((n_symbols,), -torch.inf, device=device)
    idle[PADDING] = 0  # behind a clip's end nothing but a sure blank: its prefixes stay as they are
    behind = torch.arange(length, device=device) >= n_steps[:, None]
    gains = torch.where(behind[..., None], idle, gains)
    texts = torch.full((n, beams, length), PADDING, device=device)
    sizes = torch.zeros(n, beams, dtype=torch.int64, device=device)
    by_symbol = torch.full((n, beams), -torch.inf, device=device)  # the alignments ending with the prefix's last symbol
    by_blank = by_symbol.clone()  # those ending with a blank
    by_blank[:, 0] = 0  # all beams begin alike: only one of them counts
    rows = torch.arange(n, device=device)[:, None]
    for t in range(length):
        gain = gains[:, t, None]  # (batch, 1, n_symbols)
        last = texts.gather(2, (sizes - 1).clamp(min=0)[..., None])  # (batch, beams, 1), PADDING of the empty prefix
        is_last = torch.nn.functional.one_hot(last[..., 0], n_symbols).bool()
        totals = torch.logaddexp(by_blank, by_symbol)
        # A repetition of the last symbol is a new one only after a blank; the empty prefix has no symbol to repeat.
        longer = torch.where(is_last, by_blank[..., None], totals[..., None]) + gain  # (batch, beams, n_symbols)
        same_by_blank = totals + gain[..., PADDING]
        same_by_symbol = by_symbol + gain.expand_as(longer).gather(2, last)[..., 0]
        # What makes one prefix longer may be another that is there already: its share goes over to that one.
        known = texts[..., : t + 1]  # no prefix is longer than t
        shortened = known.scatter(2, (sizes - 1).clamp(min=0)[..., None], PADDING)
        child = (shortened[:, :, None] == known[:, None]).all(dim=3)  # (batch, child, parent)
        alive = totals > -torch.inf
        child &= (alive & (sizes > 0))[:, :, None] & alive[:, None]
        share = longer.gather(2, last.mT.expand(-1, beams, -1)).mT.masked_fill(~child, -torch.inf)
        same_by_symbol = torch.logaddexp(same_by_symbol, share.amax(dim=2))  # a prefix has one parent
        moved = child.mT.float() @ is_last.float() > 0  # (batch, parent, n_symbols)
        longer = longer.masked_fill(moved, -torch.inf)
        # The blank's place among the symbols is for the prefix that stays as it is.
        longer[..., PADDING] = torch.logaddexp(same_by_blank, same_by_symbol)
        best = longer.flatten(1).topk(beams)
        parents, symbols = best.indices // n_symbols, best.indices % n_symbols
        stays = symbols == PADDING
        by_blank = torch.where(stays, same_by_blank[rows, parents], -torch.inf)
        by_symbol = torch.where(stays, same_by_symbol[rows, parents], best.values)
        texts, sizes = texts[rows, parents], sizes[rows, parents]
        texts = texts.scatter(2, sizes[..., None], symbols[..., None])
        sizes = sizes + ~stays
    return texts, sizes, torch.logaddexp(by_blank, by_symbol)


def _framed(texts: Tensor, sizes: Tensor) -> Tensor:
    """START and STOP around texts (batch, length) of so many symbols: (batch, length + 2)."""
    framed = torch.nn.functional.pad(texts, (1, 1), value=PADDING)
    framed[:, 0] = START
    framed[torch.arange(len(framed), device=framed.device), sizes + 1] = STOP
    return framed
