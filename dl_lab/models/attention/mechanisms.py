"""The mechanisms as modules that a config chooses, one for each head size, length and causality.

Each is built as Mechanism(head_dim, length, causal, ...) and called as mechanism(q, k, v, mask); see the package for
the contract. The constructor refuses combinations that cannot work. `flops` gives the operations of the matrix products
for one head and one sequence.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from dl_lab.models.attention.exact import fused_attention, softmax_attention
from dl_lab.models.attention.features import Basis, n_mclaurin_features, orthogonal_directions
from dl_lab.models.attention.linear import elu_attention, mclaurin_attention, random_feature_attention
from dl_lab.models.attention.low_rank import low_rank_attention
from dl_lab.models.attention.sparse import strided_attention, window_attention


class MechanismFactory(Protocol):
    """A model takes a factory and builds the mechanism of each layer with it."""

    def __call__(self, head_dim: int, length: int, causal: bool) -> nn.Module:
        """Build the mechanism of one layer.

        Args:
            head_dim: Width of one head.
            length: Longest sequence, in positions.
            causal: Whether a query sees only the keys up to its own position.
        """
        ...


class Softmax(nn.Module):
    """Exact attention written out: all length x length weights are computed and kept.

    Args:
        head_dim: Width of one head.
        length: Longest sequence, in positions.
        causal: Whether a query sees only the keys up to its own position.
    """

    def __init__(self, head_dim: int, length: int, causal: bool = False) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.causal = causal

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map q, k (..., length, head_dim) and v (..., length, dim_v) to (..., length, dim_v)."""
        return softmax_attention(q, k, v, mask, causal=self.causal)

    def flops(self, length: int) -> int:
        """Count the operations of one head for a sequence of `length` positions."""
        return 4 * length**2 * self.head_dim


class Fused(nn.Module):
    """Exact attention by torch's scaled_dot_product_attention.

    Args:
        head_dim: Width of one head.
        length: Longest sequence, in positions.
        causal: Whether a query sees only the keys up to its own position.
    """

    def __init__(self, head_dim: int, length: int, causal: bool = False) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.causal = causal

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map q, k (..., length, head_dim) and v (..., length, dim_v) to (..., length, dim_v)."""
        return fused_attention(q, k, v, mask, causal=self.causal)

    def flops(self, length: int) -> int:
        """Count the operations of one head for a sequence of `length` positions."""
        return 4 * length**2 * self.head_dim


class McLaurin(nn.Module):
    """Linear attention by the first terms of the series of the exponential.

    Args:
        head_dim: Width of one head.
        length: Longest sequence, in positions.
        causal: Whether a query sees only the keys up to its own position.
        terms: Terms of the series, an odd number.
        basis: Which features compute the series; see `mclaurin_features`.
        chunk: Positions in one chunk of the causal prefix sums.

    Raises:
        ValueError: `terms` is even (such a series falls below 0, and the normaliser with it), or `terms` or `chunk` is
            below 1.
    """

    def __init__(
        self,
        head_dim: int,
        length: int,
        causal: bool = False,
        *,
        terms: int = 3,
        basis: Basis = "compact",
        chunk: int = 64,
    ) -> None:
        super().__init__()
        if terms % 2 == 0:
            raise ValueError(
                f"terms {terms} is even: the series falls below 0 for small q . k, so the weights may sum to 0; "
                "take an odd number"
            )
        _check_at_least_one("terms", terms)
        _check_at_least_one("chunk", chunk)
        self.head_dim = head_dim
        self.causal = causal
        self.terms = terms
        self.chunk = chunk
        self.basis: Basis = basis

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map q, k (..., length, head_dim) and v (..., length, dim_v) to (..., length, dim_v)."""
        return mclaurin_attention(
            q, k, v, mask, terms=self.terms, basis=self.basis, causal=self.causal, chunk=self.chunk
        )

    def flops(self, length: int) -> int:
        """Count the operations of one head for a sequence of `length` positions."""
        n_features = n_mclaurin_features(self.head_dim, self.terms, self.basis)
        return linear_flops(length, n_features, self.head_dim, self.causal, self.chunk)


class Elu(nn.Module):
    """Linear attention by the features elu + 1.

    Args:
        head_dim: Width of one head.
        length: Longest sequence, in positions.
        causal: Whether a query sees only the keys up to its own position.
        chunk: Positions in one chunk of the causal prefix sums.

    Raises:
        ValueError: `chunk` is below 1.
    """

    def __init__(self, head_dim: int, length: int, causal: bool = False, *, chunk: int = 64) -> None:
        super().__init__()
        _check_at_least_one("chunk", chunk)
        self.head_dim = head_dim
        self.causal = causal
        self.chunk = chunk

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map q, k (..., length, head_dim) and v (..., length, dim_v) to (..., length, dim_v)."""
        return elu_attention(q, k, v, mask, causal=self.causal, chunk=self.chunk)

    def flops(self, length: int) -> int:
        """Count the operations of one head for a sequence of `length` positions."""
        return linear_flops(length, self.head_dim, self.head_dim, self.causal, self.chunk)


class RandomFeatures(nn.Module):
    """Linear attention by positive orthogonal random features (Performer), drawn once and kept.

    Args:
        head_dim: Width of one head.
        length: Longest sequence, in positions.
        causal: Whether a query sees only the keys up to its own position.
        n_features: Number of random features.
        chunk: Positions in one chunk of the causal prefix sums.
        seed: Seed of the directions alone; None draws them from torch's own stream, as weights are drawn.

    Raises:
        ValueError: `n_features` or `chunk` is below 1.
    """

    directions: Tensor

    def __init__(
        self,
        head_dim: int,
        length: int,
        causal: bool = False,
        *,
        n_features: int = 64,
        chunk: int = 64,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        _check_at_least_one("n_features", n_features)
        _check_at_least_one("chunk", chunk)
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        self.register_buffer("directions", orthogonal_directions(n_features, head_dim, generator))
        self.head_dim = head_dim
        self.causal = causal
        self.chunk = chunk

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map q, k (..., length, head_dim) and v (..., length, dim_v) to (..., length, dim_v)."""
        directions = self.directions
        return random_feature_attention(q, k, v, mask, directions=directions, causal=self.causal, chunk=self.chunk)

    def flops(self, length: int) -> int:
        """Count the operations of one head for a sequence of `length` positions."""
        n_features = len(self.directions)
        projections = 4 * length * self.head_dim * n_features
        return projections + linear_flops(length, n_features, self.head_dim, self.causal, self.chunk)


