"""Residual attention over the own sequence or another one, pre-norm: the block of the IST course's speech models.

Source: IST Deep Learning 2023/24, homework 2, question 3, whose code follows Whisper (Radford et al. 2022).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dl_lab.models.attention.exact import fused_attention, masked_softmax


class Memory(NamedTuple):
    """What is attended to, as keys and values (batch, heads, steps, head_dim), computed once however often it is read,
    and mask (batch, steps) bool, True for a step that counts, or None: every step does."""

    keys: Tensor
    values: Tensor
    mask: Tensor | None


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017, section 3.2.2) over a Memory: (batch, length, dim) -> the same shape.

    Projections of queries, values and outputs have a bias, that of the keys has none (it would cancel in the softmax).
    Queries and keys are each scaled by head_dim^(-1/4). Raises ValueError where dim is not a multiple of n_heads.
    """

    def __init__(self, dim: int, n_heads: int) -> None:
        super().__init__()
        if dim % n_heads:
            raise ValueError(f"dim {dim} is not a multiple of n_heads {n_heads}")
        self.n_heads, self.scale = n_heads, (dim // n_heads) ** -0.25
        self.query, self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def remember(self, source: Tensor, mask: Tensor | None = None) -> Memory:
        """source (batch, steps, dim) as what can be attended to."""
        return Memory(self._heads(self.key(source)) * self.scale, self._heads(self.value(source)), mask)

    def forward(self, x: Tensor, memory: Memory, causal: bool = False) -> Tensor:
        q = self._heads(self.query(x)) * self.scale
        mask = None if memory.mask is None else memory.mask[:, None, :]
        z = fused_attention(q, memory.keys, memory.values, mask, causal=causal)
        return self.out(z.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, memory: Memory) -> Tensor:
        """Where each query looks: (batch, heads, length, steps), each row adds up to 1."""
        scores = self._heads(self.query(x)) * self.scale @ memory.keys.mT
        if memory.mask is None:
            return torch.softmax(scores, dim=-1)
        return masked_softmax(scores, memory.mask[:, None, None, :])

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)  # (batch, heads, length, head_dim)


class ResidualAttention(nn.Module):
    """x + attention(norm(x)), and where `hidden` is given then x + feedforward(norm(x)): (batch, length, dim) -> same.

    hidden: width of the feedforward layer (GELU); None: there is none.
    """

    def __init__(self, dim: int, n_heads: int, hidden: int | None = None) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(dim), Attention(dim, n_heads)
        self.feedforward = None
        if hidden is not None:
            self.feedforward = nn.Sequential(
                nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim)
            )

    def over_itself(self, x: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """mask (batch, length) bool: True for what may be attended to."""
        normed = self.attention_norm(x)
        return self._fed(x + self.attention(normed, self.attention.remember(normed, mask), causal))

    def over(self, x: Tensor, memory: Memory) -> Tensor:
        """memory: what this block's `attention.remember` made of the other sequence."""
        return self._fed(x + self.attention(self.attention_norm(x), memory))

    def weights(self, x: Tensor, memory: Memory) -> Tensor:
        return self.attention.weights(self.attention_norm(x), memory)

    def _fed(self, x: Tensor) -> Tensor:
        return x if self.feedforward is None else x + self.feedforward(x)
