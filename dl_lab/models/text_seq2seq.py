"""The Padova homework's text classifier: an encoder-decoder Transformer whose decoder sees a single token."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TextSeq2Seq(nn.Module):
    """Tokens (batch, length) int64, mask (batch, length) bool, prompt (batch,) int64 -> (batch, n_outputs) logits.

    torch's nn.Transformer without positions, as in the source (T4, homework 4). The decoder reads one token, the
    prompt: `start` where there is none (a constant: nothing leaks). skip_padding: whether attention leaves the padding
    out, which the source does not. Raises ValueError where dim is not a multiple of n_heads.
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
        start: int = 1,
        skip_padding: bool = False,
    ) -> None:
        super().__init__()
        if dim % n_heads:
            raise ValueError(f"dim {dim} is not a multiple of n_heads {n_heads}")
        self.start, self.skip_padding = start, skip_padding
        self.words = nn.Embedding(vocabulary_size, dim)
        self.transformer = nn.Transformer(
            dim, n_heads, n_encoder_layers, n_decoder_layers, hidden, dropout, batch_first=True
        )
        self.head = nn.Linear(dim, n_outputs)

    def forward(self, tokens: Tensor, mask: Tensor, prompt: Tensor | None = None) -> Tensor:
        if prompt is None:
            prompt = torch.full_like(tokens[:, 0], self.start)
        padding = ~mask if self.skip_padding else None
        decoded = self.transformer(
            self.words(tokens),
            self.words(prompt[:, None]),
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
        )
        return self.head(decoded[:, 0])
