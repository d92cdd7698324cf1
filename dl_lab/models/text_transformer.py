"""A small Transformer encoder that classifies texts, with any attention mechanism (pre-norm, mean over the tokens)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dl_lab.models.attention.mechanisms import MechanismFactory
from dl_lab.models.attention.multi_head import MultiHeadAttention


class EncoderBlock(nn.Module):
    """x + attention(norm(x)), then x + feedforward(norm(x)).

    Args:
        attention: The self-attention.
        dim: Width of the input and the output.
        hidden: Width of the feed-forward network's hidden layer.
        dropout: Probability after the attention, the hidden layer and the feed-forward network.
    """

    def __init__(self, attention: MultiHeadAttention, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = attention
        self.feedforward = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Map x (batch, length, dim) and mask (batch, length) bool to (batch, length, dim)."""
        x = x + self.dropout(self.attention(self.attention_norm(x), mask))
        return x + self.dropout(self.feedforward(x))


class TextTransformer(nn.Module):
    """Word vectors and learned positions, pre-norm layers, the mean over the tokens and a linear layer.

    Args:
        vocabulary_size: Number of words.
        length: Longest text, in tokens.
        n_outputs: Number of logits.
        attention: Builds the attention mechanism of a layer.
        dim: Width of a word vector and every layer.
        n_heads: Heads of a layer, a divisor of `dim`.
        n_layers: Number of layers.
        hidden: Width of a feed-forward network's hidden layer.
        dropout: Probability after the embedding and inside the layers.
        causal: Whether a token sees only itself and those before it.
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
        """Classify texts.

        Args:
            tokens: Word numbers (batch, length) int64.
            mask: True for a token, False for padding, (batch, length) bool.

        Returns:
            Logits (batch, n_outputs).
        """
        x = self.embed(tokens, mask)
        for block in self.blocks:
            x = block(x, mask)
        counted = self.norm(x) * mask[..., None]
        return self.head(counted.sum(dim=1) / mask.sum(dim=1, keepdim=True).clamp(min=1))

    def embed(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Add word and position: (batch, length, dim).

        Positions count tokens alone, so that padding on either side changes nothing.
        """
        return self.dropout(self.words(tokens) + self.positions[(mask.cumsum(dim=1) - 1).clamp(min=0)])

    def attention_maps(self, tokens: Tensor, mask: Tensor) -> list[Tensor]:
        """Return each layer's attention weights (batch, heads, length, length), a row for each query."""
        maps = []
        x = self.embed(tokens, mask)
        for block in self.blocks:
            assert isinstance(block, EncoderBlock)  # a ModuleList does not know the type of its modules
            maps.append(block.attention.weights(block.attention_norm(x), mask))
            x = block(x, mask)
        return maps
