"""The encoder of "Attention is all you need" (Vaswani et al. 2017) as a text classifier.

Word vectors plus sinusoidal positions (section 3.5); layers of multi-head self-attention and a ReLU feed-forward
network, each added and then normalised (sections 3.1 and 3.3); the mean over the tokens; a linear layer.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dl_lab.models.attention.mechanisms import MechanismFactory
from dl_lab.models.attention.multi_head import MultiHeadAttention


def sinusoids(length: int, dim: int) -> Tensor:
    """Return sin and cos of position / 10000^(2i / dim) in turn: (length, dim)."""
    place = torch.arange(length)[:, None]
    frequency = torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000) / dim))
    angles = place * frequency  # (length, dim / 2, rounded up)
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :dim]


class PostNormBlock(nn.Module):
    """norm(x + attention(x)), then norm(x + feedforward(x)).

    Args:
        attention: The self-attention.
        dim: Width of the input and the output.
        hidden: Width of the feed-forward network's hidden layer.
        dropout: Probability after the attention, the hidden layer and the feed-forward network.
    """

    def __init__(self, attention: MultiHeadAttention, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention = attention
        self.attention_norm = nn.LayerNorm(dim)
        self.feedforward = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, dim))
        self.feedforward_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Map x (batch, length, dim) and mask (batch, length) bool to (batch, length, dim)."""
        x = self.attention_norm(x + self.dropout(self.attention(x, mask)))
        return self.feedforward_norm(x + self.dropout(self.feedforward(x)))


class PostNormTransformer(nn.Module):
    """A Transformer encoder with post-norm layers that classifies texts.

    With 102,016 words of 100 numbers, 4 layers, 2,048 hidden units and 4 classes it has 12,012,196 parameters. With
    frozen words 1,810,596 of them are trained.

    Args:
        vocabulary_size: Number of words.
        length: Longest text, in tokens.
        n_outputs: Number of logits.
        attention: Builds the attention mechanism of a layer.
        dim: Width of a word vector and of every layer.
        n_heads: Heads of a layer, a divisor of `dim`.
        n_layers: Number of layers.
        hidden: Width of a feed-forward network's hidden layer.
        dropout: Probability after the embedding and inside the layers.
        frozen_words: Whether the word vectors stay as they are.
    """

    positions: Tensor

    def __init__(
        self,
        vocabulary_size: int,
        length: int,
        n_outputs: int,
        attention: MechanismFactory,
        dim: int = 100,
        n_heads: int = 4,
        n_layers: int = 4,
        hidden: int = 2048,
        dropout: float = 0.0,
        frozen_words: bool = True,
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary_size, dim)
        self.words.weight.requires_grad_(not frozen_words)
        self.register_buffer("positions", sinusoids(length, dim), persistent=False)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            PostNormBlock(MultiHeadAttention(dim, n_heads, attention, length), dim, hidden, dropout)
            for _ in range(n_layers)
        )
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
        counted = x * mask[..., None]
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
            assert isinstance(block, PostNormBlock)  # a ModuleList does not know the type of its modules
            maps.append(block.attention.weights(x, mask))
            x = block(x, mask)
        return maps
