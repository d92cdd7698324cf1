"""Transcripts of a speech model: beside their targets, with the model's attention, and while the model learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from dl_lab.datasets.speech.clips import SpeechContent
from dl_lab.datasets.text.characters import decode
from dl_lab.show import plots
from dl_lab.tasks.text_similarity import compare, cut_at_stop
from dl_lab.training.distributed import world
from dl_lab.training.learners import GradientLearner
from dl_lab.training.session import Callback, Session
from dl_lab.types import Metrics, SpeechBatch, UserError, read_tally

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILE = "transcripts.jsonl"


class AligningModel(Protocol):
    """A model that knows where it looked for each symbol."""

    def alignment(self, features: Tensor, n_frames: Tensor, tokens: Tensor) -> Tensor:
        """Return the attention (batch, heads, symbols, steps) for texts (batch, length)."""
        ...


class Transcripts(Callback):
    """Shows the transcripts of a few validation clips while the model learns.

    The board gets the text `val_transcripts`: target over transcript, with the character error rate of each clip. The
    figure `val_alignment` shows where the model looked for each symbol of the first clip. transcripts.jsonl gets the
    records. The callback draws no random numbers: the training is the same, bit for bit, without it.

    Args:
        every: Show transcripts after one epoch in `every`, and after the last one.
        clips: The number of validation clips, the first ones.
        alignment: Whether to draw the alignment, which takes most of the callback's time.

    Raises:
        ValueError: A number is less than 1.
        UserError: The fit is not of speech. This is checked when the fit starts.
    """

    imports = plots.IMPORTS

    def __init__(self, every: int = 5, clips: int = 4, alignment: bool = True) -> None:
        if every < 1 or clips < 1:
            raise ValueError(f"every {every} and clips {clips} must be at least 1")
        self.every = every
        self.clips = clips
        self.alignment = alignment
        self._batch: SpeechBatch | None = None

    def fit_start(self, session: Session) -> None:
        """Refuse a fit that is not of speech."""
        learner = session.learner
        is_writing = isinstance(learner, GradientLearner) and hasattr(learner.task, "write")
        if not isinstance(session.dataset.content, SpeechContent) or not is_writing:
            raise UserError("Transcripts need clips of speech and a task that writes: use callbacks.transcripts=null.")

    def epoch_end(self, session: Session, metrics: Metrics) -> None:
        """Show the transcripts if it is time."""
        is_time = session.epoch % self.every == 0 or session.epoch >= session.max_epochs
        if world().rank or not is_time:
            return
        learner: Any = session.learner  # `fit_start` has checked that its task writes
        model = learner.model.eval()
        batch = self._find_clips(session)
        written = learner.task.write(model, batch)
        content = session.dataset.content_as(SpeechContent)
        names = [clip.name for clip in content.clips["val"][: self.clips]]
        rows = compare_texts(names, written, batch.tokens)
        for row in rows:
            shown = {name: row[name] for name in ("clip", "spoken", "written", "cer")}
            session.run.append(FILE, {"epoch": session.epoch, "step": session.step, **shown})
        session.run.board.text("val_transcripts", format_markdown(rows), session.step)
        if self.alignment:
            steps_per_second = content.sample_rate / content.hop_length / 2
            first = SpeechBatch(*[column[:1] for column in batch])
            attention, text = find_alignment(model, first, written[:1])
            title = f"{names[0]}, epoch {session.epoch}"
            figure, peaks = draw_alignments([attention], [text], [title], steps_per_second)
            session.run.figure("val_alignment", figure, peaks, session.step)

    def _find_clips(self, session: Session) -> SpeechBatch:
        """Return the first clips of the whole split, also where several processes share the split."""
        if self._batch is None:
            batch = next(iter(session.whole_dataset.val.batches(self.clips)))
            self._batch = SpeechBatch(*batch)
        return self._batch


def compare_texts(names: Sequence[str], written: Tensor, spoken: Tensor) -> list[dict[str, object]]:
    """Return a row for each clip: its name, the spoken and the written text, and their similarity (see `compare`).

    Args:
        names: The names of the clips.
        written: (clips, length) int64: START, symbols, STOP, PADDING.
        spoken: (clips, text_length) int64, likewise.
    """
    rows: list[dict[str, object]] = []
    for name, own, target in zip(names, written, spoken, strict=True):
        row = {"clip": name, "spoken": decode(target.tolist()), "written": decode(own.tolist())}
        rows.append({**row, **read_tally(compare(own[None], target[None]))})
    return rows


def format_markdown(rows: Sequence[Mapping[str, object]]) -> str:
    """Return a Markdown table: target over transcript, clip by clip."""
    lines = ["| clip | | cer |", "|---|---|---|"]
    for row in rows:
        lines += [f"| {row['clip']} | {row['spoken']} | |", f"| | **{row['written']}** | {row['cer']:.2f} |"]
    return "\n".join(lines)


@torch.no_grad()
def find_alignment(model: AligningModel, clip: SpeechBatch, written: Tensor) -> tuple[Tensor, list[int]]:
    """Find where the model looked for each symbol of a text.

    Args:
        model: The model.
        clip: A batch of one clip.
        written: The text (1, length) int64.

    Returns:
        The attention (heads, symbols, steps of the clip) on the CPU, and the text without its padding, START first.
    """
    n_symbols = len(cut_at_stop(written[0].tolist()))
    n_steps = (int(clip.n_frames) + 1) // 2
    attention = model.alignment(clip.features, clip.n_frames, written[:, :n_symbols])
    return attention[0, ..., :n_steps].float().cpu(), written[0, :n_symbols].tolist()


def draw_alignments(
    alignments: Sequence[Tensor], texts: Sequence[Sequence[int]], names: Sequence[str], steps_per_second: float
) -> tuple[Figure, list[dict[str, object]]]:
    """Draw where the model looked for each written symbol: a row of panels for each clip, a panel for each head.

    Args:
        alignments: The attention (heads, symbols, steps) of each clip.
        texts: The text of each clip: START, then the symbols.
        names: The names of the clips.
        steps_per_second: Steps of the attention in a second of sound.

    Returns:
        The figure, and its rows: the peak of each symbol's attention.
    """
    n_heads = max(len(attention) for attention in alignments)
    titles: list[str] = []
    for name in names:
        titles += [name] if n_heads == 1 else [f"{name}, head {head}" for head in range(1, n_heads + 1)]
    figure, grid = plots.small_multiples(titles, n_heads, "seconds", "symbol written", size=(4.6, 2.8))
    rows: list[dict[str, object]] = []
    for i, (attention, text) in enumerate(zip(alignments, texts, strict=True)):
        symbols = [decode([number]) or ">" for number in text[1:]]
        for head, weights in enumerate(attention):
            axis = grid[i * n_heads + head]
            extent = (0, weights.shape[1] / steps_per_second, weights.shape[0] - 0.5, -0.5)
            axis.imshow(weights.numpy(), aspect="auto", cmap="viridis", extent=extent, vmin=0)
            if len(symbols) <= 20:
                axis.set_yticks(range(len(symbols)), symbols)
            for place, (symbol, row) in enumerate(zip(symbols, weights, strict=True)):
                about = {"clip": names[i], "head": head + 1, "place": place, "symbol": symbol}
                peak = {"second": int(row.argmax()) / steps_per_second, "weight": float(row.max())}
                rows.append({**about, **peak})
    return figure, rows
