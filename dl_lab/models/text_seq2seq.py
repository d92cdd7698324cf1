"""The Padova homework's text classifier: an encoder-decoder Transformer whose decoder sees a single token."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TextSeq2Seq(nn.Module):
    """torch's nn.Transformer without positions, as in the source (T4, homework 4).

    The decoder reads one token, the prompt, which has an embedding of its own with a row for each label.

    Args:
        vocabulary_size: Number of words.
        n_outputs: Number of logits.
        dim: Width of the embeddings and every layer.
        n_heads: Heads of a layer, a divisor of `dim`.
        n_encoder_layers: Number of encoder layers.
        n_decoder_layers: Number of decoder layers.
        hidden: Width of a feed-forward network's hidden layer.
        dropout: Probability inside the layers.
        n_prompts: Rows of the prompt's embedding.
        start: The prompt if none is given: a constant, so that no label reaches the model.
        skip_padding: Whether attention leaves the padding out. The source does not.

    Raises:
        ValueError: `dim` is not a multiple of `n_heads`.
    """

    def __init__(
        self,
        vocabulary_size: int,
        n_outputs: int,
        dim: int = 32,
        n_heads: int = 4,
        n_encoder_layers: int = 1,
        n_decoder_layers: int = 1,
        hidden: int = 128,
        dropout: float = 0.1,
        n_prompts: int = 2,
        start: int = 0,
        skip_padding: bool = False,
    ) -> None:
        super().__init__()
        if dim % n_heads:
            raise ValueError(f"dim {dim} is not a multiple of n_heads {n_heads}")
        self.start = start
        self.skip_padding = skip_padding
        self.words = nn.Embedding(vocabulary_size, dim)
        self.prompts = nn.Embedding(n_prompts, dim)
        self.transformer = nn.Transformer(
            dim, n_heads, n_encoder_layers, n_decoder_layers, hidden, dropout, batch_first=True
        )
        self.head = nn.Linear(dim, n_outputs)

    def forward(self, tokens: Tensor, mask: Tensor, prompt: Tensor | None = None) -> Tensor:
        """Classify texts.

        Args:
            tokens: Word numbers (batch, length) int64.
            mask: True for a token, False for padding, (batch, length) bool.
            prompt: The token that the decoder reads, (batch,) int64; None takes `start`.

        Returns:
            Logits (batch, n_outputs).
        """
        if prompt is None:
            prompt = torch.full_like(tokens[:, 0], self.start)
        padding = ~mask if self.skip_padding else None
        decoded = self.transformer(
            self.words(tokens),
            self.prompts(prompt[:, None]),
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
        )
        return self.head(decoded[:, 0])
