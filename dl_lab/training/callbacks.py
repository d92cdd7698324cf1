"""What else happens during a fit: the progress bar, early stopping, and the figures at the end."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any, Literal

from dl_lab import plots
from dl_lab.training.distributed import world
from dl_lab.training.learners import GradientLearner
from dl_lab.training.summary import layers
from dl_lab.training.trainer import Callback, Session
from dl_lab.types import Confusion, Metrics, Tally


class ProgressBar(Callback):
    """Epoch, batch, samples/s, time left and the newest metrics on one line; silent where the output is no terminal."""

    def __init__(self) -> None:
        self._bar: Any = None

    def fit_start(self, session: Session) -> None:
        if not sys.stderr.isatty() or world().rank:
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        def text(field: str) -> TextColumn:
            return TextColumn(f"{{task.fields[{field}]}}", table_column=Column(no_wrap=True), markup=False)

        bar = BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=SHORTEST_BAR))
        columns = (text("epoch"), bar, text("rate"), text("left"), text("metrics"))
        self._bar = Progress(*columns, console=Console(stderr=True), refresh_per_second=5, expand=True)
        blank = dict.fromkeys(("epoch", "rate", "left", "metrics"), "")
        self._task = self._bar.add_task("", total=session.max_epochs * session.n_batches, **blank)
        self._begun = session.step
        self._show(session)
        self._bar.start()

    def progress(self, session: Session) -> None:
        self._show(session)

    def epoch_end(self, session: Session, metrics: Metrics) -> None:
        self._show(session, metrics)

    def close(self, session: Session) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show(self, session: Session, metrics: Metrics | None = None) -> None:
        if self._bar is None:
            return
        done = session.epoch * session.n_batches + session.batch
        total = session.max_epochs * session.n_batches
        fields = {"epoch": _position(session)}
        if session.samples_per_second:
            fields["rate"] = f"{session.samples_per_second:,.0f}/s"
        if session.step > self._begun:
            elapsed = self._bar.tasks[0].elapsed or 0.0
            left = _clock(elapsed / (session.step - self._begun) * (total - done))
            fields["left"] = f"{left} left" if done < total else f"in {_clock(elapsed)}"
        if metrics:
            room = self._bar.console.width - SHORTEST_BAR - len(" ".join(fields.values())) - 4
            fields["metrics"] = newest(metrics, room)
        self._bar.update(self._task, completed=done, **fields)


SHORTEST_BAR = 10


def _position(session: Session) -> str:
    """`epoch  3/20  12/63`: of the epochs, of the batches; a constant width, so that the line stands still."""
    width, wide = len(str(session.max_epochs)), len(str(session.n_batches))
    epoch = min(session.epoch + 1, session.max_epochs)
    batch = session.batch if session.epoch < session.max_epochs else session.n_batches
    return f"epoch {epoch:>{width}}/{session.max_epochs}  {batch:>{wide}}/{session.n_batches}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def newest(metrics: Metrics, room: int) -> str:
    """As many metrics as fit into `room` characters, a validation score before the losses."""
    scores = [name for name in metrics if name.startswith("val/") and name != "val/loss"]
    wanted = [*scores[:1], "val/loss", "train/loss", *scores[1:]]
    line = ""
    for name in [name for name in wanted if name in metrics]:
        longer = f"{line}  {name} {metrics[name]:.4f}".lstrip()
        if len(longer) > room:
            break
        line = longer
    return line


class EarlyStopping(Callback):
    """Stops when a validation metric has not improved by `min_delta` for `patience` epochs."""

    def __init__(
        self,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
        patience: int = 5,
        min_delta: float = 0.0,
    ) -> None:
        if not monitor.startswith("val/"):
            raise ValueError(f"monitor {monitor!r} is not a val/ metric: stopping must not look at train or test")
        self.monitor, self.sign, self.patience, self.min_delta = (
            monitor,
            1 if mode == "min" else -1,
            patience,
            min_delta,
        )
        self.best, self.waited = math.inf, 0

    def epoch_end(self, session: Session, metrics: Metrics) -> None:
        value = self.sign * metrics[self.monitor]
        if value < self.best - self.min_delta:
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            session.stop_reason = f"{self.monitor} did not improve for {self.waited} epochs"

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.best, self.waited = state["best"], state["waited"]


class GapStopping(Callback):
    """Stops when `val/loss` has exceeded `train/loss` by more than `gap` in `count` epochs altogether.

    The rule of the Padova homework 2: the count is never reset, so it bounds over-fitting rather than waiting for
    progress (that is `EarlyStopping`).
    """

    def __init__(self, gap: float = 0.1, count: int = 10) -> None:
        if count < 1:
            raise ValueError(f"count {count} is not at least 1")
        self.gap, self.count, self.counted = gap, count, 0

    def epoch_end(self, session: Session, metrics: Metrics) -> None:
        self.counted += metrics["val/loss"] - metrics["train/loss"] > self.gap
        if self.counted >= self.count:
            session.stop_reason = f"val/loss was more than {self.gap} above train/loss in {self.counted} epochs"

    def state_dict(self) -> dict[str, Any]:
        return {"counted": self.counted}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.counted = state["counted"]


class ModelSummary(Callback):
    """tables/layers.csv at the start: each layer's output shape, parameters and operations (`summary.layers`).

    summary.json gets the operations of one item as `flops`. A learner without a torch model has none.
    """

    def fit_start(self, session: Session) -> None:
        learner = session.learner
        if not isinstance(learner, GradientLearner):
            return
        data = session.dataset.extras.get("images", session.dataset)  # what the whole model takes
        rows = layers(learner.model, learner.task, next(iter(data.train.batches(1))))
        session.run.table("layers", rows)
        session.run.summary["flops"] = sum(row["flops"] for row in rows)


class FirstLayerFilters(Callback):
    """At the end of the fit the kernels of the first convolution, each scaled to its own minimum and maximum.

    channel: of the input, drawn in grey (the Padova homework draws channel 0); None draws a kernel of RGB images in
    colour. A model without a convolution of images has no such figure.
    """

    def __init__(self, channel: int | None = None, columns: int = 8) -> None:
        self.channel, self.columns = channel, columns

    def fit_end(self, session: Session, tally: Tally, metrics: Metrics) -> None:
        weights = session.learner.weights()
        kernels = next((w.float().cpu() for w in weights.values() if w.dim() == 4), None)  # (filters, channels, h, w)
        if kernels is None:
            return
        channel = self.channel if self.channel is not None or kernels.shape[1] == 3 else 0
        chosen = kernels if channel is None else kernels[:, channel % kernels.shape[1]][:, None]
        low, high = chosen.amin(dim=(1, 2, 3), keepdim=True), chosen.amax(dim=(1, 2, 3), keepdim=True)
        scaled = ((chosen - low) / (high - low).clamp(min=1e-12)).permute(0, 2, 3, 1).squeeze(3).numpy()
        rows = [
            {"filter": i, "channel": c, "row": y, "column": x, "weight": value}
            for i, kernel in enumerate(kernels.tolist())
            for c, plane in enumerate(kernel)
            for y, line in enumerate(plane)
            for x, value in enumerate(line)
        ]
        of = "RGB" if channel is None else f"input channel {channel}"
        title = f"{len(kernels)} first-layer filters, {of}"
        session.run.figure(
            "first_layer_filters", plots.image_grid(list(scaled), self.columns, title), rows, session.step
        )


class LearningCurves(Callback):
    """One figure at the end, a panel per metric: train and validation over the epochs."""

    def fit_end(self, session: Session, tally: Tally, metrics: Metrics) -> None:
        names = list(dict.fromkeys(name.partition("/")[2] for name in session.history[0]))
        rows = [{"epoch": i, **epoch} for i, epoch in enumerate(session.history, 1)]
        figure, axes = plots.panels(names, x="epoch")
        for axis, name in zip(axes, names, strict=True):
            columns = [f"{split}/{name}" for split in ("train", "val")]  # each split keeps its colour
            plots.draw_curves(axis, rows, "epoch", columns, mark=session.best["epoch"])
        session.run.figure("learning_curves", figure, rows, session.step)


class ConfusionMatrix(Callback):
    """The confusion matrix of the test split as a figure with its counts."""

    def fit_end(self, session: Session, tally: Tally, metrics: Metrics) -> None:
        confusion = tally.get("confusion")
        if not isinstance(confusion, Confusion):
            return
        counts = confusion.counts.tolist()
        names = session.dataset.class_names or tuple(str(i) for i in range(len(counts)))
        rows = [{"true": name, **dict(zip(names, row, strict=True))} for name, row in zip(names, counts, strict=True)]
        title = f"{session.dataset.name} ({session.dataset.label}), test"
        session.run.figure("confusion_matrix", plots.confusion_matrix(counts, names, title), rows, session.step)
