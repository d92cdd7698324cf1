"""Speech recognition: one encoder of log-mel features; a text decoder over it, or a classifier of every step (CTC)."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl_lab.models.residual_attention import Memory, ResidualAttention


class SpeechEncoder(nn.Module):
    """features (batch, frames, n_mels), n_frames (batch,) -> (batch, steps, dim) and mask (batch, steps) bool or None.

    Two convolutions of width 3, the second of stride 2 (steps = frames / 2, rounded up), fixed sinusoidal positions,
    `n_layers` pre-norm attention blocks, a last norm. mask_padding: what lies behind n_frames counts nowhere (the mask
    says so to the decoder); else every frame counts alike and the mask is None, as in the course. With 80 mels, dim
    200 and hidden 400: 812,800 parameters with two layers, 1,456,800 with four. max_frames: the longest input.
    """

    def __init__(
        self,
        n_mels: int,
        dim: int,
        n_heads: int,
        hidden: int,
        n_layers: int,
        max_frames: int,
        mask_padding: bool,
    ) -> None:
        super().__init__()
        self.max_frames, self.mask_padding = max_frames, mask_padding
        self.narrow = nn.Conv1d(n_mels, dim, kernel_size=3, padding=1)
        self.halve = nn.Conv1d(dim, dim, kernel_size=3, stride=2, padding=1)
        self.register_buffer("positions", sinusoids((max_frames + 1) // 2, dim), persistent=False)
        self.blocks = nn.ModuleList(ResidualAttention(dim, n_heads, hidden) for _ in range(n_layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, features: Tensor, n_frames: Tensor) -> tuple[Tensor, Tensor | None]:
        length = features.shape[1]
        if length > self.max_frames:
            raise ValueError(f"{length} frames are more than max_frames {self.max_frames}")
        x = F.gelu(self.narrow(features.mT))  # (batch, dim, frames)
        mask = None
        if self.mask_padding:
            x = x * up_to(n_frames, length)[:, None]  # the next convolution looks one frame behind the end
            mask = up_to(n_steps(n_frames), (length + 1) // 2)
        x = F.gelu(self.halve(x)).mT
        x = x + self.positions[: x.shape[1]]  # pyright: ignore[reportIndexIssue]
        for block in self.blocks:
            x = block.over_itself(x, mask)  # pyright: ignore[reportCallIssue]
        return self.norm(x), mask


def n_steps(n_frames: Tensor) -> Tensor:
    """Encoder steps of so many frames."""
    return (n_frames + 1) // 2


def up_to(lengths: Tensor, length: int) -> Tensor:
    """(batch,) -> (batch, length) bool: True before each one's end."""
    return torch.arange(length, device=lengths.device) < lengths[:, None]


def sinusoids(length: int, dim: int, max_timescale: float = 3000.0) -> Tensor:
    """(length, dim): sines, then cosines, of the position over timescales from 1 to max_timescale, equally spaced in
    the logarithm (Vaswani et al. 2017, section 3.5, in Whisper's order; the course's longest timescale is 3000)."""
    if dim % 2 or dim < 4:
        raise ValueError(f"dim {dim} is not an even number of at least 4")
    rates = torch.exp(-math.log(max_timescale) / (dim // 2 - 1) * torch.arange(dim // 2))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class TextDecoder(Protocol):
    """Writes a text symbol by symbol while attending to the encoder's steps.

    A state is a NamedTuple of tensors whose first axes are (batch, beams).
    """

    def remember(self, encoded: Tensor, mask: Tensor | None) -> Memory: ...

    def __call__(self, tokens: Tensor, memory: Memory) -> Tensor: ...

    def start(self, batch: int, beams: int, device: torch.device) -> Any: ...

    def step(self, tokens: Tensor, state: Any, memory: Memory) -> tuple[Tensor, Any]: ...

    def alignment(self, tokens: Tensor, memory: Memory) -> Tensor: ...


class SpeechToText(nn.Module):
    """features (batch, frames, n_mels), n_frames (batch,), tokens (batch, length) -> (batch, length, n_symbols) logits.

    Logits at position i are of the symbol after tokens[: i + 1]. To write text: `encode` once, `start`, and a `step`
    for each symbol, which costs the same however long the text is.
    """

    def __init__(self, encoder: SpeechEncoder, decoder: TextDecoder) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, features: Tensor, n_frames: Tensor, tokens: Tensor) -> Tensor:
        return self.decoder(tokens, self.encode(features, n_frames))

    def encode(self, features: Tensor, n_frames: Tensor) -> Memory:
        return self.decoder.remember(*self.encoder(features, n_frames))

    def start(self, batch: int, beams: int, device: torch.device) -> Any:
        """The state before the first symbol."""
        return self.decoder.start(batch, beams, device)

    def step(self, tokens: Tensor, state: Any, memory: Memory) -> tuple[Tensor, Any]:
        """The last symbols (batch, beams) -> logits of the next ones (batch, beams, n_symbols), and the state."""
        return self.decoder.step(tokens, state, memory)

    def alignment(self, features: Tensor, n_frames: Tensor, tokens: Tensor) -> Tensor:
        """Where the decoder looked for each of tokens[:, 1:]: (batch, heads, length - 1, steps)."""
        return self.decoder.alignment(tokens[:, :-1], self.encode(features, n_frames))


class SpeechCTC(nn.Module):
    """features (batch, frames, n_mels), n_frames (batch,) -> (batch, steps, n_symbols) logits and n_steps (batch,).

    The encoder and one linear layer, for connectionist temporal classification (Graves et al. 2006).
    """

    def __init__(self, encoder: SpeechEncoder, dim: int, n_symbols: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(dim, n_symbols)

    def forward(self, features: Tensor, n_frames: Tensor) -> tuple[Tensor, Tensor]:
        encoded, _ = self.encoder(features, n_frames)
        return self.head(encoded), n_steps(n_frames)

    def alignment(self, features: Tensor, n_frames: Tensor, tokens: Tensor) -> Tensor:
        """How likely each of tokens[:, 1:] is at each step: (batch, 1, length - 1, steps)."""
        likely = self(features, n_frames)[0].softmax(dim=-1).mT  # (batch, n_symbols, steps)
        chosen = tokens[:, 1:, None].expand(-1, -1, likely.shape[2])
        return likely.gather(1, chosen)[:, None]
