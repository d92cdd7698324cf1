"""Exact attention: softmax(q k^T) v (Vaswani et al. 2017, eq. 1, without the scale), written out and fused."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
    """Compute and keep every weight: 4 L^2 D operations, L^2 numbers in memory.

    Args:
        q: Queries (..., length, dim).
        k: Keys (..., length, dim).
        v: Values (..., length, dim_v).
        mask: True for the keys that count, (..., length) bool; None if all count.
        causal: Whether a query sees only the keys up to its own position.

    Returns:
        The weighted means of the values, (..., length, dim_v).

    Raises:
        ValueError: Causal attention has different numbers of queries and keys.
    """
    scores = q @ k.mT  # (..., length, length)
    allowed = allowed_pairs(q, k, mask, causal)
    if allowed is None:
        return torch.softmax(scores, dim=-1) @ v
    return masked_softmax(scores, allowed) @ v


def fused_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
    """Compute the same with torch's scaled_dot_product_attention, which never holds all weights at once.

    Args:
        q: Queries (..., length, dim).
        k: Keys (..., length, dim).
        v: Values (..., length, dim_v).
        mask: True for the keys that count, (..., length) bool; None if all count.
        causal: Whether a query sees only the keys up to its own position.

    Returns:
        The weighted means of the values, (..., length, dim_v).

    Raises:
        ValueError: Causal attention with a mask has different numbers of queries and keys.
    """
    lead = q.shape[:-2]
    q, k, v = (_make_four_axes(x) for x in (q, k, v))  # the fast kernels take no other shape
    allowed = None if mask is None else allowed_pairs(q, k, _make_three_axes(mask), causal)
    z = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, is_causal=causal and allowed is None, scale=1.0)
    if allowed is not None:
        z = z.masked_fill(~allowed.any(dim=-1, keepdim=True), 0)
    return z.reshape(*lead, *z.shape[-2:])


def masked_softmax(scores: Tensor, allowed: Tensor) -> Tensor:
    """Take the softmax of the allowed scores over the last axis; a row without an allowed score is all zeros, not NaN.

    Args:
        scores: Scores (..., n).
        allowed: Which scores take part, bool, broadcastable to (..., n).

    Returns:
        The weights (..., n).
    """
    weights = torch.softmax(scores.masked_fill(~allowed, torch.finfo(scores.dtype).min), dim=-1)
    return weights * allowed.any(dim=-1, keepdim=True)


def allowed_pairs(q: Tensor, k: Tensor, mask: Tensor | None, causal: bool) -> Tensor | None:
    """Return which query may see which key, bool, broadcastable to (..., length, length); None if each sees all.

    Raises:
        ValueError: Causal attention has different numbers of queries and keys.
    """
    keys = None if mask is None else mask[..., None, :]
    if not causal:
        return keys
    if q.shape[-2] != k.shape[-2]:
        raise ValueError(f"causal attention needs as many queries as keys, not {q.shape[-2]} and {k.shape[-2]}")
    before = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
    return before if keys is None else before & keys


def _make_four_axes(x: Tensor) -> Tensor:
    """Return x as (batch, heads, length, dim): leading axes of size 1 are added, or the first axes are merged."""
    if x.dim() > 4:
        return x.flatten(0, -4)
    ones = (1,) * (4 - x.dim())
    return x.reshape(*ones, *x.shape)


def _make_three_axes(mask: Tensor) -> Tensor:
    """Return the mask as (batch, heads, length), as `_make_four_axes` does with the keys."""
    if mask.dim() > 3:
        return mask.flatten(0, -3)
    ones = (1,) * (3 - mask.dim())
    return mask.reshape(*ones, *mask.shape)
