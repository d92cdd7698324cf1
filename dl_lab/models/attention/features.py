"""Feature maps phi with phi(q) . phi(k) ~ exp(q . k): they make attention linear in the length.

Sources: the truncated McLaurin series (IST Deep Learning 2023/24, homework 2, question 1); elu + 1 (Katharopoulos et
al. 2020, eq. 7); positive orthogonal random features (Choromanski et al. 2021, lemma 1 and section 2.4).
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import combinations_with_replacement
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Basis = Literal["compact", "ordered"]


def n_mclaurin_features(dim: int, terms: int, basis: Basis = "compact") -> int:
    """Count the features of `mclaurin_features`.

    Args:
        dim: Numbers in a query or a key.
        terms: Terms of the series.
        basis: "compact" has C(dim + terms - 1, terms - 1) features, one for each monomial. "ordered" has the sum of
            dim^n over n < terms.
    """
    if basis == "compact":
        return math.comb(dim + terms - 1, terms - 1)
    return sum(dim**n for n in range(terms))


def mclaurin_features(x: Tensor, terms: int = 3, basis: Basis = "compact") -> Tensor:
    """Map x to features with phi(q) . phi(k) = sum over n < terms of (q . k)^n / n!, exactly.

    Args:
        x: Queries or keys (..., dim).
        terms: Terms of the series, at least 1.
        basis: "compact" has x^a / sqrt(a!) for every multi-index a of a degree below `terms`. "ordered" has every
            ordered tuple of coordinates, x (x) ... (x) x / sqrt(n!): the same product from more features.

    Returns:
        The features (..., n_features), see `n_mclaurin_features`.

    Raises:
        ValueError: `terms` is below 1.
    """
    if terms < 1:
        raise ValueError(f"terms {terms} is not at least 1")
    rows = x.reshape(-1, x.shape[-1])  # torch selects columns of a matrix four times as fast as of more axes
    powers = [torch.ones_like(rows[:, :1]), rows][:terms]  # degrees 0 and 1
    raise_degree = _multiply_monomials if basis == "compact" else _multiply_tuples
    for degree in range(2, terms):
        powers.append(raise_degree(powers[-1], rows, degree))
    return torch.cat(powers, dim=-1).reshape(*x.shape[:-1], -1)


def _multiply_monomials(lower: Tensor, x: Tensor, degree: int) -> Tensor:
    """Return x^a / sqrt(a!) of one degree, each from the monomial of the degree below that lacks a's first coordinate.

    Args:
        lower: The monomials of the degree below, (n, n_monomials).
        x: Queries or keys (n, dim).
        degree: The degree of the monomials to return.
    """
    parent, coordinate, factor = (table.to(x.device) for table in _list_monomials(x.shape[-1], degree))
    return lower.index_select(-1, parent) * (x.index_select(-1, coordinate) * factor.to(x.dtype))


@lru_cache(maxsize=64)
def _list_monomials(dim: int, degree: int) -> tuple[Tensor, Tensor, Tensor]:
    """List for each monomial i1 <= ... <= in of a degree how it comes from one of the degree below.

    Returns:
        The position of (i2 ... in) in the degree below; i1; and 1 / sqrt(a_i1), where a_i1 counts i1 in the monomial.
    """
    below = {monomial: i for i, monomial in enumerate(combinations_with_replacement(range(dim), degree - 1))}
    monomials = list(combinations_with_replacement(range(dim), degree))
    return (
        torch.tensor([below[monomial[1:]] for monomial in monomials]),
        torch.tensor([monomial[0] for monomial in monomials]),
        torch.tensor([monomial.count(monomial[0]) ** -0.5 for monomial in monomials], dtype=torch.float64),
    )


def _multiply_tuples(lower: Tensor, x: Tensor, degree: int) -> Tensor:
    """Return the products of one degree in the ordered basis from those of the degree below."""
    return (lower[..., :, None] * x[..., None, :]).flatten(-2) / math.sqrt(degree)


def truncated_exponential(t: Tensor, terms: int) -> Tensor:
    """Sum t^n / n! over n < terms.

    With an odd number of terms the sum is above 0 for every t; with an even number it is negative for small t.
    """
    total = torch.ones_like(t)
    for n in range(terms - 1, 0, -1):
        total = 1 + total * t / n
    return total


def elu_features(x: Tensor) -> Tensor:
    """Return elu(x) + 1, which is positive: a similarity of its own, not an approximation of exp(q . k)."""
    return F.elu(x) + 1


def orthogonal_directions(n_features: int, dim: int, generator: torch.Generator | None = None) -> Tensor:
    """Draw rows that are orthogonal in blocks of `dim`, each with the length of a standard normal vector.

    Args:
        n_features: Rows to draw.
        dim: Numbers in a row.
        generator: Where the numbers come from; None takes torch's own.

    Returns:
        The directions (n_features, dim).
    """
    n_blocks = -(-n_features // dim)
    q, r = torch.linalg.qr(torch.randn(n_blocks, dim, dim, generator=generator))
    uniform = q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None, :]  # without the signs Q is not uniformly distributed
    lengths = torch.randn(n_features, dim, generator=generator).norm(dim=1, keepdim=True)
    return uniform.mT.flatten(0, 1)[:n_features] * lengths


def positive_random_features(x: Tensor, directions: Tensor, shift: tuple[int, ...] = ()) -> Tensor:
    """Return exp(w . x - |x|^2 / 2) / sqrt(m) for each of m directions w: an unbiased, positive estimate of exp(q . k).

    Args:
        x: Queries or keys (..., length, dim).
        directions: The directions w, (m, dim).
        shift: The axes over which the largest exponent is subtracted first, so that nothing overflows. One factor for
            each query, (-1,), or one for all keys, (-2, -1), cancels in the normalised attention.

    Returns:
        The features (..., length, m).
    """
    exponents = x @ directions.T - x.square().sum(dim=-1, keepdim=True) / 2
    if shift:
        exponents = exponents - exponents.detach().amax(dim=shift, keepdim=True)
    return exponents.exp() / math.sqrt(len(directions))
