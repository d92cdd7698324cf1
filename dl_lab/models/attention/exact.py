"""Exact attention: softmax(q k^T) v (Vaswani et al. 2017, eq. 1, without the scale), written out and fused."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
    """Every weight computed and kept: 4 L^2 D operations, L^2 numbers in memory. See the package for the contract."""
    scores = q @ k.mT  # (..., length, length)
    allowed = allowed_pairs(q, k, mask, causal)
    if allowed is None:
        return torch.softmax(scores, dim=-1) @ v
    return masked_softmax(scores, allowed) @ v


def fused_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
    """The same by torch's scaled_dot_product_attention, which never holds all weights at once."""
    lead = q.shape[:-2]
    q, k, v = (_four_axes(x) for x in (q, k, v))  # other shapes miss the fast kernels
    allowed = None if mask is None else allowed_pairs(q, k, _mask_four_axes(mask), causal)
    z = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, is_causal=causal and allowed is None, scale=1.0)
    if allowed is not None:
        z = z.masked_fill(~allowed.any(dim=-1, keepdim=True), 0)
    return z.reshape(*lead, *z.shape[-2:])


def masked_softmax(scores: Tensor, allowed: Tensor) -> Tensor:
    """Softmax over the last axis of what is allowed; a row where nothing is allowed is all zeros (and no NaN)."""
    weights = torch.softmax(scores.masked_fill(~allowed, torch.finfo(scores.dtype).min), dim=-1)
    return weights * allowed.any(dim=-1, keepdim=True)


def allowed_pairs(q: Tensor, k: Tensor, mask: Tensor | None, causal: bool) -> Tensor | None:
    """Which query may see which key, broadcastable to (..., length, length); None: each sees all.

    Raises ValueError for a causal mask over queries and keys of different lengths.
    """
    keys = None if mask is None else mask[..., None, :]
    if not causal:
        return keys
    if q.shape[-2] != k.shape[-2]:
        raise ValueError(f"causal attention needs as many queries as keys, not {q.shape[-2]} and {k.shape[-2]}")
    before = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
    return before if keys is None else before & keys


def _four_axes(x: Tensor) -> Tensor:
    return x.reshape(*(1,) * (4 - x.dim()), *x.shape) if x.dim() <= 4 else x.flatten(0, -4)


def _mask_four_axes(mask: Tensor) -> Tensor:
    return mask.reshape(*(1,) * (3 - mask.dim()), *mask.shape) if mask.dim() <= 3 else mask.flatten(0, -3)
