"""Speech recognition: a fit, then what the model writes of test clips, where it looked, and the clips to listen to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dl_lab import plots
from dl_lab.datasets.audio import LogMel, read_any
from dl_lab.datasets.characters import decode
from dl_lab.datasets.lj_speech import Clip
from dl_lab.datasets.ragged import Ragged
from dl_lab.run import Run
from dl_lab.tasks.text_similarity import compared
from dl_lab.training.learners import GradientLearner
from dl_lab.training.trainer import Trainer, choose_device
from dl_lab.types import Dataset, Metrics, SpeechBatch, UserError, read_tally

Drawn = tuple[Any, list[dict[str, Any]]]


@dataclass
class Transcribe:
    """Fit, then write the first `n_texts` test clips beside their targets, and show `n_shown` of them.

    Tables: transcripts (one row a clip, with its similarities). Figures: spectrograms with the transcript, alignments
    of what was written. Audio: the clips themselves.
    """

    dataset: Dataset
    learner: GradientLearner
    trainer: Trainer
    n_texts: int = 32
    n_shown: int = 4

    def __call__(self, run: Run) -> Metrics:
        metrics = self.trainer.fit(self.learner, self.dataset, run)
        self._show(run)
        return metrics

    def rehearse(self) -> Metrics:
        """A first step on two items: what `dl-lab check` runs on generated data."""
        return self.trainer.rehearse(self.learner, self.dataset)

    def describe(self) -> dict[str, Any]:
        """What is known before the first step: the data, the size of the model, the device."""
        n_parameters, n_trainable = self.learner.n_parameters()
        return {
            "dataset": self.dataset.summary(),
            "parameters": n_parameters,
            "trainable": n_trainable,
            "device": str(choose_device(self.trainer.device)),
        }

    def n_parameters(self) -> tuple[int, int]:
        """(all, trainable)."""
        return self.learner.n_parameters()

    def _show(self, run: Run) -> None:
        clips: list[Clip] = self.dataset.extras["clips"]["test"][: self.n_texts]
        model: Any = self.learner.model.cpu().eval()
        task: Any = self.learner.task  # one that writes
        batches = self.dataset.test.to(torch.device("cpu")).batches(16)
        written: list[list[int]] = []
        rows: list[dict[str, Any]] = []
        first: SpeechBatch | None = None
        for batch in batches:
            first = first or batch
            texts = task.write(model, batch)
            written += texts.tolist()
            rows += [
                {"spoken": decode(spoken.tolist()), "written": decode(own.tolist())}
                | read_tally(compared(own[None], spoken[None]))
                for own, spoken in zip(texts, batch.tokens, strict=True)
            ]
            if len(rows) >= len(clips):
                break
        rows = [{"clip": clip.name, **row} for clip, row in zip(clips, rows, strict=False)]
        run.table("transcripts", rows)
        run.board.text("transcripts", markdown(rows))
        if first is not None:
            self._draw(run, model, first, clips[: self.n_shown], written)

    def _draw(self, run: Run, model: Any, batch: SpeechBatch, clips: Sequence[Clip], written: list[list[int]]) -> None:
        second = self.dataset.extras["sample_rate"] / self.dataset.extras["hop_length"]  # in frames
        n_frames = batch.n_frames[: len(clips)].tolist()
        spectra = [f[:n].T for f, n in zip(batch.features, n_frames, strict=False)]
        titles = [f"{clip.name}: {decode(own)}" for clip, own in zip(clips, written, strict=False)]
        run.figure("spectrograms", *draw_spectrograms(spectra, titles, second))
        texts = [own[: 2 + len(decode(own))] for own in written[: len(clips)]]
        alignments = []
        for i, text in enumerate(texts):
            with torch.no_grad():
                looked = model.alignment(batch.features[i : i + 1], batch.n_frames[i : i + 1], torch.tensor([text]))
            alignments.append(looked[0, ..., : (n_frames[i] + 1) // 2])
        run.figure("alignments", *draw_alignments(alignments, texts, [clip.name for clip in clips], second / 2))
        for clip in clips:
            run.audio(clip.name, clip.samples(), self.dataset.extras["sample_rate"])


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Target over transcript, clip by clip."""
    lines = ["| clip | | cer |", "|---|---|---|"]
    for row in rows:
        lines += [f"| {row['clip']} | {row['spoken']} | |", f"| | **{row['written']}** | {row['cer']:.2f} |"]
    return "\n".join(lines)


