"""A recurrent text classifier that attends to all of its states.

Source: Z. Yang et al., "Hierarchical Attention Networks for Document Classification", NAACL 2016, equations 5 to 7 (the
word level). The score has the form of D. Bahdanau et al., ICLR 2015, with one learned query instead of a decoder.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from dl_lab.models.text_recurrent import CELLS, find_mirror_places, move_to_the_left, reorder


class AttentionPooling(nn.Module):
    """Weights of the states: u_t = tanh(W h_t + b) and a_t = softmax_t(u_t · q) (equations 5 and 6).

    Args:
        dim: Width of a state.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(dim, dim)
        self.query = nn.Linear(dim, 1, bias=False)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Weigh the states.

        Args:
            states: States (batch, length, dim).
            mask: True for a state that counts, (batch, length) bool; at least one in each row.

        Returns:
            The weights (batch, length). They sum to 1; a state that does not count has exactly 0.
        """
        scores = self.query(torch.tanh(self.project(states))).squeeze(2)  # (batch, length)
        return scores.masked_fill(~mask, -torch.inf).softmax(dim=1)


class TextAttentionRecurrent(nn.Module):
    """Recurrent layers, the weighted sum of the top layer's states, and a linear layer.

    The text is s = sum_t a_t h_t (equation 7). Padding on either side is skipped, as packed sequences skip it.

    Args:
        vocabulary_size: Number of words.
        n_outputs: Number of logits.
        cell: Kind of the recurrent layers.
        dim: Width of a word vector.
        hidden: Units of a layer in one direction.
        n_layers: Number of layers, at least 1.
        bidirectional: Whether each layer also reads the text backwards.
        dropout: Probability after each layer, and before the last linear layer.
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
        frozen_words: bool = False,
    ) -> None:
        super().__init__()
        if n_layers < 1:
            raise ValueError(f"n_layers {n_layers} is not at least 1")
        n_directions = 2 if bidirectional else 1
        sizes = [dim, *[hidden * n_directions] * (n_layers - 1)]
        self.words = nn.Embedding(vocabulary_size, dim)
        self.words.weight.requires_grad_(not frozen_words)
        self.forwards = nn.ModuleList(CELLS[cell](size, hidden, batch_first=True) for size in sizes)
        self.backwards = nn.ModuleList(CELLS[cell](size, hidden, batch_first=True) for size in sizes if bidirectional)
        self.pooling = AttentionPooling(hidden * n_directions)
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
        states, weights = self._read(tokens, mask)
        text = (weights[:, None] @ states).squeeze(1)  # (batch, hidden of all directions)
        return self.head(self.dropout(text))

    def word_weights(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return the weight of each token, (batch, length): the tokens of a text in order, then zeros."""
        return self._read(tokens, mask)[1]

    def _read(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the top layer's states (batch, length, ...) and their weights (batch, length)."""
        lengths = mask.sum(dim=1).clamp(min=1)
        longest = tokens.shape[1]
        is_token = torch.arange(longest, device=tokens.device) < lengths[:, None]
        states = self.words(move_to_the_left(tokens, mask))
        mirror = find_mirror_places(lengths, longest)
        for i, layer in enumerate(self.forwards):
            ahead = layer(states)[0]
            if self.backwards:
                behind = reorder(self.backwards[i](reorder(states, mirror))[0], mirror)
                ahead = torch.cat([ahead, behind], dim=2)
            states = self.dropout(ahead)
        return states, self.pooling(states, is_token)
