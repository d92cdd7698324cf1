"""Two decoders that write text while attending to an encoder's steps: a recurrent one and one of attention.

Source: IST Deep Learning 2023/24, homework 2, question 3. Contract: `TextDecoder` in speech.py. Each also writes
symbol by symbol (`start`, `step`) with what it has read kept as its state: LSTM states, or keys and values.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dl_lab.models.residual_attention import Memory, ResidualAttention


class RecurrentState(NamedTuple):
    """hidden and cell (batch, beams, dim) of the LSTM."""

    hidden: Tensor
    cell: Tensor


class RecurrentDecoder(nn.Module):
    """tokens (batch, length), Memory -> (batch, length, n_symbols) logits.

    Embedding, norm, LSTM, attention block over the encoder, norm, linear. 658,435 parameters with 35 symbols, dim
    200, hidden 400.
    """

    def __init__(self, n_symbols: int, dim: int, n_heads: int, hidden: int) -> None:
        super().__init__()
        self.dim = dim
        self.symbols, self.symbol_norm = nn.Embedding(n_symbols, dim), nn.LayerNorm(dim)
        self.lstm = nn.LSTM(dim, dim, batch_first=True)
        self.cross = ResidualAttention(dim, n_heads, hidden)
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, n_symbols))

    def remember(self, encoded: Tensor, mask: Tensor | None) -> Memory:
        return self.cross.attention.remember(encoded, mask)

    def forward(self, tokens: Tensor, memory: Memory) -> Tensor:
        return self.head(self.cross.over(self._read(tokens), memory))

    def start(self, batch: int, beams: int, device: torch.device) -> RecurrentState:
        empty = torch.zeros(batch, beams, self.dim, device=device)
        return RecurrentState(empty, empty)

    def step(self, tokens: Tensor, state: RecurrentState, memory: Memory) -> tuple[Tensor, RecurrentState]:
        x = self.symbol_norm(self.symbols(tokens))  # (batch, beams, dim)
        before = state.hidden.flatten(0, 1)[None], state.cell.flatten(0, 1)[None]  # (1, batch * beams, dim)
        read, after = self.lstm(x.flatten(0, 1)[:, None], before)
        hidden, cell = (part[0].view_as(state.hidden) for part in after)
        # The beams of a clip are so many queries over the same memory: it is never copied for them.
        return self.head(self.cross.over(read.view_as(x), memory)), RecurrentState(hidden, cell)

    def alignment(self, tokens: Tensor, memory: Memory) -> Tensor:
        return self.cross.weights(self._read(tokens), memory)

    def _read(self, tokens: Tensor) -> Tensor:
        return self.lstm(self.symbol_norm(self.symbols(tokens)))[0]


class AttentionState(NamedTuple):
    """Keys and values (batch, beams, heads, length so far, head_dim) of the causal self-attention."""

    keys: Tensor
    values: Tensor


class AttentionDecoder(nn.Module):
    """tokens (batch, length), Memory -> (batch, length, n_symbols) logits.

    Embedding and learned positions, causal self-attention, attention block over the encoder, norm, linear. 517,035
    parameters with 35 symbols, dim 200, hidden 400, text_length 99. text_length: of the longest text with its start
    and stop; what is read is one shorter, the stop never is. Raises ValueError for longer tokens.
    """

    def __init__(self, n_symbols: int, dim: int, n_heads: int, hidden: int, text_length: int) -> None:
        super().__init__()
        self.symbols = nn.Embedding(n_symbols, dim)
        self.positions = nn.Parameter(torch.rand(text_length - 1, dim))
        self.own, self.cross = ResidualAttention(dim, n_heads), ResidualAttention(dim, n_heads, hidden)
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, n_symbols))

    def remember(self, encoded: Tensor, mask: Tensor | None) -> Memory:
        return self.cross.attention.remember(encoded, mask)

    def forward(self, tokens: Tensor, memory: Memory) -> Tensor:
        return self.head(self.cross.over(self._read(tokens), memory))

    def start(self, batch: int, beams: int, device: torch.device) -> AttentionState:
        n_heads = self.own.attention.n_heads
        empty = torch.zeros(batch, beams, n_heads, 0, self.symbols.embedding_dim // n_heads, device=device)
        return AttentionState(empty, empty)

    def step(self, tokens: Tensor, state: AttentionState, memory: Memory) -> tuple[Tensor, AttentionState]:
        position = state.keys.shape[3]
        self._check(position + 1)
        x = self.symbols(tokens) + self.positions[position]  # (batch, beams, dim)
        attention, normed = self.own.attention, self.own.attention_norm(x).flatten(0, 1)[:, None]
        new = attention.remember(normed)  # (batch * beams, heads, 1, head_dim)
        shape = tokens.shape
        state = AttentionState(
            torch.cat([state.keys, new.keys.unflatten(0, shape)], dim=3),
            torch.cat([state.values, new.values.unflatten(0, shape)], dim=3),
        )
        known = Memory(state.keys.flatten(0, 1), state.values.flatten(0, 1), None)
        x = x + attention(normed, known).view_as(x)
        return self.head(self.cross.over(x, memory)), state

    def alignment(self, tokens: Tensor, memory: Memory) -> Tensor:
        return self.cross.weights(self._read(tokens), memory)

    def _read(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        self._check(length)
        return self.own.over_itself(self.symbols(tokens) + self.positions[:length], causal=True)

    def _check(self, length: int) -> None:
        if length > len(self.positions):
            raise ValueError(f"{length} symbols are more than the {len(self.positions)} this decoder has positions for")
