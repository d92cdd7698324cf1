"""Low-rank attention: softmax over r learned mixtures of the keys (Linformer, Wang et al. 2020, eq. 7)."""

from __future__ import annotations

import torch
from torch import Tensor


def low_rank_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, project_k: Tensor, project_v: Tensor
) -> Tensor:
    """softmax(q (E k)^T) (F v) with E = project_k and F = project_v, both (rank, at least length).

    8 L rank D operations. Keys that do not count are left out of the mixtures. Raises ValueError for more keys than
    E and F have columns.
    """
    length = k.shape[-2]
    if length > project_k.shape[-1]:
        raise ValueError(f"{length} keys, but the projections were made for at most {project_k.shape[-1]}")
    if mask is not None:
        k, v = k * mask[..., None], v * mask[..., None]
    mixed_k, mixed_v = project_k[:, :length] @ k, project_v[:, :length] @ v  # (..., rank, dim)
    return torch.softmax(q @ mixed_k.mT, dim=-1) @ mixed_v
