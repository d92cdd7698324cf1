"""What a speech model writes: target and transcript side by side, where it looked, and both while it learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dl_lab import plots
from dl_lab.datasets.characters import decode
from dl_lab.tasks.text_similarity import compared, ended
from dl_lab.training.distributed import world
from dl_lab.training.trainer import Callback, Session
from dl_lab.types import Metrics, SpeechBatch, UserError, read_tally

FILE = "transcripts.jsonl"


class Transcripts(Callback):
    """Every `every` epochs, and after the last: what the model writes of the first `clips` validation clips.

    On the board as text, `val_transcripts` (target over transcript, with the character error rate of each clip), and
    as a figure, `val_alignment`, where the model looked for each symbol of the first clip (alignment: false leaves it
    out: most of the time goes there); records in transcripts.jsonl. Nothing random is drawn: the training is the same,
    bit for bit, without it. Raises ValueError for numbers below 1; UserError at the start of a fit of other things than
    speech.
    """

    def __init__(self, every: int = 5, clips: int = 4, alignment: bool = True) -> None:
        if every < 1 or clips < 1:
            raise ValueError(f"every {every} and clips {clips} must be at least 1")
        self.every, self.clips, self.alignment = every, clips, alignment
        self._batch: SpeechBatch | None = None

    def fit_start(self, session: Session) -> None:
        task = getattr(session.learner, "task", None)
        if "clips" not in session.dataset.extras or not hasattr(task, "write"):
            raise UserError("Transcripts need clips of speech and a task that writes: use callbacks.transcripts=null.")

    def epoch_end(self, session: Session, metrics: Metrics) -> None:
        if world().rank or (session.epoch % self.every and session.epoch < session.max_epochs):
            return
        learner: Any = session.learner
        model, batch = learner.model.eval(), self._clips(session)
        written = learner.task.write(model, batch)
        names = [clip.name for clip in session.dataset.extras["clips"]["val"][: self.clips]]
        rows = side_by_side(names, written, batch.tokens)
        for row in rows:
            about = {name: row[name] for name in ("clip", "spoken", "written", "cer")}
            session.run.append(FILE, {"epoch": session.epoch, "step": session.step, **about})
        session.run.board.text("val_transcripts", markdown(rows), session.step)
        if self.alignment:
            extras = session.dataset.extras
            second = extras["sample_rate"] / extras["hop_length"] / 2  # in steps
            first = SpeechBatch(*[column[:1] for column in batch])
            looked, text = aligned(model, first, written[:1])
            title = f"{names[0]}, epoch {session.epoch}"
            session.run.figure("val_alignment", *draw_alignments([looked], [text], [title], second), session.step)

    def _clips(self, session: Session) -> SpeechBatch:
        """Of the whole split, also where several processes share it."""
        if self._batch is None:
            batch = next(iter(session.dataset.val.divided(0, 1).batches(self.clips)))
            self._batch = SpeechBatch(*batch)
        return self._batch


def side_by_side(names: Sequence[str], written: Tensor, spoken: Tensor) -> list[dict[str, Any]]:
    """A row for each clip: its name, spoken, written, and how near they are (see `compared`).

    written (clips, length) and spoken (clips, text_length): START, symbols, STOP, PADDING.
    """
    return [
        {"clip": name, "spoken": decode(target.tolist()), "written": decode(own.tolist())}
        | read_tally(compared(own[None], target[None]))
        for name, own, target in zip(names, written, spoken, strict=True)
    ]


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Target over transcript, clip by clip."""
    lines = ["| clip | | cer |", "|---|---|---|"]
    for row in rows:
        lines += [f"| {row['clip']} | {row['spoken']} | |", f"| | **{row['written']}** | {row['cer']:.2f} |"]
    return "\n".join(lines)


@torch.no_grad()
def aligned(model: Any, clip: SpeechBatch, written: Tensor) -> tuple[Tensor, list[int]]:
    """Where the model looked for each symbol of one clip's text (1, length): (heads, symbols, steps of the clip) on the
    CPU, and START and the symbols."""
    text = ended(written[0].tolist())
    looked = model.alignment(clip.features, clip.n_frames, written[:, : len(text)])
    return looked[0, ..., : (int(clip.n_frames) + 1) // 2].float().cpu(), written[0, : len(text)].tolist()


def draw_alignments(
    alignments: Sequence[Tensor], texts: Sequence[Sequence[int]], names: Sequence[str], second: float
) -> tuple[Any, list[dict[str, Any]]]:
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
            axis.imshow(weights.numpy(), aspect="auto", cmap="viridis", extent=extent, vmin=0)
            if len(symbols) <= 20:
                axis.set_yticks(range(len(symbols)), symbols)
            rows += [
                {"clip": names[i], "head": head + 1, "place": place, "symbol": symbol}
                | {"second": int(row.argmax()) / second, "weight": float(row.max())}
                for place, (symbol, row) in enumerate(zip(symbols, weights, strict=True))
            ]
    return figure, rows
