"""Speech recognition: a fit, then what the model writes of test clips, where it looked, and the clips to listen to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dl_lab import plots
from dl_lab.datasets.audio import LogMel, read_any
from dl_lab.datasets.characters import decode
from dl_lab.datasets.lj_speech import Clip
from dl_lab.datasets.ragged_column import RaggedColumn
from dl_lab.experiments.fit import Fit
from dl_lab.run import Run
from dl_lab.tasks.text_similarity import compared
from dl_lab.training.learners import GradientLearner
from dl_lab.training.transcripts import aligned, draw_alignments, markdown, side_by_side
from dl_lab.types import Metrics, SpeechBatch, Tally, UserError, add_tallies, read_tally

Drawn = tuple[Any, list[dict[str, Any]]]


@dataclass
class Transcribe(Fit[GradientLearner]):
    """Fit, then write the first `n_texts` test clips beside their targets, and show `n_shown` of them.

    Tables: transcripts (one row a clip, with its similarities). Figures: spectrograms with the transcript, alignments
    of what was written. Audio: the clips themselves. n_train_texts: write so many training clips too; how near they
    are is reported as train/cer and so on (did it learn its own clips at all?).
    """

    n_texts: int = 32
    n_shown: int = 4
    n_train_texts: int = 0

    def __call__(self, run: Run) -> Metrics:
        metrics = super().__call__(run)
        self.learner.model.cpu().eval()
        rows, _ = self._written("test", self.n_texts)
        run.table("transcripts", rows)
        run.board.text("transcripts", markdown(rows))
        if self.n_train_texts:
            rows, tally = self._written("train", self.n_train_texts)
            run.table("train_transcripts", rows)
            metrics |= read_tally(tally, "train/")
        self._draw(run)
        run.finish(metrics)
        return metrics

    def _written(self, split: str, n: int) -> tuple[list[dict[str, Any]], Tally]:
        """A row for each of the first n clips: spoken, written, and how near they are; and the tally of them all."""
        task: Any = self.learner.task  # one that writes
        clips: list[Clip] = self.dataset.extras["clips"][split][:n]
        rows: list[dict[str, Any]] = []
        tally: Tally = {}
        for batch in self._batches(split, len(clips)):
            written = task.write(self.learner.model, batch)
            names = [clip.name for clip in clips[len(rows) : len(rows) + len(written)]]
            rows += side_by_side(names, written, batch.tokens)
            tally = add_tallies(tally, compared(written, batch.tokens))
        return rows, tally

    def _batches(self, split: str, n: int, size: int = 16) -> Iterator[SpeechBatch]:
        """The first n clips of a split, on the CPU."""
        for batch in getattr(self.dataset, split).to(torch.device("cpu")).batches(size):
            yield SpeechBatch(*[column[:n] for column in batch])
            n -= len(batch.tokens)
            if n <= 0:
                return

    def _draw(self, run: Run) -> None:
        model: Any = self.learner.model
        task: Any = self.learner.task
        second = self.dataset.extras["sample_rate"] / self.dataset.extras["hop_length"]  # in frames
        clips: list[Clip] = self.dataset.extras["clips"]["test"][: self.n_shown]
        spectra, alignments, texts = [], [], []
        for batch in self._batches("test", len(clips), size=1):
            looked, text = aligned(model, batch, task.write(model, batch))
            spectra.append(batch.features[0, : int(batch.n_frames)].T)
            alignments.append(looked)
            texts.append(text)
        titles = [f"{clip.name}: {decode(text)}" for clip, text in zip(clips, texts, strict=True)]
        run.figure("spectrograms", *draw_spectrograms(spectra, titles, second))
        run.figure("alignments", *draw_alignments(alignments, texts, [clip.name for clip in clips], second / 2))
        for clip in clips:
            run.audio(clip.name, clip.samples(), self.dataset.extras["sample_rate"])


# -- figures ------------------------------------------------------------------------------------------------------


def draw_spectrograms(spectra: Sequence[Tensor], titles: Sequence[str], second: float) -> Drawn:
    """Log-mel features (n_mels, frames) of each clip over its transcript; rows: the mean level of each quarter second.

    second: in frames.
    """
    figure, grid = plots.small_multiples([title[:110] for title in titles], 1, "seconds", "mel band", size=(9.0, 1.9))
    rows = []
    for axis, spectrum, title in zip(grid, spectra, titles, strict=True):
        extent = (0, spectrum.shape[1] / second, 0, spectrum.shape[0])
        axis.imshow(spectrum.numpy(), origin="lower", aspect="auto", cmap="magma", extent=extent)
        name, quarter = title.partition(":")[0], max(round(second / 4), 1)
        means = [float(part.mean()) for part in spectrum.split(quarter, dim=1)]
        rows += [{"clip": name, "second": i * quarter / second, "level": mean} for i, mean in enumerate(means)]
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
        rate, settings = preprocessing["sample_rate"], LogMel(**preprocessing["features"])
        model: Any = self.model
        longest = (preprocessing["pad_frames"] or model.encoder.max_frames) * settings.hop_length / rate
        if not 0 < self.seconds <= longest:
            raise UserError(f"seconds={self.seconds:g} is not more than 0 and at most the model's {longest:.1f}.")
        samples = read_any(path, rate)
        self.model.load_state_dict(dict(weights))
        self.model.eval()
        rows, start = [], 0
        for piece in samples.split(max(int(self.seconds * rate) - 1, 1)):
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
    column = RaggedColumn(features, torch.tensor([0]), size, pad_frames).index_select(0, torch.tensor([0]))
    return SpeechBatch(column, size.clamp(max=column.shape[1]), torch.zeros(1, text_length, dtype=torch.int64))
