"""Transcription: a text decoder trained by teacher forcing, or CTC; judged by the text that the model writes itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl_lab.tasks.decoding import beam, best_path, best_prefix, greedy
from dl_lab.tasks.text_similarity import compared
from dl_lab.types import PADDING, START, STOP, Ratio, SpeechBatch, Tally

Augment = Callable[[Tensor], Tensor]


class Transcription:
    """Cross-entropy of each next symbol, given the true ones before it (a `SpeechToText`).

    label_smoothing: share of the target spread over all symbols (Szegedy et al. 2016), in the reported loss too.
    mask_padding: the loss is the mean over the symbols of the text and its STOP; else over all positions, padding
    included, as in the course. (With learner.accumulation the masked mean is taken in each micro-batch.) beams: 1 is
    greedy; length_penalty: see `beam`. augment: (batch, n_mels, frames) -> the same, on training batches only.
    """

    def __init__(
        self,
        label_smoothing: float,
        mask_padding: bool,
        beams: int,
        length_penalty: float,
        augment: Augment | None = None,
    ) -> None:
        if beams < 1:
            raise ValueError(f"beams {beams} is not at least 1")
        self.label_smoothing, self.ignored = label_smoothing, PADDING if mask_padding else -100
        self.beams, self.length_penalty, self.augment = beams, length_penalty, augment

    def loss(self, model: nn.Module, batch: SpeechBatch) -> tuple[Tensor, Tally]:
        features = augmented(batch, self.augment)
        loss, ratio = self._judged(model(features, batch.n_frames, batch.tokens[:, :-1]), batch)
        return loss, {"loss": ratio}

    def measure(self, model: nn.Module, batch: SpeechBatch) -> Tally:
        _, ratio = self._judged(model(batch.features, batch.n_frames, batch.tokens[:, :-1]), batch)
        return {"loss": ratio, **compared(self.write(model, batch), batch.tokens)}

    def write(self, model: Any, batch: SpeechBatch) -> Tensor:
        """The model's own texts (batch, length): START, symbols, STOP, PADDING."""
        length = batch.tokens.shape[1] - 1
        if self.beams == 1:
            return greedy(model, batch.features, batch.n_frames, length)
        return beam(model, batch.features, batch.n_frames, length, self.beams, self.length_penalty)

    def _judged(self, logits: Tensor, batch: SpeechBatch) -> tuple[Tensor, Ratio]:
        targets = batch.tokens[:, 1:]
        loss = F.cross_entropy(
            logits.transpose(1, 2), targets, label_smoothing=self.label_smoothing, ignore_index=self.ignored
        )
        count = targets.numel() if self.ignored != PADDING else (targets != PADDING).sum()
        return loss, Ratio(loss.detach() * count, count)


class ConnectionistTranscription:
    """Connectionist temporal classification (Graves et al. 2006, eq. 14) of a `SpeechCTC`; PADDING is the blank.

    The loss is -log p(text) over its length, averaged over clips (torch's mean); infinite where a clip has fewer
    steps than its text needs. Judged by the text it writes. beams: 1 is the best path; more search over prefixes (see
    `prefixes`). augment: as in `Transcription`.
    """

    infinite_where = "a clip has fewer steps than its text has letters (one more between two equal ones)"

    def __init__(self, beams: int = 1, augment: Augment | None = None) -> None:
        if beams < 1:
            raise ValueError(f"beams {beams} is not at least 1")
        self.beams, self.augment = beams, augment

    def loss(self, model: nn.Module, batch: SpeechBatch) -> tuple[Tensor, Tally]:
        logits, n_steps = model(augmented(batch, self.augment), batch.n_frames)
        loss = self._loss(logits, n_steps, batch)
        return loss, {"loss": Ratio(loss.detach() * len(batch.tokens), len(batch.tokens))}

    def measure(self, model: nn.Module, batch: SpeechBatch) -> Tally:
        logits, n_steps = model(batch.features, batch.n_frames)
        size = len(batch.tokens)
        loss = Ratio(self._loss(logits, n_steps, batch).detach() * size, size)
        return {"loss": loss, **compared(self._text(logits, n_steps), batch.tokens)}

    @torch.no_grad()
    def write(self, model: nn.Module, batch: SpeechBatch) -> Tensor:
        """As `Transcription.write`."""
        return self._text(*model(batch.features, batch.n_frames))

    def _text(self, logits: Tensor, n_steps: Tensor) -> Tensor:
        return best_path(logits, n_steps) if self.beams == 1 else best_prefix(logits, n_steps, self.beams)

    def _loss(self, logits: Tensor, n_steps: Tensor, batch: SpeechBatch) -> Tensor:
        text = (batch.tokens != PADDING) & (batch.tokens != START) & (batch.tokens != STOP)
        scores = logits.float().log_softmax(dim=-1).transpose(0, 1)  # (steps, batch, n_symbols)
        return F.ctc_loss(scores, batch.tokens[:, 1:], n_steps, text.sum(dim=1), blank=PADDING)


def augmented(batch: SpeechBatch, augment: Augment | None) -> Tensor:
    return batch.features if augment is None else augment(batch.features.mT).mT
