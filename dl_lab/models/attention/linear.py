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

STREAM = 1024  # positions whose features are in memory at a time


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
    """Attend by features: 4 L M (D + 1) operations for M features, and no length x length matrix.

    Args:
        phi_q: Features of the queries, (..., length, n_features).
        phi_k: Features of the keys, (..., length, n_features).
        v: Values (..., length, dim_v).
        mask: True for the keys that count, (..., length) bool; None if all count.
        causal: Whether a query sees only the keys up to its own position.
        chunk: Positions in one chunk of the causal prefix sums.
        positive: Whether phi(q) . phi(k) cannot be negative. If it can, the normalisers are checked.

    Returns:
        The weighted means of the values, (..., length, dim_v).

    Raises:
        ValueError: `positive` is False and a normaliser is not above 0, or causal attention has different numbers of
            queries and keys.
    """
    values = _append_ones(v, mask)
    sums = causal_sums(phi_q, phi_k, values, chunk) if causal else phi_q @ (phi_k.mT @ values)
    return _normalise(sums, positive)


def _append_ones(v: Tensor, mask: Tensor | None) -> Tensor:
    """Append a column of ones to v, so that the same product also gives the normaliser; zero the masked keys."""
    values = F.pad(v, (0, 1), value=1.0)
    return values if mask is None else values * mask[..., None]


def _normalise(sums: Tensor, positive: bool) -> Tensor:
    """Divide the weighted sums of the values by the last column, the sums of the weights."""
    numerator = sums[..., :-1]
    normaliser = sums[..., -1:]
    if not positive:
        check_normaliser(normaliser)
    return numerator / normaliser.masked_fill(normaliser == 0, 1)  # 0 for a query that sees no key


def causal_sums(phi_q: Tensor, phi_k: Tensor, v: Tensor, chunk: int) -> Tensor:
    """Sum (phi(q_i) . phi(k_j)) v_j over j <= i.

    Earlier chunks enter through their summed states, the positions of the same chunk pair by pair. Memory is linear in
    the length L: L / chunk states of (n_features, dim_v) and L / chunk blocks of (chunk, chunk).

    Args:
        phi_q: Features of the queries, (..., length, n_features).
        phi_k: Features of the keys, (..., length, n_features).
        v: Values (..., length, dim_v).
        chunk: Positions in one chunk.

    Returns:
        The sums (..., length, dim_v).

    Raises:
        ValueError: The numbers of queries and keys differ.
    """
    length = phi_q.shape[-2]
    if length != phi_k.shape[-2]:
        raise ValueError(f"causal attention needs as many queries as keys, not {length} and {phi_k.shape[-2]}")
    chunk = min(chunk, length)
    phi_q, phi_k, v = (_cut_into_chunks(x, chunk) for x in (phi_q, phi_k, v))  # (..., n_chunks, chunk, features)
    states = (phi_k.mT @ v).cumsum(dim=-3)
    earlier = F.pad(states[..., :-1, :, :], (0, 0, 0, 0, 1, 0))
    inside = (phi_q @ phi_k.mT).tril() @ v
    return (inside + phi_q @ earlier).flatten(-3, -2)[..., :length, :]