class Window(nn.Module):
    """Exact softmax over the keys within `window` positions.

    Args:
        head_dim: Width of one head.
        length: Longest sequence, in positions.
        causal: Whether a query sees only the keys up to its own position.
        window: The largest distance of a key, in positions.

    Raises:
        ValueError: `window` is below 1.
    """

    def __init__(self, head_dim: int, length: int, causal: bool = False, *, window: int = 32) -> None:
        super().__init__()
        _check_at_least_one("window", window)
        self.head_dim = head_dim
        self.causal = causal
        self.window = window

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map q, k (..., length, head_dim) and v (..., length, dim_v) to (..., length, dim_v)."""
        return window_attention(q, k, v, mask, window=self.window, causal=self.causal)

    def flops(self, length: int) -> int:
        """Count the operations of one head for a sequence of `length` positions."""
        blocks_seen = 2 if self.causal else 3
        return 4 * _round_up(length, self.window) * blocks_seen * self.window * self.head_dim


class Strided(nn.Module):
    """Exact softmax over the nearest keys and every stride-th key.

    Args:
        head_dim: Width of one head.
        length: Longest sequence, in positions.
        causal: Whether a query sees only the keys up to its own position.
        stride: Distance in positions; None takes the square root of the length.

    Raises:
        ValueError: `stride` is below 1.
    """

    def __init__(self, head_dim: int, length: int, causal: bool = False, *, stride: int | None = None) -> None:
        super().__init__()
        if stride is not None:
            _check_at_least_one("stride", stride)
        self.head_dim = head_dim
        self.causal = causal
        self.stride = stride

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map q, k (..., length, head_dim) and v (..., length, dim_v) to (..., length, dim_v)."""
        return strided_attention(q, k, v, mask, stride=self.stride, causal=self.causal)

    def flops(self, length: int) -> int:
        """Count the operations of one head for a sequence of `length` positions."""
        stride = self.stride or max(1, round(math.sqrt(length)))
        padded = _round_up(length, stride)
        blocks_seen = 2 if self.causal else 3
        return 4 * padded * (blocks_seen * stride + padded // stride) * self.head_dim


class LowRank(nn.Module):
    """Softmax over `rank` learned mixtures of the keys (Linformer), shared by the heads.

    Args:
        head_dim: Width of one head.
        length: Longest sequence, in positions.
        causal: Must be False: a mixture also holds later keys.
        rank: Number of mixtures, at most `length`.

    Raises:
        ValueError: `causal` is True, or `rank` is below 1 or above `length`.
    """

    def __init__(self, head_dim: int, length: int, causal: bool = False, *, rank: int = 32) -> None:
        super().__init__()
        if causal:
            raise ValueError("low-rank attention cannot be causal: each of its mixtures holds later keys too")
        _check_at_least_one("rank", rank)
        if rank > length:
            raise ValueError(f"rank {rank} is above the length {length}: nothing would be saved")
        self.head_dim = head_dim
        self.rank = rank
        self.project_k = nn.Parameter(torch.randn(rank, length) / math.sqrt(length))
        self.project_v = nn.Parameter(torch.randn(rank, length) / math.sqrt(length))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map q, k (..., length, head_dim) and v (..., length, dim_v) to (..., length, dim_v)."""
        return low_rank_attention(q, k, v, mask, project_k=self.project_k, project_v=self.project_v)

    def flops(self, length: int) -> int:
        """Count the operations of one head for a sequence of `length` positions."""
        return 8 * length * self.rank * self.head_dim


def linear_flops(length: int, n_features: int, dim: int, causal: bool, chunk: int) -> int:
    """Count the operations of linear attention's matrix products: 4 L M (D + 1).

    Causal attention also multiplies blocks of chunk x chunk, and pads the length to whole chunks.

    Args:
        length: Positions L.
        n_features: Features M.
        dim: Width D of a value.
        causal: Whether a query sees only the keys up to its own position.
        chunk: Positions in one chunk.
    """
    if not causal:
        return 4 * length * n_features * (dim + 1)
    chunk = min(chunk, length)
    padded = _round_up(length, chunk)
    return 4 * padded * n_features * (dim + 1) + 2 * padded * chunk * (n_features + dim + 1)


def _round_up(length: int, block: int) -> int:
    """Return the next multiple of `block`."""
    return -(-length // block) * block


def _check_at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} {value} is not at least 1")
