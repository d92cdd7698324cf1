"""Two decoders that write text while attending to an encoder's steps: one recurrent, one with causal self-attention.

Source: IST Deep Learning 2023/24, homework 2, question 3. Contract: `TextDecoder` in speech.py. To write symbol by
symbol (`start`, `step`), a decoder keeps what it has read in its state: LSTM states, or keys and values.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dl_lab.models.residual_attention import Memory, ResidualAttention


class RecurrentState(NamedTuple):
    """The state of the LSTM: hidden and cell, (batch, beams, dim) each."""

    hidden: Tensor
    cell: Tensor


class RecurrentDecoder(nn.Module):
    """Embedding, norm, LSTM, attention to the encoder, norm, linear layer.

    With 35 symbols, dim 200 and hidden 400 it has 658,435 parameters.

    Args:
        n_symbols: Number of symbols.
        dim: Width of the embedding and the LSTM.
        n_heads: Heads of the attention, a divisor of `dim`.
        hidden: Width of the feed-forward network's hidden layer.
    """

    def __init__(self, n_symbols: int, dim: int, n_heads: int, hidden: int) -> None:
        super().__init__()
        self.dim = dim
        self.symbols = nn.Embedding(n_symbols, dim)
        self.symbol_norm = nn.LayerNorm(dim)
        self.lstm = nn.LSTM(dim, dim, batch_first=True)
        self.cross = ResidualAttention(dim, n_heads, hidden)
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, n_symbols))

    def remember(self, encoded: Tensor, mask: Tensor | None) -> Memory:
        """Return the memory of the encoder's steps (batch, steps, dim) and their mask (batch, steps) bool."""
        return self.cross.attention.remember(encoded, mask)

    def forward(self, tokens: Tensor, memory: Memory) -> Tensor:
        """Map tokens (batch, length) to the logits of the symbols after them, (batch, length, n_symbols)."""
        return self.head(self.cross.attend_to(self._read(tokens), memory))

    def start(self, batch: int, beams: int, device: torch.device) -> RecurrentState:
        """Return the state before the first symbol."""
        empty = torch.zeros(batch, beams, self.dim, device=device)
        return RecurrentState(empty, empty)

    def step(self, tokens: Tensor, state: RecurrentState, memory: Memory) -> tuple[Tensor, RecurrentState]:
        """Read the last symbols (batch, beams); return the next logits (batch, beams, n_symbols) and the state."""
        x = self.symbol_norm(self.symbols(tokens))  # (batch, beams, dim)
        before = state.hidden.flatten(0, 1)[None], state.cell.flatten(0, 1)[None]  # (1, batch * beams, dim)
        read, after = self.lstm(x.flatten(0, 1)[:, None], before)
        hidden, cell = (part[0].view_as(state.hidden) for part in after)
        # The beams of a clip are queries over the same memory, which is never copied for them.
        logits = self.head(self.cross.attend_to(read.view_as(x), memory))
        return logits, RecurrentState(hidden, cell)

    def alignment(self, tokens: Tensor, memory: Memory) -> Tensor:
        """Return how much each symbol attends to each step: (batch, heads, length, steps)."""
        return self.cross.weights(self._read(tokens), memory)

    def _read(self, tokens: Tensor) -> Tensor:
        return self.lstm(self.symbol_norm(self.symbols(tokens)))[0]


class AttentionState(NamedTuple):
    """Keys and values of the causal self-attention, (batch, beams, heads, length so far, head_dim) each."""

    keys: Tensor
    values: Tensor


class AttentionDecoder(nn.Module):
    """Embedding and learned positions, causal self-attention, attention to the encoder, norm, linear layer.

    With 35 symbols, dim 200, hidden 400 and text_length 99 it has 517,035 parameters. Its methods raise ValueError for
    more symbols than it has positions.

    Args:
        n_symbols: Number of symbols.
        dim: Width of the embedding.
        n_heads: Heads of both attentions, a divisor of `dim`.
        hidden: Width of the feed-forward network's hidden layer.
        text_length: Symbols of the longest text with its START and STOP. The decoder has one position fewer, because it
            never reads the STOP.
    """

    def __init__(self, n_symbols: int, dim: int, n_heads: int, hidden: int, text_length: int) -> None:
        super().__init__()
        self.symbols = nn.Embedding(n_symbols, dim)
        self.positions = nn.Parameter(torch.rand(text_length - 1, dim))
        self.own = ResidualAttention(dim, n_heads)
        self.cross = ResidualAttention(dim, n_heads, hidden)
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, n_symbols))

    def remember(self, encoded: Tensor, mask: Tensor | None) -> Memory:
        """Return the memory of the encoder's steps (batch, steps, dim) and their mask (batch, steps) bool."""
        return self.cross.attention.remember(encoded, mask)

    def forward(self, tokens: Tensor, memory: Memory) -> Tensor:
        """Map tokens (batch, length) to the logits of the symbols after them, (batch, length, n_symbols)."""
        return self.head(self.cross.attend_to(self._read(tokens), memory))

    def start(self, batch: int, beams: int, device: torch.device) -> AttentionState:
        """Return the state before the first symbol."""
        n_heads = self.own.attention.n_heads
        empty = torch.zeros(batch, beams, n_heads, 0, self.symbols.embedding_dim // n_heads, device=device)
        return AttentionState(empty, empty)

    def step(self, tokens: Tensor, state: AttentionState, memory: Memory) -> tuple[Tensor, AttentionState]:
        """Read the last symbols (batch, beams); return the next logits (batch, beams, n_symbols) and the state."""
        position = state.keys.shape[3]
        self._check(position + 1)
        x = self.symbols(tokens) + self.positions[position]  # (batch, beams, dim)
        attention = self.own.attention
        normed = self.own.attention_norm(x).flatten(0, 1)[:, None]
        new = attention.remember(normed)  # (batch * beams, heads, 1, head_dim)
        shape = tokens.shape
        state = AttentionState(
            torch.cat([state.keys, new.keys.unflatten(0, shape)], dim=3),
            torch.cat([state.values, new.values.unflatten(0, shape)], dim=3),
        )
        known = Memory(state.keys.flatten(0, 1), state.values.flatten(0, 1), None)
        x = x + attention(normed, known).view_as(x)
        return self.head(self.cross.attend_to(x, memory)), state

    def alignment(self, tokens: Tensor, memory: Memory) -> Tensor:
        """Return how much each symbol attends to each step: (batch, heads, length, steps)."""
        return self.cross.weights(self._read(tokens), memory)

    def _read(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        self._check(length)
        return self.own.attend_to_itself(self.symbols(tokens) + self.positions[:length], causal=True)

    def _check(self, length: int) -> None:
        if length > len(self.positions):
            raise ValueError(f"{length} symbols are more than the {len(self.positions)} positions of this decoder")
