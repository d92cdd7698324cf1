"""Multi-head self-attention around any mechanism (Vaswani et al. 2017, section 3.2.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dl_lab.models.attention.mechanisms import MechanismFactory


class MultiHeadAttention(nn.Module):
    """x (batch, length, dim), mask (batch, length) bool or None -> (batch, length, dim).

    q and k are each divided by head_dim^(1/4), so that their products carry the usual 1 / sqrt(head_dim).
    length: the longest sequence. Raises ValueError where dim is not a multiple of n_heads, and what the mechanism
    refuses.
    """

    def __init__(self, dim: int, n_heads: int, attention: MechanismFactory, length: int, causal: bool = False) -> None:
        super().__init__()
        if dim % n_heads:
            raise ValueError(f"dim {dim} is not a multiple of n_heads {n_heads}")
        self.n_heads, self.scale = n_heads, (dim // n_heads) ** -0.25
        self.attention = attention(head_dim=dim // n_heads, length=length, causal=causal)
        self.project_in = nn.Linear(dim, 3 * dim)
        self.project_out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        q, k, v = self._heads(x)
        z = self.attention(q, k, v, None if mask is None else mask[:, None, :])
        return self.project_out(z.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(batch, heads, length, length): how much of each value reaches each query.

        Every mechanism is linear in the values, so that these are what it makes of one unit value per place.
        """
        q, k, _ = self._heads(x)
        units = torch.eye(x.shape[1], device=x.device, dtype=x.dtype).expand(*q.shape[:-1], -1)
        return self.attention(q, k, units, None if mask is None else mask[:, None, :])

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v: (batch, heads, length, head_dim) each, q and k scaled."""
        q, k, v = self.project_in(x).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        return q * self.scale, k * self.scale, v
