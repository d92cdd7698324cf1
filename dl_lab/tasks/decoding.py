"""Writing text with a speech model: greedy and beam search over a decoder, the best path of CTC. All of it batched.

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
    sizes = kept.sum(dim=1)
    text = torch.full((len(symbols), symbols.shape[1] + 2), PADDING, device=symbols.device)
    text[:, 0] = START
    rows, places = kept.nonzero(as_tuple=True)
    text[rows, kept.cumsum(dim=1)[rows, places]] = symbols[rows, places]
    text[torch.arange(len(text), device=text.device), sizes + 1] = STOP
    return text