# -- figures ------------------------------------------------------------------------------------------------------


def draw_spectrograms(spectra: Sequence[Tensor], titles: Sequence[str], second: float) -> Drawn:
    """Log-mel features (n_mels, frames) of each clip over its transcript; rows: the mean level of each quarter second.

    second: in frames.
    """
    figure, grid = plots.small_multiples(
        [title[:110] for title in titles], 1, "seconds", "mel band", size=(9.0, 1.9)
    )
    rows = []
    for axis, spectrum, title in zip(grid, spectra, titles, strict=True):
        extent = (0, spectrum.shape[1] / second, 0, spectrum.shape[0])
        axis.imshow(spectrum, origin="lower", aspect="auto", cmap="magma", extent=extent)
        name, quarter = title.partition(":")[0], max(round(second / 4), 1)
        means = [float(part.mean()) for part in spectrum.split(quarter, dim=1)]
        rows += [{"clip": name, "second": i * quarter / second, "level": mean} for i, mean in enumerate(means)]
    return figure, rows


def draw_alignments(
    alignments: Sequence[Tensor], texts: Sequence[Sequence[int]], names: Sequence[str], second: float
) -> Drawn:
    """Where each written symbol looked, (heads, symbols, steps) a clip: a panel for each head; rows: the peaks.

    texts: START and the symbols; second: in steps.
    """
    heads = max(len(looked) for looked in alignments)
    titles = [f"{name}, head {head + 1}" if heads > 1 else name for name in names for head in range(heads)]
    figure, grid = plots.small_multiples(titles, heads, "seconds", "symbol written", size=(4.6, 2.8))
    rows = []
    for i, (looked, text) in enumerate(zip(alignments, texts, strict=True)):
        symbols = [decode([number]) or ">" for number in text[1:]]
        for head, weights in enumerate(looked):
            axis = grid[i * heads + head]
            extent = (0, weights.shape[1] / second, weights.shape[0] - 0.5, -0.5)
            axis.imshow(weights, aspect="auto", cmap="viridis", extent=extent, vmin=0)
            if len(symbols) <= 20:
                axis.set_yticks(range(len(symbols)), symbols)
            rows += [
                {"clip": names[i], "head": head + 1, "place": place, "symbol": symbol}
                | {"second": int(row.argmax()) / second, "weight": float(row.max())}
                for place, (symbol, row) in enumerate(zip(symbols, weights, strict=True))
            ]
    return figure, rows


# -- new recordings -----------------------------------------------------------------------------------------------


@dataclass
class TranscribeFile:
    """Transcribes a recording: `dl-lab predict RUN file.wav`.

    seconds: a longer file is cut into pieces of at most so many seconds (the models learn from clips of up to 10).
    """

    model: nn.Module
    task: Any  # one that writes: a Transcription or a ConnectionistTranscription
    seconds: float = 10.0

    def __call__(
        self, path: Path, weights: Mapping[str, Tensor], preprocessing: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """One row for each piece: where it starts and ends, in seconds, and its text."""
        if self.seconds <= 0:
            raise UserError(f"seconds={self.seconds} is not more than 0.")
        rate, settings = preprocessing["sample_rate"], LogMel(**preprocessing["features"])
        samples = read_any(path, rate)
        self.model.load_state_dict(dict(weights))
        self.model.eval()
        rows, start = [], 0
        for piece in samples.split(max(round(self.seconds * rate), 1)):
            batch = as_batch(piece, settings, preprocessing["pad_frames"], preprocessing["text_length"])
            text = decode(self.task.write(self.model, batch)[0].tolist())
            end = start + len(piece)
            rows.append({"start": round(start / rate, 3), "end": round(end / rate, 3), "text": text})
            start = end
        return rows


def as_batch(samples: Tensor, settings: LogMel, pad_frames: int | None, text_length: int) -> SpeechBatch:
    """One clip as the data set would give it; its text is not known."""
    features = settings(samples)
    size = torch.tensor([len(features)])
    column = Ragged(features, torch.tensor([0]), size, pad_frames).index_select(0, torch.tensor([0]))
    return SpeechBatch(column, size.clamp(max=column.shape[1]), torch.zeros(1, text_length, dtype=torch.int64))
