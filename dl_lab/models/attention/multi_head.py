"""Multi-head self-attention around any mechanism (Vaswani et al. 2017, section 3.2.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dl_lab.models.attention.mechanisms import MechanismFactory


class MultiHeadAttention(nn.Module):
    """Self-attention of several heads: (batch, length, dim) -> (batch, length, dim).

    q and k are each divided by head_dim^(1/4), so that their products carry the usual 1 / sqrt(head_dim).

    Args:
        dim: Width of the input and the output.
        n_heads: Number of heads, a divisor of `dim`.
        attention: Builds the mechanism of each head.
        length: Longest sequence, in positions.
        causal: Whether a position sees only itself and those before it.

    Raises:
        ValueError: `dim` is not a multiple of `n_heads`, or the mechanism refuses its arguments.
    """

    def __init__(self, dim: int, n_heads: int, attention: MechanismFactory, length: int, causal: bool = False) -> None:
        super().__init__()
        if dim % n_heads:
            raise ValueError(f"dim {dim} is not a multiple of n_heads {n_heads}")
        head_dim = dim // n_heads
        self.n_heads = n_heads
        self.scale = head_dim**-0.25
        self.attention = attention(head_dim=head_dim, length=length, causal=causal)
        self.project_in = nn.Linear(dim, 3 * dim)
        self.project_out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map x (batch, length, dim) and a mask (batch, length) bool, True for a key that counts, to x's shape."""
        q, k, v = self._project(x)
        z = self.attention(q, k, v, None if mask is None else mask[:, None, :])
        return self.project_out(z.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return how much of each value reaches each query: (batch, heads, length, length).

        Every mechanism is linear in the values. So its weights are its outputs for unit values, one per position.
        """
        q, k, _ = self._project(x)
        units = torch.eye(x.shape[1], device=x.device, dtype=x.dtype).expand(*q.shape[:-1], -1)
        return self.attention(q, k, units, None if mask is None else mask[:, None, :])

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project x to the scaled queries, the scaled keys and the values, (batch, heads, length, head_dim) each."""
        q, k, v = self.project_in(x).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        return q * self.scale, k * self.scale, v
