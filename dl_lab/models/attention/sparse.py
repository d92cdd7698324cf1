"""Sparse attention: exact softmax over a part of the keys, computed in blocks so that the other keys cost nothing.

Sources: sliding window (Beltagy et al. 2020, section 3.1); strided (Child et al. 2019, section 4.2, both of its
patterns in one head).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from dl_lab.models.attention.exact import masked_softmax


def window_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, window: int, causal: bool = False
) -> Tensor:
    """Let query i see the keys j with |i - j| <= window (causal: i - window <= j <= i): 12 L window D operations.

    Args:
        q: Queries (..., length, dim).
        k: Keys (..., length, dim).
        v: Values (..., length, dim_v).
        mask: True for the keys that count, (..., length) bool; None if all count.
        window: The largest distance of a key, in positions.
        causal: Whether a query sees only the keys up to its own position.

    Returns:
        The weighted means of the values, (..., length, dim_v).

    Raises:
        ValueError: `window` is below 1, or the numbers of queries and keys differ.
    """
    _check(q, k, "window", window)
    blocks = _Blocks(q, k, v, mask, window)
    scores = blocks.q @ _join_neighbours(blocks.k, causal).mT  # (..., n_blocks, block, 2 or 3 blocks)
    allowed = _mark_near(window, window, causal, q.device) & _join_neighbours(blocks.counts[..., None], causal).mT
    z = masked_softmax(scores, allowed) @ _join_neighbours(blocks.v, causal)
    return blocks.join(z)


def strided_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, stride: int | None = None, causal: bool = False
) -> Tensor:
    """Let a query see the keys nearer than `stride`, and every stride-th key before and after it (causal: before).

    Args:
        q: Queries (..., length, dim).
        k: Keys (..., length, dim).
        v: Values (..., length, dim_v).
        mask: True for the keys that count, (..., length) bool; None if all count.
        stride: Distance in positions; None takes sqrt(length), which costs L^1.5.
        causal: Whether a query sees only the keys up to its own position.

    Returns:
        The weighted means of the values, (..., length, dim_v).

    Raises:
        ValueError: `stride` is below 1, or the numbers of queries and keys differ.
    """
    if stride is None:
        stride = max(1, round(math.sqrt(q.shape[-2])))
    _check(q, k, "stride", stride)
    blocks = _Blocks(q, k, v, mask, stride)
    near = blocks.q @ _join_neighbours(blocks.k, causal).mT
    near_allowed = (
        _mark_near(stride, stride - 1, causal, q.device) & _join_neighbours(blocks.counts[..., None], causal).mT
    )
    columns_q, columns_k, columns_v = (x.transpose(-3, -2) for x in (blocks.q, blocks.k, blocks.v))
    far = (columns_q @ columns_k.mT).transpose(-3, -2)  # (..., n_blocks, block, n_blocks): same place in each block
    far_allowed = _mark_other_blocks(far.shape[-1], causal, q.device) & blocks.counts.mT[..., None, :, :]
    allowed = torch.cat([near_allowed.expand_as(near), far_allowed.expand_as(far)], dim=-1)
    weights = masked_softmax(torch.cat([near, far], dim=-1), allowed)
    near_weights, far_weights = weights.split([near.shape[-1], far.shape[-1]], dim=-1)
    z_far = (far_weights.transpose(-3, -2) @ columns_v).transpose(-3, -2)
    return blocks.join(near_weights @ _join_neighbours(blocks.v, causal) + z_far)


class _Blocks:
    """Queries, keys and values cut into blocks.

    Attributes:
        length: Positions before the padding.
        q: Queries (..., n_blocks, block, dim); zeros fill the last block.
        k: Keys, the same way.
        v: Values, the same way.
        counts: Which keys count, (..., n_blocks, block) bool; padding does not.
    """

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, block: int) -> None:
        self.length = q.shape[-2]
        counts = torch.ones(self.length, dtype=torch.bool, device=q.device) if mask is None else mask
        self.q, self.k, self.v = (_cut(x, block) for x in (q, k, v))
        self.counts = _cut(counts[..., None], block).squeeze(-1)

    def join(self, z: Tensor) -> Tensor:
        """Join the blocks z (..., n_blocks, block, dim_v) to (..., length, dim_v)."""
        return z.flatten(-3, -2)[..., : self.length, :]


def _cut(x: Tensor, block: int) -> Tensor:
    """Cut x (..., length, dim) into (..., n_blocks, block, dim); zeros fill the last block."""
    n_blocks = -(-x.shape[-2] // block)
    return F.pad(x, (0, 0, 0, n_blocks * block - x.shape[-2])).unflatten(-2, (n_blocks, block))


def _join_neighbours(x: Tensor, causal: bool) -> Tensor:
    """Join each block with the block before and, unless causal, the block after.

    Returns:
        The neighbourhoods (..., n_blocks, 2 or 3 blocks, features).
    """
    n_blocks = x.shape[-3]
    padded = F.pad(x, (0, 0, 0, 0, 1, 0 if causal else 1))
    return torch.cat([padded.narrow(-3, i, n_blocks) for i in range(2 if causal else 3)], dim=-2)


def _mark_near(block: int, window: int, causal: bool, device: torch.device) -> Tensor:
    """Mark which key of a neighbourhood lies within the window of which query: (block, 2 or 3 blocks) bool."""
    n_blocks = 2 if causal else 3
    place = torch.arange(block, device=device)[:, None]
    distance = torch.arange(n_blocks * block, device=device)[None, :] - block - place
    near = distance.abs() <= window
    return near & (distance <= 0) if causal else near


def _mark_other_blocks(n_blocks: int, causal: bool, device: torch.device) -> Tensor:
    """Mark all blocks but a query's own (causal: the earlier blocks): (n_blocks, 1, n_blocks) bool."""
    pairs = torch.ones(n_blocks, n_blocks, dtype=torch.bool, device=device)
    other = pairs.tril(-1) if causal else pairs.tril(-1) | pairs.triu(1)
    return other[:, None, :]


def _check(q: Tensor, k: Tensor, name: str, value: int) -> None:
    """Raise ValueError for a value below 1, and for different numbers of queries and keys."""
    if value < 1:
        raise ValueError(f"{name} {value} is not at least 1")
    if q.shape[-2] != k.shape[-2]:
        raise ValueError(f"sparse attention needs as many queries as keys, not {q.shape[-2]} and {k.shape[-2]}")
