"""A small Transformer encoder over a window (Vaswani et al. 2017), and a linear forecast from its last
position.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TransformerForecaster(nn.Module):
    """(batch, length, features) -> (batch, horizon, features); length at most `window`.

    Learned positions, layer norm first (Xiong et al. 2020).
    """

    def __init__(
        self,
        n_features: int,
        window: int,
        horizon: int = 1,
        dim: int = 64,
        heads: int = 4,
        layers: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim {dim} is not a multiple of heads {heads}")
        self.horizon = horizon
        self.embed = nn.Linear(n_features, dim)
        self.position = nn.Parameter(torch.randn(window, dim) * 0.02)
        layer = nn.TransformerEncoderLayer(dim, heads, 4 * dim, dropout, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(dim), enable_nested_tensor=False)
        self.head = nn.Linear(dim, horizon * n_features)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.encoder(self.embed(x) + self.position[-x.shape[1] :])
        return self.head(hidden[:, -1]).unflatten(1, (self.horizon, -1))
