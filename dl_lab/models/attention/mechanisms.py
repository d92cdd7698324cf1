"""The mechanisms as modules that a config chooses, one for each head size, length and causality.

Each is built as Mechanism(head_dim, length, causal, ...) and called as mechanism(q, k, v, mask); combinations that
cannot work are refused while building. `flops` is the formula of its matrix products for one head and one sequence.
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
    """What a model takes: how to build the mechanism of one layer."""

    def __call__(self, head_dim: int, length: int, causal: bool) -> nn.Module: ...


class Softmax(nn.Module):
    """Exact attention written out: all length x length weights are computed and kept."""

    def __init__(self, head_dim: int, length: int, causal: bool = False) -> None:
        super().__init__()
        self.head_dim, self.causal = head_dim, causal

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return softmax_attention(q, k, v, mask, causal=self.causal)

    def flops(self, length: int) -> int:
        return 4 * length**2 * self.head_dim


class Fused(nn.Module):
    """Exact attention by torch's scaled_dot_product_attention."""

    def __init__(self, head_dim: int, length: int, causal: bool = False) -> None:
        super().__init__()
        self.head_dim, self.causal = head_dim, causal

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return fused_attention(q, k, v, mask, causal=self.causal)

    def flops(self, length: int) -> int:
        return 4 * length**2 * self.head_dim


class McLaurin(nn.Module):
    """Linear attention by the first `terms` terms of the exponential's series.

    Raises ValueError for an even number of terms: such a series goes below 0, and the normaliser with it.
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
                f"terms {terms} is even: the series goes below 0 for small q . k, so the weights may sum to 0; "
                "take an odd number"
            )
        _at_least_one("terms", terms)
        _at_least_one("chunk", chunk)
        self.head_dim, self.causal, self.terms, self.chunk = head_dim, causal, terms, chunk
        self.basis: Basis = basis

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return mclaurin_attention(
            q, k, v, mask, terms=self.terms, basis=self.basis, causal=self.causal, chunk=self.chunk
        )

    def flops(self, length: int) -> int:
        n_features = n_mclaurin_features(self.head_dim, self.terms, self.basis)
        return linear_flops(length, n_features, self.head_dim, self.causal, self.chunk)


class Elu(nn.Module):
    """Linear attention of elu + 1 features."""

    def __init__(self, head_dim: int, length: int, causal: bool = False, *, chunk: int = 64) -> None:
        super().__init__()
        _at_least_one("chunk", chunk)
        self.head_dim, self.causal, self.chunk = head_dim, causal, chunk

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return elu_attention(q, k, v, mask, causal=self.causal, chunk=self.chunk)

    def flops(self, length: int) -> int:
        return linear_flops(length, self.head_dim, self.head_dim, self.causal, self.chunk)


class RandomFeatures(nn.Module):
    """Linear attention of positive orthogonal random features (Performer), drawn once and kept."""

    directions: Tensor

    def __init__(
        self,
        head_dim: int,
        length: int,
        causal: bool = False,
        *,
        n_features: int = 128,
        chunk: int = 64,
        seed: int | None = None,
    ) -> None:
        """seed: of the directions alone; None: from torch's own stream, as weights are."""
        super().__init__()
        _at_least_one("n_features", n_features)
        _at_least_one("chunk", chunk)
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        self.register_buffer("directions", orthogonal_directions(n_features, head_dim, generator))
        self.head_dim, self.causal, self.chunk = head_dim, causal, chunk

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        directions = self.directions
        return random_feature_attention(q, k, v, mask, directions=directions, causal=self.causal, chunk=self.chunk)

    def flops(self, length: int) -> int:
        n_features = len(self.directions)
        projecting = 4 * length * self.head_dim * n_features
        return projecting + linear_flops(length, n_features, self.head_dim, self.causal, self.chunk)


class Window(nn.Module):
    """Exact softmax over the keys within `window` positions."""

    def __init__(self, head_dim: int, length: int, causal: bool = False, *, window: int = 64) -> None:
        super().__init__()
        _at_least_one("window", window)
        self.head_dim, self.causal, self.window = head_dim, causal, window

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return window_attention(q, k, v, mask, window=self.window, causal=self.causal)

    def flops(self, length: int) -> int:
        return 4 * _padded(length, self.window) * (2 if self.causal else 3) * self.window * self.head_dim


class Strided(nn.Module):
    """Exact softmax over the nearest keys and every stride-th one; stride null: the square root of the length."""

    def __init__(self, head_dim: int, length: int, causal: bool = False, *, stride: int | None = None) -> None:
        super().__init__()
        if stride is not None:
            _at_least_one("stride", stride)
        self.head_dim, self.causal, self.stride = head_dim, causal, stride

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return strided_attention(q, k, v, mask, stride=self.stride, causal=self.causal)

    def flops(self, length: int) -> int:
        stride = self.stride or max(1, round(math.sqrt(length)))
        padded = _padded(length, stride)
        return 4 * padded * ((2 if self.causal else 3) * stride + padded // stride) * self.head_dim


class LowRank(nn.Module):
    """Softmax over `rank` learned mixtures of the keys (Linformer), shared by the heads.

    Raises ValueError where it shall be causal (a mixture holds later keys too) and for a rank above the length.
    """

    def __init__(self, head_dim: int, length: int, causal: bool = False, *, rank: int = 32) -> None:
        super().__init__()
        if causal:
            raise ValueError("low-rank attention cannot be causal: each of its mixtures holds later keys too")
        _at_least_one("rank", rank)
        if rank > length:
            raise ValueError(f"rank {rank} is above the length {length}: nothing would be saved")
        self.head_dim, self.rank = head_dim, rank
        self.project_k = nn.Parameter(torch.randn(rank, length) / math.sqrt(length))
        self.project_v = nn.Parameter(torch.randn(rank, length) / math.sqrt(length))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        return low_rank_attention(q, k, v, mask, project_k=self.project_k, project_v=self.project_v)

    def flops(self, length: int) -> int:
        return 8 * length * self.rank * self.head_dim


def linear_flops(length: int, n_features: int, dim: int, causal: bool, chunk: int) -> int:
    """Matrix products of linear attention: 4 L M (D + 1); causal: besides, chunk x chunk blocks, L padded to chunks."""
    if not causal:
        return 4 * length * n_features * (dim + 1)
    chunk = min(chunk, length)
    padded = _padded(length, chunk)
    return 4 * padded * n_features * (dim + 1) + 2 * padded * chunk * (n_features + dim + 1)


def _padded(length: int, block: int) -> int:
    return -(-length // block) * block


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} {value} is not at least 1")
