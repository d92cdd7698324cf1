"""Sparse attention: exact softmax over a part of the keys, computed in blocks so that nothing else is touched.

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
    """Query i sees the keys j with |i - j| <= window (causal: i - window <= j <= i): 12 L window D operations.

    Raises ValueError for a window below 1 and for queries and keys of different lengths.
    """
    _check(q, k, "window", window)
    blocks = _Blocks(q, k, v, mask, window)
    scores = blocks.q @ _neighbours(blocks.k, causal).mT  # (..., n_blocks, block, 2 or 3 blocks)
    allowed = _near(window, window, causal, q.device) & _neighbours(blocks.counts[..., None], causal).mT
    z = masked_softmax(scores, allowed) @ _neighbours(blocks.v, causal)
    return blocks.joined(z)


def strided_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, stride: int | None = None, causal: bool = False
) -> Tensor:
    """Query i sees the keys nearer than `stride`, and every stride-th key before and after it (causal: before).

    stride None: sqrt(length), which costs L^1.5. Raises ValueError for a stride below 1 and for queries and keys
    of different lengths.
    """
    stride = max(1, round(math.sqrt(q.shape[-2]))) if stride is None else stride
    _check(q, k, "stride", stride)
    blocks = _Blocks(q, k, v, mask, stride)
    near = blocks.q @ _neighbours(blocks.k, causal).mT
    near_allowed = _near(stride, stride - 1, causal, q.device) & _neighbours(blocks.counts[..., None], causal).mT
    columns_q, columns_k, columns_v = (x.transpose(-3, -2) for x in (blocks.q, blocks.k, blocks.v))
    far = (columns_q @ columns_k.mT).transpose(-3, -2)  # (..., n_blocks, block, n_blocks): same place in each block
    far_allowed = _other_blocks(far.shape[-1], causal, q.device) & blocks.counts.mT[..., None, :, :]
    allowed = torch.cat([a.expand_as(s) for a, s in ((near_allowed, near), (far_allowed, far))], dim=-1)
    weights = masked_softmax(torch.cat([near, far], dim=-1), allowed)
    near_weights, far_weights = weights.split([near.shape[-1], far.shape[-1]], dim=-1)
    z_far = (far_weights.transpose(-3, -2) @ columns_v).transpose(-3, -2)
    return blocks.joined(near_weights @ _neighbours(blocks.v, causal) + z_far)


class _Blocks:
    """q, k, v as (..., n_blocks, block, dim), padded with zeros, and which keys count (..., n_blocks, block)."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, block: int) -> None:
        self.length = q.shape[-2]
        counts = torch.ones(self.length, dtype=torch.bool, device=q.device) if mask is None else mask
        self.q, self.k, self.v = (_cut(x, block) for x in (q, k, v))
        self.counts = _cut(counts[..., None], block).squeeze(-1)

    def joined(self, z: Tensor) -> Tensor:
        return z.flatten(-3, -2)[..., : self.length, :]


def _cut(x: Tensor, block: int) -> Tensor:
    n_blocks = -(-x.shape[-2] // block)
    return F.pad(x, (0, 0, 0, n_blocks * block - x.shape[-2])).unflatten(-2, (n_blocks, block))


def _neighbours(x: Tensor, causal: bool) -> Tensor:
    """Each block with the one before and, unless causal, the one after: (..., n_blocks, 2 or 3 blocks, features)."""
    n_blocks = x.shape[-3]
    padded = F.pad(x, (0, 0, 0, 0, 1, 0 if causal else 1))
    return torch.cat([padded.narrow(-3, i, n_blocks) for i in range(2 if causal else 3)], dim=-2)


def _near(block: int, window: int, causal: bool, device: torch.device) -> Tensor:
    """(block, 2 or 3 blocks): which key of the neighbourhood lies within the window of which query of the block."""
    place = torch.arange(block, device=device)[:, None]
    distance = torch.arange((2 if causal else 3) * block, device=device)[None, :] - block - place
    return (distance.abs() <= window) & ((distance <= 0) if causal else True)


def _other_blocks(n_blocks: int, causal: bool, device: torch.device) -> Tensor:
    """(n_blocks, 1, n_blocks): all blocks but a query's own (causal: the earlier ones)."""
    pairs = torch.ones(n_blocks, n_blocks, dtype=torch.bool, device=device)
    other = pairs.tril(-1) if causal else pairs.tril(-1) | pairs.triu(1)
    return other[:, None, :]


def _check(q: Tensor, k: Tensor, name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} {value} is not at least 1")
    if q.shape[-2] != k.shape[-2]:
        raise ValueError(f"sparse attention needs as many queries as keys, not {q.shape[-2]} and {k.shape[-2]}")
