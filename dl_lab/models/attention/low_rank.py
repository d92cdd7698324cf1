"""Low-rank attention: softmax over r learned mixtures of the keys (Linformer, Wang et al. 2020, eq. 7)."""

from __future__ import annotations

import torch
from torch import Tensor


def low_rank_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, project_k: Tensor, project_v: Tensor
) -> Tensor:
    """Compute softmax(q (E k)^T) (F v) with E = project_k and F = project_v: 8 L rank D operations.

    Args:
        q: Queries (..., length, dim).
        k: Keys (..., length, dim).
        v: Values (..., length, dim_v).
        mask: True for the keys that count, (..., length) bool; the mixtures leave the other keys out.
        project_k: The mixtures of the keys, (rank, at least length).
        project_v: The mixtures of the values, (rank, at least length).

    Returns:
        The weighted means of the values, (..., length, dim_v).

    Raises:
        ValueError: There are more keys than columns of `project_k`.
    """
    length = k.shape[-2]
    if length > project_k.shape[-1]:
        raise ValueError(f"{length} keys, but the projections were made for at most {project_k.shape[-1]}")
    if mask is not None:
        k = k * mask[..., None]
        v = v * mask[..., None]
    mixed_k = project_k[:, :length] @ k  # (..., rank, dim)
    mixed_v = project_v[:, :length] @ v
    return torch.softmax(q @ mixed_k.mT, dim=-1) @ mixed_v
