"""Residual pre-norm attention of a sequence over itself or over another: the block of the IST course's speech models.

Source: IST Deep Learning 2023/24, homework 2, question 3, whose code follows Whisper (Radford et al. 2022).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dl_lab.models.attention.exact import fused_attention, masked_softmax


class Memory(NamedTuple):
    """The keys and values of a sequence that other sequences attend to, computed once for any number of reads.

    Attributes:
        keys: Keys (batch, heads, steps, head_dim).
        values: Values (batch, heads, steps, head_dim).
        mask: True for a step that counts, (batch, steps) bool; None if every step counts.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor | None


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2.2) over a Memory: (batch, length, dim) -> the same shape.

    The projections of queries, values and outputs have a bias. The projection of the keys has none, because it would
    cancel in the softmax. Queries and keys are each scaled by head_dim^(-1/4).

    Args:
        dim: Width of the input and the output.
        n_heads: Number of heads, a divisor of `dim`.

    Raises:
        ValueError: `dim` is not a multiple of `n_heads`.
    """

    def __init__(self, dim: int, n_heads: int) -> None:
        super().__init__()
        if dim % n_heads:
            raise ValueError(f"dim {dim} is not a multiple of n_heads {n_heads}")
        self.n_heads = n_heads
        self.scale = (dim // n_heads) ** -0.25
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def remember(self, source: Tensor, mask: Tensor | None = None) -> Memory:
        """Return the memory of source (batch, steps, dim), with its mask (batch, steps) bool."""
        return Memory(self._heads(self.key(source)) * self.scale, self._heads(self.value(source)), mask)

    def forward(self, x: Tensor, memory: Memory, causal: bool = False) -> Tensor:
        """Map x (batch, length, dim) to its attention over the memory, (batch, length, dim)."""
        q = self._heads(self.query(x)) * self.scale
        mask = None if memory.mask is None else memory.mask[:, None, :]
        z = fused_attention(q, memory.keys, memory.values, mask, causal=causal)
        return self.out(z.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, memory: Memory) -> Tensor:
        """Return how much each query attends to each step: (batch, heads, length, steps); each row sums to 1."""
        scores = self._heads(self.query(x)) * self.scale @ memory.keys.mT
        if memory.mask is None:
            return torch.softmax(scores, dim=-1)
        return masked_softmax(scores, memory.mask[:, None, None, :])

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)  # (batch, heads, length, head_dim)


class ResidualAttention(nn.Module):
    """x + attention(norm(x)), then x + feedforward(norm(x)): (batch, length, dim) -> the same shape.

    Args:
        dim: Width of the input and the output.
        n_heads: Number of heads, a divisor of `dim`.
        hidden: Width of the feed-forward network's hidden layer (GELU); None leaves the network out.
    """

    def __init__(self, dim: int, n_heads: int, hidden: int | None = None) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = Attention(dim, n_heads)
        self.feedforward = None
        if hidden is not None:
            self.feedforward = nn.Sequential(
                nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim)
            )

    def attend_to_itself(self, x: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """Let x attend to itself.

        Args:
            x: The sequence (batch, length, dim).
            mask: True for a position that counts, (batch, length) bool; None if every position counts.
            causal: Whether a position sees only itself and those before it.

        Returns:
            The new sequence (batch, length, dim).
        """
        normed = self.attention_norm(x)
        return self._feed_forward(x + self.attention(normed, self.attention.remember(normed, mask), causal))

    def attend_to(self, x: Tensor, memory: Memory) -> Tensor:
        """Let x (batch, length, dim) attend to another sequence.

        Args:
            x: The sequence (batch, length, dim).
            memory: The other sequence, as this block's `attention.remember` returns it.

        Returns:
            The new sequence (batch, length, dim).
        """
        return self._feed_forward(x + self.attention(self.attention_norm(x), memory))

    def weights(self, x: Tensor, memory: Memory) -> Tensor:
        """Return how much each position attends to each step: (batch, heads, length, steps)."""
        return self.attention.weights(self.attention_norm(x), memory)

    def _feed_forward(self, x: Tensor) -> Tensor:
        return x if self.feedforward is None else x + self.feedforward(x)
