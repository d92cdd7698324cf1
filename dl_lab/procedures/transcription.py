"""Recognise speech: a fit, then transcripts of test clips, the model's alignments, and the clips to listen to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.ragged_column import RaggedColumn
from dl_lab.datasets.speech.audio import LogMel, read_any
from dl_lab.datasets.speech.clips import SpeechContent
from dl_lab.datasets.text.characters import decode
from dl_lab.procedures.fit import WithFit
from dl_lab.procedures.rows import Drawn, Row
from dl_lab.runs.recorder import Run
from dl_lab.show import plots
from dl_lab.tasks.text_similarity import compare
from dl_lab.training.learners import GradientLearner
from dl_lab.training.trainer import Trainer
from dl_lab.training.transcripts import compare_texts, draw_alignments, find_alignment, format_markdown
from dl_lab.types import Metrics, SpeechBatch, Tally, UserError, add_tallies, read_tally


@dataclass
class Transcribe(WithFit[GradientLearner]):
    """Fit, then transcribe the first test clips, and show some of them.

    The table `transcripts` has a row for each clip: both texts and how similar they are. Figures show the spectrograms
    and the alignments. The clips themselves are saved as audio.

    Args:
        dataset: Clips of speech.
        learner: How the model learns; its task must write texts.
        trainer: The trainer.
        n_texts: Test clips to transcribe.
        n_shown: Test clips to show.
        n_train_texts: Training clips to transcribe. Their error rates (train/cer, ...) tell whether the model has
            learned its own clips.
    """

    imports = plots.IMPORTS

    dataset: Dataset
    learner: GradientLearner
    trainer: Trainer
    n_texts: int = 32
    n_shown: int = 4
    n_train_texts: int = 0

    def __call__(self, run: Run) -> Metrics:
        """Fit, transcribe and draw; return the metrics."""
        metrics = self.fit(run)
        self.learner.model.cpu().eval()
        rows, _ = self._transcribe("test", self.n_texts)
        run.table("transcripts", rows)
        run.board.text("transcripts", format_markdown(rows))
        if self.n_train_texts:
            rows, tally = self._transcribe("train", self.n_train_texts)
            run.table("train_transcripts", rows)
            metrics |= read_tally(tally, "train/")
        self._draw(run)
        run.finish(metrics)
        return metrics

    def _transcribe(self, split: str, n: int) -> tuple[list[Row], Tally]:
        """Transcribe the first n clips of a split; return a row for each, and the tally of all."""
        task: Any = self.learner.task  # a task with `write`
        clips = self.dataset.content_as(SpeechContent).clips[split][:n]
        rows: list[Row] = []
        tally: Tally = {}
        for batch in self._batches(split, len(clips)):
            written = task.write(self.learner.model, batch)
            names = [clip.name for clip in clips[len(rows) : len(rows) + len(written)]]
            rows += compare_texts(names, written, batch.tokens)
            tally = add_tallies(tally, compare(written, batch.tokens))
        return rows, tally

    def _batches(self, split: str, n: int, size: int = 16) -> Iterator[SpeechBatch]:
        """Yield the first n clips of a split, on the CPU."""
        for batch in getattr(self.dataset, split).to(torch.device("cpu")).batches(size):
            yield SpeechBatch(*[column[:n] for column in batch])
            n -= len(batch.tokens)
            if n <= 0:
                return

    def _draw(self, run: Run) -> None:
        model: Any = self.learner.model
        task: Any = self.learner.task
        content = self.dataset.content_as(SpeechContent)
        second = content.sample_rate / content.hop_length  # in frames
        clips = content.clips["test"][: self.n_shown]
        spectra = []
        alignments = []
        texts = []
        titles = []
        for batch in self._batches("test", len(clips), size=1):
            looked, text = find_alignment(model, batch, task.write(model, batch))
            spectra.append(batch.features[0, : int(batch.n_frames)].T)
            alignments.append(looked)
            texts.append(text)
            spoken = decode(batch.tokens[0].tolist())
            titles.append(f"spoken: {_shorten(spoken)}\nwritten: {_shorten(decode(text))}")
        names = [clip.name for clip in clips]
        run.figure("spectrograms", *draw_spectrograms(spectra, names, titles, second))
        run.figure("alignments", *draw_alignments(alignments, texts, names, second / 2))
        for clip in clips:
            run.audio(clip.name, clip.samples(), content.sample_rate)


# -- figures ------------------------------------------------------------------------------------------------------


LONGEST_TEXT = 120  # characters in a title


def _shorten(text: str) -> str:
    """Cut a long text after a word."""
    if len(text) <= LONGEST_TEXT:
        return text
    return f"{text[: LONGEST_TEXT - 4].rpartition(' ')[0]} ..."


def draw_spectrograms(spectra: Sequence[Tensor], names: Sequence[str], titles: Sequence[str], second: float) -> Drawn:
    """Draw the log-mel features of each clip; the rows hold the mean level of each quarter second.

    Args:
        spectra: Features (n_mels, frames) of each clip.
        names: Name of each clip.
        titles: What is spoken and what the model writes.
        second: Frames of a second.
    """
    figure, grid = plots.small_multiples([""] * len(titles), 1, "seconds", "mel band", size=(9.0, 2.4))
    figure.subplots_adjust(top=1 - 0.5 / figure.get_figheight(), hspace=0.65)
    rows: list[Row] = []
    for axis, spectrum, name, title in zip(grid, spectra, names, titles, strict=True):
        axis.set_title(title, fontsize=9, loc="left")
        axis.set_title(name, fontsize=7, loc="right", color="#555555")
        extent = (0, spectrum.shape[1] / second, 0, spectrum.shape[0])
        axis.imshow(spectrum.numpy(), origin="lower", aspect="auto", cmap="magma", extent=extent)
        quarter = max(round(second / 4), 1)
        means = [float(part.mean()) for part in spectrum.split(quarter, dim=1)]
        for i, mean in enumerate(means):
            rows.append({"clip": name, "second": i * quarter / second, "level": mean})
    return figure, rows


# -- new recordings -----------------------------------------------------------------------------------------------


@dataclass
class TranscribeFile:
    """Transcribe a recording: `dl-lab predict RUN file.wav`.

    Args:
        model: The run's model.
        task: The run's task.
        seconds: Longest piece, in seconds; a longer file is cut. The models learn from clips of up to 10 seconds.
    """

    model: nn.Module
    task: Any  # a task with `write`: a Transcription, a ConnectionistTranscription or a user's own
    seconds: float = 10.0

    def __call__(self, path: Path, weights: Mapping[str, Tensor], preprocessing: Mapping[str, Any]) -> list[Row]:
        """Transcribe a file; return a row for each piece: its start and its end, in seconds, and its text.

        Raises:
            UserError: The file cannot be read, or `seconds` is out of range.
        """
        rate = preprocessing["sample_rate"]
        settings = LogMel(**preprocessing["features"])
        model: Any = self.model
        longest = (preprocessing["pad_frames"] or model.encoder.max_frames) * settings.hop_length / rate
        if not 0 < self.seconds <= longest:
            raise UserError(f"seconds={self.seconds:g} must be above 0 and at most {longest:.1f}, the model's limit.")
        samples = read_any(path, rate)
        self.model.load_state_dict(dict(weights))
        self.model.eval()
        rows: list[Row] = []
        start = 0
        for piece in samples.split(max(int(self.seconds * rate) - 1, 1)):
            batch = make_batch(piece, settings, preprocessing["pad_frames"], preprocessing["text_length"])
            text = decode(self.task.write(self.model, batch)[0].tolist())
            end = start + len(piece)
            rows.append({"start": round(start / rate, 3), "end": round(end / rate, 3), "text": text})
            start = end
        return rows


def make_batch(samples: Tensor, settings: LogMel, pad_frames: int | None, text_length: int) -> SpeechBatch:
    """Return one clip as the data set would give it, without its text.

    Args:
        samples: The samples of the clip, (n,).
        settings: How features are made of samples.
        pad_frames: Frames that every clip is padded to; None pads none.
        text_length: Length of the empty text.
    """
    features = settings(samples)
    size = torch.tensor([len(features)])
    column = RaggedColumn(features, torch.tensor([0]), size, pad_frames).index_select(0, torch.tensor([0]))
    return SpeechBatch(column, size.clamp(max=column.shape[1]), torch.zeros(1, text_length, dtype=torch.int64))
