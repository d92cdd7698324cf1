"""Speech recognition: an encoder of log-mel features, with a text decoder or a classifier of every step (CTC)."""

from __future__ import annotations

import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl_lab.models.residual_attention import Memory, ResidualAttention


class SpeechEncoder(nn.Module):
    """An encoder of log-mel features.

    Two convolutions of width 3, the second of stride 2 (steps = frames / 2, rounded up); fixed sinusoidal positions;
    pre-norm attention blocks; a last norm. With 80 mels, dim 200 and hidden 400 it has 812,800 parameters with two
    layers, 1,456,800 with four.

    Args:
        n_mels: Mel bands of a frame.
        dim: Width of the convolutions and the blocks.
        n_heads: Heads of a block, a divisor of `dim`.
        hidden: Width of a feed-forward network's hidden layer.
        n_layers: Number of attention blocks.
        max_frames: Longest input, in frames.
        mask_padding: Whether the frames behind a clip's end are ignored, here and, through the mask, in the decoder.
            Otherwise every frame counts, as in the IST course.
    """

    positions: Tensor

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
        self.max_frames = max_frames
        self.mask_padding = mask_padding
        self.narrow = nn.Conv1d(n_mels, dim, kernel_size=3, padding=1)
        self.halve = nn.Conv1d(dim, dim, kernel_size=3, stride=2, padding=1)
        self.register_buffer("positions", sinusoids((max_frames + 1) // 2, dim), persistent=False)
        self.blocks = nn.ModuleList(ResidualAttention(dim, n_heads, hidden) for _ in range(n_layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, features: Tensor, n_frames: Tensor) -> tuple[Tensor, Tensor | None]:
        """Encode clips.

        Args:
            features: Log-mel features (batch, frames, n_mels).
            n_frames: Frames of each clip, (batch,) int64.

        Returns:
            The encoder's steps (batch, steps, dim); and their mask (batch, steps) bool, or None if every step counts.

        Raises:
            ValueError: There are more than `max_frames` frames.
        """
        length = features.shape[1]
        if length > self.max_frames:
            raise ValueError(f"{length} frames are more than max_frames {self.max_frames}")
        x = F.gelu(self.narrow(features.mT))  # (batch, dim, frames)
        mask = None
        if self.mask_padding:
            x = x * mask_up_to(n_frames, length)[:, None]  # the next convolution sees one frame behind the end
            mask = mask_up_to(n_steps(n_frames), (length + 1) // 2)
        x = F.gelu(self.halve(x)).mT
        x = x + self.positions[: x.shape[1]]
        for block in self.blocks:
            assert isinstance(block, ResidualAttention)  # a ModuleList does not know the type of its modules
            x = block.attend_to_itself(x, mask)
        return self.norm(x), mask


def n_steps(n_frames: Tensor) -> Tensor:
    """Return how many encoder steps `n_frames` frames give."""
    return (n_frames + 1) // 2


def mask_up_to(lengths: Tensor, length: int) -> Tensor:
    """Return a mask (batch, length) bool that is True before each row's end, `lengths` (batch,)."""
    return torch.arange(length, device=lengths.device) < lengths[:, None]


def sinusoids(length: int, dim: int, max_timescale: float = 3000.0) -> Tensor:
    """Return sines, then cosines, of the position over timescales equally spaced in the logarithm: (length, dim).

    Source: Vaswani et al. 2017, section 3.5, in Whisper's order.

    Args:
        length: Number of positions.
        dim: Number of sines and cosines together, an even number of at least 4.
        max_timescale: Longest timescale, in positions; the shortest is 1. The IST course has 3000.

    Raises:
        ValueError: `dim` is odd or below 4.
    """
    if dim % 2 or dim < 4:
        raise ValueError(f"dim {dim} is not an even number of at least 4")
    rates = torch.exp(-math.log(max_timescale) / (dim // 2 - 1) * torch.arange(dim // 2))
    angles = torch.arange(length)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class TextDecoder(Protocol):
    """Writes a text symbol by symbol while attending to the encoder's steps.

    Each decoder has a type of state of its own: a NamedTuple of tensors whose first axes are (batch, beams).
    """

    def remember(self, encoded: Tensor, mask: Tensor | None) -> Memory:
        """Return the memory of the encoder's steps (batch, steps, dim) and their mask (batch, steps) bool."""
        ...

    def __call__(self, tokens: Tensor, memory: Memory) -> Tensor:
        """Map tokens (batch, length) to the logits of the symbols after them, (batch, length, n_symbols)."""
        ...

    def start(self, batch: int, beams: int, device: torch.device) -> Any:
        """Return the state before the first symbol."""
        ...

    def step(self, tokens: Tensor, state: Any, memory: Memory) -> tuple[Tensor, Any]:
        """Read the last symbols (batch, beams).

        Returns:
            The logits of the next symbols, (batch, beams, n_symbols); and the new state.
        """
        ...

    def alignment(self, tokens: Tensor, memory: Memory) -> Tensor:
        """Return how much each symbol attends to each step: (batch, heads, length, steps)."""
        ...


class SpeechToText(nn.Module):
    """An encoder of speech and a decoder that writes text.

    The logits at position i are those of the symbol after tokens[: i + 1]. To write a text, call `encode` once, then
    `start`, then `step` for each symbol. The cost of a step does not depend on the text written before.

    Args:
        encoder: Encodes the features.
        decoder: Writes the text.
    """

    def __init__(self, encoder: SpeechEncoder, decoder: TextDecoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder

    def forward(self, features: Tensor, n_frames: Tensor, tokens: Tensor) -> Tensor:
        """Return the logits of each next symbol, given the true symbols before it.

        Args:
            features: Log-mel features (batch, frames, n_mels).
            n_frames: Frames of each clip, (batch,) int64.
            tokens: Symbols (batch, length) int64.

        Returns:
            Logits (batch, length, n_symbols).
        """
        return self.decoder(tokens, self.encode(features, n_frames))

    def encode(self, features: Tensor, n_frames: Tensor) -> Memory:
        """Return the memory of features (batch, frames, n_mels) with n_frames (batch,) frames each."""
        return self.decoder.remember(*self.encoder(features, n_frames))

    def start(self, batch: int, beams: int, device: torch.device) -> Any:
        """Return the decoder's state before the first symbol."""
        return self.decoder.start(batch, beams, device)

    def step(self, tokens: Tensor, state: Any, memory: Memory) -> tuple[Tensor, Any]:
        """Read the last symbols (batch, beams).

        Returns:
            The logits of the next symbols, (batch, beams, n_symbols); and the new state.
        """
        return self.decoder.step(tokens, state, memory)

    def alignment(self, features: Tensor, n_frames: Tensor, tokens: Tensor) -> Tensor:
        """Return how much each of tokens[:, 1:] attended to each step: (batch, heads, length - 1, steps)."""
        return self.decoder.alignment(tokens[:, :-1], self.encode(features, n_frames))


class SpeechCTC(nn.Module):
    """An encoder of speech and one linear layer, for connectionist temporal classification (Graves et al. 2006).

    Args:
        encoder: Encodes the features.
        dim: Width of the encoder's steps.
        n_symbols: Number of symbols.
    """

    def __init__(self, encoder: SpeechEncoder, dim: int, n_symbols: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(dim, n_symbols)

    def forward(self, features: Tensor, n_frames: Tensor) -> tuple[Tensor, Tensor]:
        """Classify every step of the encoder.

        Args:
            features: Log-mel features (batch, frames, n_mels).
            n_frames: Frames of each clip, (batch,) int64.

        Returns:
            Logits (batch, steps, n_symbols); and the steps of each clip, (batch,).
        """
        encoded, _ = self.encoder(features, n_frames)
        return self.head(encoded), n_steps(n_frames)

    def alignment(self, features: Tensor, n_frames: Tensor, tokens: Tensor) -> Tensor:
        """Return how probable each of tokens[:, 1:] is at each step: (batch, 1, length - 1, steps)."""
        probabilities = self(features, n_frames)[0].softmax(dim=-1).mT  # (batch, n_symbols, steps)
        chosen = tokens[:, 1:, None].expand(-1, -1, probabilities.shape[2])
        return probabilities.gather(1, chosen)[:, None]
