"""Recurrent networks that classify texts: RNN, LSTM, GRU, one or both directions, read at the last step."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class TextRecurrent(nn.Module):
    """Tokens (batch, length) int64 and mask (batch, length) bool, True for a token -> (batch, n_outputs) logits.

    The last state of each direction of the top layer goes to one linear layer. skip_padding: False runs over the row
    as it is, padding included, and reads the state after its last step, as much coursework does: right padding then
    lets the state forget the text. True computes what packed sequences compute: only tokens count, whatever the side
    of the padding. dropout: after each layer. frozen_words: the embedding is not trained.

    Packing itself (torch.nn.utils.rnn) is not used: the result is the same, but training is slower by a factor
    on the CPU (scripts/benchmarks/text.py measures both).
    """

    def __init__(
        self,
        vocabulary_size: int,
        n_outputs: int,
        cell: Literal["rnn", "lstm", "gru"] = "lstm",
        dim: int = 10,
        hidden: int = 32,
        n_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        skip_padding: bool = True,
        frozen_words: bool = False,
    ) -> None:
        super().__init__()
        if n_layers < 1:
            raise ValueError(f"n_layers {n_layers} is not at least 1")
        n_directions = 2 if bidirectional else 1
        self.skip_padding = skip_padding
        self.words = nn.Embedding(vocabulary_size, dim)
        self.words.weight.requires_grad_(not frozen_words)
        sizes = [dim, *[hidden * n_directions] * (n_layers - 1)]
        layers = [[CELLS[cell](size, hidden, batch_first=True) for _ in range(n_directions)] for size in sizes]
        self.forwards = nn.ModuleList(layer[0] for layer in layers)
        self.backwards = nn.ModuleList(layer[1] for layer in layers if bidirectional)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(hidden * n_directions, n_outputs)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        lengths = torch.full((len(tokens),), tokens.shape[1], device=tokens.device)
        if self.skip_padding:
            lengths = mask.sum(dim=1).clamp(min=1)
            tokens = from_the_left(tokens, mask)
        x, last = self.words(tokens), (lengths - 1)[:, None, None]
        if not self.backwards:
            for layer in self.forwards:
                x = self.dropout(layer(x)[0])
            return self.head(_at(x, last))
        mirror = reversing(lengths, tokens.shape[1])
        ahead = behind = x
        for layer, backward in zip(self.forwards, self.backwards, strict=True):
            ahead, behind = layer(x)[0], backward(_reordered(x, mirror))[0]  # (batch, length, hidden), behind mirrored
            x = self.dropout(torch.cat([ahead, _reordered(behind, mirror)], dim=2))
        return self.head(self.dropout(torch.cat([_at(ahead, last), _at(behind, last)], dim=1)))


def from_the_left(tokens: Tensor, mask: Tensor) -> Tensor:
    """Each row's tokens (one block, wherever it stands) moved to the front; what comes behind has no meaning."""
    first = mask.int().argmax(dim=1, keepdim=True)
    place = torch.arange(tokens.shape[1], device=tokens.device) + first
    return tokens.gather(1, place.clamp(max=tokens.shape[1] - 1))


def reversing(lengths: Tensor, longest: int) -> Tensor:
    """(batch, longest): the place that each place of a reversed row comes from; behind a row's end, its own."""
    place = torch.arange(longest, device=lengths.device)
    mirrored = lengths[:, None] - 1 - place
    return torch.where(mirrored >= 0, mirrored, place)


def _at(x: Tensor, place: Tensor) -> Tensor:
    """The state (batch, hidden) of each row at its place (batch, 1, 1)."""
    return x.take_along_dim(place, dim=1).squeeze(1)


def _reordered(x: Tensor, places: Tensor) -> Tensor:
    return x.take_along_dim(places[..., None], dim=1)
