"""A small Transformer encoder over a window, with any attention mechanism; a linear forecast from its last position.

Sources: Vaswani et al. 2017; layer norm first as in Xiong et al. 2020.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dl_lab.models.attention.mechanisms import MechanismFactory
from dl_lab.models.attention.multi_head import MultiHeadAttention
from dl_lab.models.text_transformer import EncoderBlock


class TransformerForecaster(nn.Module):
    """Learned positions, pre-norm layers, a linear layer: (batch, length, features) -> (batch, horizon, features).

    Args:
        n_features: Features of a step.
        window: Longest window, in steps.
        attention: Builds the attention mechanism of a layer.
        horizon: Steps to forecast.
        dim: Width of the layers.
        heads: Heads of a layer, a divisor of `dim`.
        layers: Number of layers.
        dropout: Probability inside the layers.
    """

    def __init__(
        self,
        n_features: int,
        window: int,
        attention: MechanismFactory,
        horizon: int = 1,
        dim: int = 64,
        heads: int = 4,
        layers: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.horizon = horizon
        self.embed = nn.Linear(n_features, dim)
        self.position = nn.Parameter(torch.randn(window, dim) * 0.02)
        self.blocks = nn.ModuleList(
            EncoderBlock(MultiHeadAttention(dim, heads, attention, window), dim, 4 * dim, dropout)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, horizon * n_features)

    def forward(self, x: Tensor) -> Tensor:
        """Forecast from windows x (batch, length, features): (batch, horizon, features)."""
        hidden = self.embed(x) + self.position[-x.shape[1] :]
        for block in self.blocks:
            hidden = block(hidden)
        return self.head(self.norm(hidden[:, -1])).unflatten(1, (self.horizon, -1))
