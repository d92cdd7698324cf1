"""A small Transformer encoder that classifies texts, with any attention mechanism (pre-norm, mean over the tokens)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dl_lab.models.attention.mechanisms import MechanismFactory
from dl_lab.models.attention.multi_head import MultiHeadAttention


class EncoderBlock(nn.Module):
    """x + attention(norm(x)), then x + feedforward(norm(x)): (batch, length, dim) -> the same."""

    def __init__(self, attention: MultiHeadAttention, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(dim), attention
        self.feedforward = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), mask))
        return x + self.dropout(self.feedforward(x))


class TextTransformer(nn.Module):
    """Tokens (batch, length) int64 and mask (batch, length) bool, True for a token -> (batch, n_outputs) logits.

    length: the longest text, in tokens. causal: each token sees only those before it.
    """

    def __init__(
        self,
        vocabulary_size: int,
        length: int,
        n_outputs: int,
        attention: MechanismFactory,
        dim: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        hidden: int = 128,
        dropout: float = 0.1,
        causal: bool = False,
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary_size, dim)
        self.positions = nn.Parameter(torch.randn(length, dim) / dim**0.5)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            EncoderBlock(MultiHeadAttention(dim, n_heads, attention, length, causal), dim, hidden, dropout)
            for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, n_outputs)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        x = self.embedded(tokens, mask)
        for block in self.blocks:
            x = block(x, mask)
        counted = self.norm(x) * mask[..., None]
        return self.head(counted.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1))

    def embedded(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Word plus position; positions count tokens alone, so that padding on either side changes nothing."""
        return self.dropout(self.words(tokens) + self.positions[(mask.cumsum(dim=1) - 1).clamp(min=0)])

    def attention_maps(self, tokens: Tensor, mask: Tensor) -> list[Tensor]:
        """Each layer's attention weights (batch, heads, length, length), a row for each query."""
        x, maps = self.embedded(tokens, mask), []
        for block in self.blocks:
            maps.append(block.attention.weights(block.attention_norm(x), mask))  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
            x = block(x, mask)
        return maps
