"""Attention linear in the length: phi(q) (phi(k)^T v), the product reordered (Katharopoulos et al. 2020, eq. 5-9)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from dl_lab.models.attention.features import (
    Basis,
    elu_features,
    mclaurin_features,
    positive_random_features,
    truncated_exponential,
)


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
    if mask is not None:
        phi_k = phi_k * mask[..., None]
    sums = causal_sums if causal else full_sums
    numerator, normaliser = sums(phi_q, phi_k, _with_ones(v), chunk).split([v.shape[-1], 1], dim=-1)
    if not positive:
        check_normaliser(normaliser)
    return numerator / normaliser.masked_fill(normaliser == 0, 1)  # 0 where no key is seen


def _with_ones(v: Tensor) -> Tensor:
    """v and a column of ones: the normaliser comes out of the same product."""
    return F.pad(v, (0, 1), value=1.0)


def full_sums(phi_q: Tensor, phi_k: Tensor, v: Tensor, chunk: int = 0) -> Tensor:
    """sum over all j of (phi(q_i) . phi(k_j)) v_j, by way of one (n_features, dim_v) matrix."""
    return phi_q @ (phi_k.mT @ v)


def causal_sums(phi_q: Tensor, phi_k: Tensor, v: Tensor, chunk: int) -> Tensor:
    """The same over j <= i: what lies in earlier chunks through their summed states, the rest chunk by chunk.

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
    phi_q, phi_k = (mclaurin_features(x, terms, basis) for x in (q, k))
    return linear_attention(phi_q, phi_k, v, mask, causal=causal, chunk=chunk, positive=terms % 2 == 1)


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
