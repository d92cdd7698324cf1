"""Attention linear in the length: phi(q) (phi(k)^T v), the product reordered (Katharopoulos et al. 2020, eq. 5-9)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from dl_lab.models.attention.features import (
    Basis,
    elu_features,
    mclaurin_features,
    positive_random_features,
    truncated_exponential,
)

STREAM = 1024  # positions


def linear_attention(
    phi_q: Tensor,
    phi_k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool = False,
    chunk: int = 64,
    positive: bool = True,
) -> Tensor:
    """phi_q, phi_k (..., length, n_features), v (..., length, dim_v) -> (..., length, dim_v).

    4 L M (D + 1) operations and no length x length matrix; causal: prefix sums over chunks of `chunk` positions.
    positive: phi(q) . phi(k) cannot be negative. Where it can, a normaliser that is not above 0 raises ValueError.
    """
    values = _with_ones(v, mask)
    sums = causal_sums(phi_q, phi_k, values, chunk) if causal else phi_q @ (phi_k.mT @ values)
    return _normalised(sums, positive)


def _with_ones(v: Tensor, mask: Tensor | None) -> Tensor:
    """v and a column of ones (the normaliser comes out of the same product); zeros where a key does not count."""
    values = F.pad(v, (0, 1), value=1.0)
    return values if mask is None else values * mask[..., None]


def _normalised(sums: Tensor, positive: bool) -> Tensor:
    numerator, normaliser = sums[..., :-1], sums[..., -1:]
    if not positive:
        check_normaliser(normaliser)
    return numerator / normaliser.masked_fill(normaliser == 0, 1)  # 0 where no key is seen


def causal_sums(phi_q: Tensor, phi_k: Tensor, v: Tensor, chunk: int) -> Tensor:
    """sum over j <= i of (phi(q_i) . phi(k_j)) v_j: earlier chunks through their summed states, the rest pair by pair.

    Holds L / chunk states of (n_features, dim_v) and L / chunk blocks of (chunk, chunk): linear in L.
    Raises ValueError where there are not as many queries as keys.
    """
    length = phi_q.shape[-2]
    if length != phi_k.shape[-2]:
        raise ValueError(f"causal attention needs as many queries as keys, not {length} and {phi_k.shape[-2]}")
    chunk = min(chunk, length)
    phi_q, phi_k, v = (_in_chunks(x, chunk) for x in (phi_q, phi_k, v))  # (..., n_chunks, chunk, features)
    states = (phi_k.mT @ v).cumsum(dim=-3)
    earlier = F.pad(states[..., :-1, :, :], (0, 0, 0, 0, 1, 0))
    inside = (phi_q @ phi_k.mT).tril() @ v
    return (inside + phi_q @ earlier).flatten(-3, -2)[..., :length, :]


def _in_chunks(x: Tensor, chunk: int) -> Tensor:
    """(..., length, features) -> (..., n_chunks, chunk, features), padded with zeros."""
    n_chunks = -(-x.shape[-2] // chunk)
    return F.pad(x, (0, 0, 0, n_chunks * chunk - x.shape[-2])).unflatten(-2, (n_chunks, chunk))


def check_normaliser(normaliser: Tensor) -> None:
    """Raises ValueError where a query's weights do not sum to something above 0: their mean has no meaning."""
    wrong = normaliser <= 0
    if bool(wrong.any()):
        raise ValueError(
            f"{int(wrong.sum())} of {normaliser.numel()} queries have a normaliser that is not positive (smallest "
            f"{float(normaliser.min()):.3g}): a series with an even number of terms goes below 0 for small q . k; "
            "take an odd number of terms, or smaller q and k"
        )


def mclaurin_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    *,
    terms: int = 3,
    basis: Basis = "compact",
    causal: bool = False,
    chunk: int = 64,
) -> Tensor:
    """Attention whose weights are the first `terms` terms of exp(q . k)'s series; exact for that similarity.

    Raises ValueError where an even number of terms gives a query a normaliser that is not positive.
    """
    values, features = _with_ones(v, mask), partial(mclaurin_features, terms=terms, basis=basis)
    sums = causal_sums(features(q), features(k), values, chunk) if causal else streamed_sums(features, q, k, values)
    return _normalised(sums, positive=terms % 2 == 1)


def streamed_sums(features: Callable[[Tensor], Tensor], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """phi(q) (phi(k)^T v), the features made and used up `STREAM` positions at a time: they stay in the cache."""
    parts = zip(k.split(STREAM, dim=-2), v.split(STREAM, dim=-2), strict=True)
    state = sum(features(keys).mT @ values for keys, values in parts)
    return torch.cat([features(queries) @ state for queries in q.split(STREAM, dim=-2)], dim=-2)


def elu_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, causal: bool = False, chunk: int = 64
) -> Tensor:
    """Linear attention of elu + 1 features: a similarity of its own, no approximation of exp(q . k)."""
    return linear_attention(elu_features(q), elu_features(k), v, mask, causal=causal, chunk=chunk)


def random_feature_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    *,
    directions: Tensor,
    causal: bool = False,
    chunk: int = 64,
) -> Tensor:
    """Linear attention of positive random features (Performer) along `directions` (n_features, dim)."""
    phi_q = positive_random_features(q, directions, shift=(-1,))
    phi_k = positive_random_features(k, directions, shift=(-2, -1))
    return linear_attention(phi_q, phi_k, v, mask, causal=causal, chunk=chunk)


def series_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, terms: int = 3, causal: bool = False
) -> Tensor:
    """What `mclaurin_attention` must equal, by the length x length matrix of truncated exponentials; no sign check."""
    weights = truncated_exponential(q @ k.mT, terms)
    if mask is not None:
        weights = weights * mask[..., None, :]
    if causal:
        weights = weights.tril()
    normaliser = weights.sum(dim=-1, keepdim=True)
    return weights @ v / normaliser.masked_fill(normaliser == 0, 1)