def _cut_into_chunks(x: Tensor, chunk: int) -> Tensor:
    """Cut x (..., length, features) into (..., n_chunks, chunk, features); zeros fill the last chunk."""
    n_chunks = -(-x.shape[-2] // chunk)
    return F.pad(x, (0, 0, 0, n_chunks * chunk - x.shape[-2])).unflatten(-2, (n_chunks, chunk))


def check_normaliser(normaliser: Tensor) -> None:
    """Refuse weights of a query whose sum is not above 0: their mean has no meaning.

    Args:
        normaliser: Each query's sum of weights, (..., length, 1).

    Raises:
        ValueError: A sum is 0 or negative.
    """
    wrong = normaliser <= 0
    if bool(wrong.any()):
        raise ValueError(
            f"{int(wrong.sum())} of {normaliser.numel()} queries have a normaliser that is not positive (smallest "
            f"{float(normaliser.min()):.3g}): a series with an even number of terms falls below 0 for small q . k; "
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
    """Attend by the first `terms` terms of the series of exp(q . k); exact for that similarity.

    Args:
        q: Queries (..., length, dim).
        k: Keys (..., length, dim).
        v: Values (..., length, dim_v).
        mask: True for the keys that count, (..., length) bool; None if all count.
        terms: Terms of the series.
        basis: Which features compute the series; see `mclaurin_features`.
        causal: Whether a query sees only the keys up to its own position.
        chunk: Positions in one chunk of the causal prefix sums.

    Returns:
        The weighted means of the values, (..., length, dim_v).

    Raises:
        ValueError: An even number of terms gives a query a normaliser that is not positive.
    """
    values = _append_ones(v, mask)
    features = partial(mclaurin_features, terms=terms, basis=basis)
    sums = causal_sums(features(q), features(k), values, chunk) if causal else streamed_sums(features, q, k, values)
    return _normalise(sums, positive=terms % 2 == 1)


def streamed_sums(features: Callable[[Tensor], Tensor], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute phi(q) (phi(k)^T v) from the features of `STREAM` positions at a time, so that they stay in the cache.

    Args:
        features: The map phi: (..., length, dim) -> (..., length, n_features).
        q: Queries (..., length, dim).
        k: Keys (..., length, dim).
        v: Values (..., length, dim_v).

    Returns:
        The sums (..., length, dim_v).
    """
    parts = zip(k.split(STREAM, dim=-2), v.split(STREAM, dim=-2), strict=True)
    state = sum(features(keys).mT @ values for keys, values in parts)
    return torch.cat([features(queries) @ state for queries in q.split(STREAM, dim=-2)], dim=-2)


def elu_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, causal: bool = False, chunk: int = 64
) -> Tensor:
    """Attend by the features elu + 1, a similarity of its own that does not approximate exp(q . k).

    Args:
        q: Queries (..., length, dim).
        k: Keys (..., length, dim).
        v: Values (..., length, dim_v).
        mask: True for the keys that count, (..., length) bool; None if all count.
        causal: Whether a query sees only the keys up to its own position.
        chunk: Positions in one chunk of the causal prefix sums.

    Returns:
        The weighted means of the values, (..., length, dim_v).
    """
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
    """Attend by positive random features (Performer).

    Args:
        q: Queries (..., length, dim).
        k: Keys (..., length, dim).
        v: Values (..., length, dim_v).
        mask: True for the keys that count, (..., length) bool; None if all count.
        directions: The directions of the features, (n_features, dim).
        causal: Whether a query sees only the keys up to its own position.
        chunk: Positions in one chunk of the causal prefix sums.

    Returns:
        The weighted means of the values, (..., length, dim_v).
    """
    phi_q = positive_random_features(q, directions, shift=(-1,))
    phi_k = positive_random_features(k, directions, shift=(-2, -1))
    return linear_attention(phi_q, phi_k, v, mask, causal=causal, chunk=chunk)


def series_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, terms: int = 3, causal: bool = False
) -> Tensor:
    """Compute `mclaurin_attention` from the length x length matrix of truncated exponentials, as its reference.

    The signs of the normalisers are not checked.

    Args:
        q: Queries (..., length, dim).
        k: Keys (..., length, dim).
        v: Values (..., length, dim_v).
        mask: True for the keys that count, (..., length) bool; None if all count.
        terms: Terms of the series.
        causal: Whether a query sees only the keys up to its own position.

    Returns:
        The weighted means of the values, (..., length, dim_v).
    """
    weights = truncated_exponential(q @ k.mT, terms)
    if mask is not None:
        weights = weights * mask[..., None, :]
    if causal:
        weights = weights.tril()
    normaliser = weights.sum(dim=-1, keepdim=True)
    return weights @ v / normaliser.masked_fill(normaliser == 0, 1)
