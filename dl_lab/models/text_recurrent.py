"""Recurrent networks that classify texts by their last state: RNN, LSTM or GRU, in one or both directions."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

CELLS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class TextRecurrent(nn.Module):
    """Recurrent layers; the last state of each direction of the top layer goes to one linear layer.

    This class does not pack sequences (torch.nn.utils.rnn). The result is the same, but packing is several times slower
    to train on the CPU (scripts/benchmarks/text.py measures both).

    Args:
        vocabulary_size: Number of words.
        n_outputs: Number of logits.
        cell: Kind of the recurrent layers.
        dim: Width of a word vector.
        hidden: Units of a layer in one direction.
        n_layers: Number of layers, at least 1.
        bidirectional: Whether each layer also reads the text backwards.
        dropout: Probability after each layer.
        skip_padding: True computes what packed sequences compute: only tokens count, on whichever side the padding is.
            False reads the whole row, padding included, and takes the state after its last step, as much coursework
            does; the state then forgets the text during padding on the right.
        frozen_words: Whether the word vectors stay as they are.

    Raises:
        ValueError: `n_layers` is below 1.
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
        """Classify texts.

        Args:
            tokens: Word numbers (batch, length) int64.
            mask: True for a token, False for padding, (batch, length) bool.

        Returns:
            Logits (batch, n_outputs).
        """
        lengths = torch.full((len(tokens),), tokens.shape[1], device=tokens.device)
        if self.skip_padding:
            lengths = mask.sum(dim=1).clamp(min=1)
            tokens = move_to_the_left(tokens, mask)
        x = self.words(tokens)
        last = (lengths - 1)[:, None, None]
        if not self.backwards:
            for layer in self.forwards:
                x = self.dropout(layer(x)[0])
            return self.head(_pick(x, last))
        mirror = find_mirror_places(lengths, tokens.shape[1])
        ahead = x
        behind = x
        for layer, backward in zip(self.forwards, self.backwards, strict=True):
            ahead = layer(x)[0]  # (batch, length, hidden)
            behind = backward(reorder(x, mirror))[0]  # the same, mirrored
            x = self.dropout(torch.cat([ahead, reorder(behind, mirror)], dim=2))
        return self.head(self.dropout(torch.cat([_pick(ahead, last), _pick(behind, last)], dim=1)))


def move_to_the_left(tokens: Tensor, mask: Tensor) -> Tensor:
    """Move each row's tokens to the front; the numbers behind them have no meaning.

    Args:
        tokens: Word numbers (batch, length).
        mask: True for a token, (batch, length) bool. The tokens of a row must be one block.

    Returns:
        The moved rows, (batch, length).
    """
    first = mask.int().argmax(dim=1, keepdim=True)
    place = torch.arange(tokens.shape[1], device=tokens.device) + first
    return tokens.gather(1, place.clamp(max=tokens.shape[1] - 1))


def find_mirror_places(lengths: Tensor, longest: int) -> Tensor:
    """Return the place that each place of a reversed row comes from: (batch, longest).

    A place behind a row's end comes from itself.

    Args:
        lengths: Places of each row, (batch,).
        longest: Places of the longest row.
    """
    place = torch.arange(longest, device=lengths.device)
    mirrored = lengths[:, None] - 1 - place
    return torch.where(mirrored >= 0, mirrored, place)


def _pick(x: Tensor, place: Tensor) -> Tensor:
    """Return the state (batch, hidden) of each row at its place (batch, 1, 1)."""
    return x.take_along_dim(place, dim=1).squeeze(1)


def reorder(x: Tensor, places: Tensor) -> Tensor:
    """Return the states (batch, length, hidden) in the order of their places (batch, length)."""
    return x.take_along_dim(places[..., None], dim=1)
