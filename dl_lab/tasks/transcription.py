"""Transcription: a text decoder trained by teacher forcing, or CTC. The measures judge the text that a model writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dl_lab.tasks.decoding import find_best_path, find_best_text, search_beams, search_greedily
from dl_lab.tasks.inputs import as_tuple
from dl_lab.tasks.text_similarity import compare
from dl_lab.types import PADDING, START, STOP, Batch, Ratio, SpeechBatch, Tally

Augment = Callable[[Tensor], Tensor]


class Transcription:
    """Cross-entropy of each next symbol, given the true symbols before it, for a `SpeechToText`.

    Args:
        label_smoothing: Share of the target that is spread over all symbols (Szegedy et al. 2016), in the reported loss
            too.
        mask_padding: True takes the mean over the symbols of the text and its STOP (with learner.accumulation in each
            micro-batch). False takes the mean over all positions, padding included, as in the IST course.
        beams: Prefixes of the beam search; 1 searches greedily.
        length_penalty: See `search_beams`.
        augment: Changes the features (batch, n_mels, frames) of training batches; None leaves them as they are.

    Raises:
        ValueError: `beams` is below 1.
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
        self.label_smoothing = label_smoothing
        self.ignored = PADDING if mask_padding else -100  # torch's own ignore_index, which no symbol has
        self.beams = beams
        self.length_penalty = length_penalty
        self.augment = augment

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tally]:
        """Return the loss, and its tally."""
        batch = as_tuple(batch, SpeechBatch)
        features = augment_features(batch, self.augment)
        loss, ratio = self._judge(model(features, batch.n_frames, batch.tokens[:, :-1]), batch)
        return loss, {"loss": ratio}

    def measure(self, model: nn.Module, batch: Batch) -> Tally:
        """Return the tally of the loss, and of the texts that the model writes (see `compare`)."""
        batch = as_tuple(batch, SpeechBatch)
        _, ratio = self._judge(model(batch.features, batch.n_frames, batch.tokens[:, :-1]), batch)
        return {"loss": ratio, **compare(self.write(model, batch), batch.tokens)}

    def write(self, model: Any, batch: Batch) -> Tensor:
        """Return the texts that the model writes, (batch, length): START, symbols, STOP, PADDING."""
        batch = as_tuple(batch, SpeechBatch)
        length = batch.tokens.shape[1] - 1
        if self.beams == 1:
            return search_greedily(model, batch.features, batch.n_frames, length)
        return search_beams(model, batch.features, batch.n_frames, length, self.beams, self.length_penalty)

    def _judge(self, logits: Tensor, batch: SpeechBatch) -> tuple[Tensor, Ratio]:
        targets = batch.tokens[:, 1:]
        loss = F.cross_entropy(
            logits.transpose(1, 2), targets, label_smoothing=self.label_smoothing, ignore_index=self.ignored
        )
        count = targets.numel() if self.ignored != PADDING else (targets != PADDING).sum()
        return loss, Ratio(loss.detach() * count, count)


class ConnectionistTranscription:
    """Connectionist temporal classification (Graves et al. 2006, eq. 14) for a `SpeechCTC`; PADDING is the blank.

    The loss is -log p(text) over the length of the text, averaged over clips (torch's mean). It is infinite if a clip
    has fewer steps than its text needs.

    Args:
        beams: Prefixes of the search (see `search_prefixes`); 1 takes the best path.
        augment: Changes the features (batch, n_mels, frames) of training batches; None leaves them as they are.

    Raises:
        ValueError: `beams` is below 1.
    """

    infinite_where = "a clip has fewer steps than its text has letters (one more between two equal ones)"

    def __init__(self, beams: int = 1, augment: Augment | None = None) -> None:
        if beams < 1:
            raise ValueError(f"beams {beams} is not at least 1")
        self.beams = beams
        self.augment = augment

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tally]:
        """Return the loss, and its tally."""
        batch = as_tuple(batch, SpeechBatch)
        logits, n_steps = model(augment_features(batch, self.augment), batch.n_frames)
        loss = self._compute_loss(logits, n_steps, batch)
        return loss, {"loss": Ratio(loss.detach() * len(batch.tokens), len(batch.tokens))}

    def measure(self, model: nn.Module, batch: Batch) -> Tally:
        """Return the tally of the loss, and of the texts that the model writes (see `compare`)."""
        batch = as_tuple(batch, SpeechBatch)
        logits, n_steps = model(batch.features, batch.n_frames)
        size = len(batch.tokens)
        loss = Ratio(self._compute_loss(logits, n_steps, batch).detach() * size, size)
        return {"loss": loss, **compare(self._search(logits, n_steps), batch.tokens)}

    @torch.no_grad()
    def write(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the texts that the model writes, (batch, length): START, symbols, STOP, PADDING."""
        batch = as_tuple(batch, SpeechBatch)
        return self._search(*model(batch.features, batch.n_frames))

    def _search(self, logits: Tensor, n_steps: Tensor) -> Tensor:
        if self.beams == 1:
            return find_best_path(logits, n_steps)
        return find_best_text(logits, n_steps, self.beams)

    def _compute_loss(self, logits: Tensor, n_steps: Tensor, batch: SpeechBatch) -> Tensor:
        text = (batch.tokens != PADDING) & (batch.tokens != START) & (batch.tokens != STOP)
        scores = logits.float().log_softmax(dim=-1).transpose(0, 1)  # (steps, batch, n_symbols)
        return F.ctc_loss(scores, batch.tokens[:, 1:], n_steps, text.sum(dim=1), blank=PADDING)


def augment_features(batch: SpeechBatch, augment: Augment | None) -> Tensor:
    """Return the features (batch, frames, n_mels) of a batch, changed by `augment` if there is one."""
    return batch.features if augment is None else augment(batch.features.mT).mT
