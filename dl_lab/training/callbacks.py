"""Callbacks of any fit: the progress bar, early stopping, and the figures at the end."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dl_lab.show import class_plots, image_plots, plots, tables
from dl_lab.training.distributed import world
from dl_lab.training.learners import GradientLearner
from dl_lab.training.session import Callback, Session
from dl_lab.training.summary import summarise_layers
from dl_lab.types import Confusion, Metrics, Tally, count

if TYPE_CHECKING:
    from rich.progress import Progress

SHORTEST_BAR = 10
LINE_SECONDS = 0.5  # the least time between two lines
LINE_WIDTH = 70


class ProgressBar(Callback):
    """Shows epoch, batch, samples per second, the time left and the newest metrics.

    A terminal gets a bar. A log file, a cluster's output or a notebook gets one line for each epoch; epochs of a few
    milliseconds share a line.
    """

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._lines = False
        self._printed = 0.0

    def fit_start(self, session: Session) -> None:
        """Draw the bar, or prepare for lines."""
        self._lines = not sys.stderr.isatty() and not world().rank
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
        blank: dict[str, Any] = dict.fromkeys(("epoch", "rate", "left", "metrics"), "")
        self._task = self._bar.add_task("", total=session.n_updates, **blank)
        self._first_step = session.step
        self._show(session)
        self._bar.start()

    def progress(self, session: Session) -> None:
        """Move the bar."""
        self._show(session)

    def epoch_end(self, session: Session, metrics: Metrics) -> None:
        """Show the metrics of the epoch."""
        self._show(session, metrics)
        if self._lines:
            self._print(session, metrics)

    def _print(self, session: Session, metrics: Metrics) -> None:
        is_last = session.epoch >= session.max_epochs
        if not is_last and time.monotonic() - self._printed < LINE_SECONDS:
            return
        self._printed = time.monotonic()
        width = len(str(session.max_epochs))
        rate = f"{session.samples_per_second:,.0f}/s" if session.samples_per_second else ""
        words = [f"epoch {session.epoch:>{width}}/{session.max_epochs}", format_metrics(metrics, LINE_WIDTH), rate]
        print("  ".join(word for word in words if word), file=sys.stderr, flush=True)

    def close(self, session: Session) -> None:
        """Leave the bar as it is, and give the terminal back."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _show(self, session: Session, metrics: Metrics | None = None) -> None:
        if self._bar is None:
            return
        done = session.step
        total = session.n_updates
        fields: dict[str, Any] = {"epoch": _format_position(session)}
        if session.samples_per_second:
            fields["rate"] = f"{session.samples_per_second:,.0f}/s"
        n_steps = session.step - self._first_step
        if n_steps > 0:
            elapsed = self._bar.tasks[0].elapsed or 0.0
            left = elapsed / n_steps * (total - done)
            fields["left"] = f"{_format_time(left)} left" if done < total else f"in {_format_time(elapsed)}"
        if metrics:
            room = self._bar.console.width - SHORTEST_BAR - len(" ".join(fields.values())) - 4
            fields["metrics"] = format_metrics(metrics, room)
        self._bar.update(self._task, completed=done, **fields)


def _format_position(session: Session) -> str:
    """Return `epoch  3/20  12/63`, epochs and batches. Its width is constant, so that the line stands still."""
    epoch_width = len(str(session.max_epochs))
    batch_width = len(str(session.n_batches))
    epoch = min(session.epoch + 1, session.max_epochs)
    batch = session.batch if session.epoch < session.max_epochs else session.n_batches
    return f"epoch {epoch:>{epoch_width}}/{session.max_epochs}  {batch:>{batch_width}}/{session.n_batches}"


def _format_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def format_metrics(metrics: Metrics, room: int) -> str:
    """Return as many metrics as fit into `room` characters, a validation score before the losses."""
    scores = [name for name in metrics if name.startswith("val/") and name != "val/loss"]
    wanted = [*scores[:1], "val/loss", "train/loss", *scores[1:]]
    line = ""
    for name in wanted:
        if name not in metrics:
            continue
        longer = f"{line}  {name} {tables.number(metrics[name])}".lstrip()
        if len(longer) > room:
            break
        line = longer
    return line


class EarlyStopping(Callback):
    """Stops when a validation metric has not improved by `min_delta` for `patience` epochs.

    Args:
        monitor: The validation metric.
        mode: Whether a smaller or a greater value is better.
        patience: Epochs to wait for an improvement.
        min_delta: The least change that counts as an improvement.

    Raises:
        ValueError: `monitor` is no validation metric.
    """

    def __init__(
        self,
        monitor: str = "val/loss",
        mode: Literal["min", "max"] = "min",
        patience: int = 5,
        min_delta: float = 0.0,
    ) -> None:
        if not monitor.startswith("val/"):
            raise ValueError(f"monitor {monitor!r} is not a val/ metric: stopping must not look at train or test")
        self.monitor = monitor
        self.sign = 1 if mode == "min" else -1
        self.patience = patience
        self.min_delta = min_delta
        self.best = math.inf
        self.waited = 0

    def epoch_end(self, session: Session, metrics: Metrics) -> None:
        """Compare the metric with the best one; ask the session to stop if the patience is over."""
        value = self.sign * metrics[self.monitor]
        if value < self.best - self.min_delta:
            self.best = value
            self.waited = 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            session.stop_reason = f"{self.monitor} did not improve for {count(self.waited, 'epoch')}"

    def state_dict(self) -> dict[str, object]:
        """Return the best value and the epochs since."""
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.best = state["best"]
        self.waited = state["waited"]


class GapStopping(Callback):
    """Stops when `val/loss` has exceeded `train/loss` by more than `gap` in `count` epochs altogether.

    This is the rule of the Padova homework 2. The count is never reset: the rule limits over-fitting, while
    `EarlyStopping` waits for progress.

    Args:
        gap: The difference of the losses that an epoch may have.
        count: The number of epochs with a greater difference that ends the training.

    Raises:
        ValueError: `count` is less than 1.
    """

    def __init__(self, gap: float = 0.1, count: int = 10) -> None:
        if count < 1:
            raise ValueError(f"count {count} is not at least 1")
        self.gap = gap
        self.count = count
        self.counted = 0

    def epoch_end(self, session: Session, metrics: Metrics) -> None:
        """Count the epoch if its gap is too large; ask the session to stop after `count` of them."""
        self.counted += metrics["val/loss"] - metrics["train/loss"] > self.gap
        if self.counted >= self.count:
            session.stop_reason = (
                f"val/loss was more than {self.gap} above train/loss in {count(self.counted, 'epoch')}"
            )

    def state_dict(self) -> dict[str, object]:
        """Return the number of epochs with too large a gap."""
        return {"counted": self.counted}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        self.counted = state["counted"]


class ModelSummary(Callback):
    """Writes tables/layers.csv at the start: output shape, parameters and operations of each layer.

    summary.json gets the operations of one item as `flops`. A learner without a torch model has no such table. The rows
    are those of `summarise_layers`.
    """

    def fit_start(self, session: Session) -> None:
        """Write the table."""
        learner = session.learner
        if not isinstance(learner, GradientLearner):
            return
        data = session.dataset.images or session.whole_dataset  # the inputs of the whole model
        rows = summarise_layers(learner.model, learner.task, next(iter(data.train.batches(1))))
        session.run.table("layers", rows)
        session.run.summary["flops"] = sum(row["flops"] for row in rows)


class FirstLayerFilters(Callback):
    """Draws the kernels of the first convolution at the end of the fit.

    Each kernel is scaled to its own minimum and maximum. A model without a convolution of images has no such figure.

    Args:
        channel: The input channel whose weights are drawn in grey (the Padova homework draws channel 0). None draws
            kernels of RGB images in colour, and channel 0 of other images.
        columns: Kernels in a row of the figure.
    """

    imports = plots.IMPORTS

    def __init__(self, channel: int | None = None, columns: int = 8) -> None:
        self.channel = channel
        self.columns = columns

    def fit_end(self, session: Session, tally: Tally, metrics: Metrics) -> None:
        """Draw the kernels."""
        weights = session.learner.weights()
        kernels = next((w.float().cpu() for w in weights.values() if w.dim() == 4), None)  # (filters, channels, h, w)
        if kernels is None:
            return
        n_channels = kernels.shape[1]
        if self.channel is None and n_channels == 3:
            chosen = kernels
            title = f"{len(kernels)} first-layer filters, RGB"
        else:
            channel = self.channel or 0
            chosen = kernels[:, channel % n_channels][:, None]
            title = f"{len(kernels)} first-layer filters, input channel {channel}"
        low = chosen.amin(dim=(1, 2, 3), keepdim=True)
        high = chosen.amax(dim=(1, 2, 3), keepdim=True)
        scaled = ((chosen - low) / (high - low).clamp(min=1e-12)).permute(0, 2, 3, 1).squeeze(3).numpy()
        rows = [
            {"filter": i, "channel": c, "row": y, "column": x, "weight": float(weight)}
            for (i, c, y, x), weight in np.ndenumerate(kernels.double().numpy())
        ]
        figure = image_plots.image_grid(list(scaled), self.columns, title)
        session.run.figure("first_layer_filters", figure, rows, session.step)


class LearningCurves(Callback):
    """Draws training and validation over the epochs: loss and main metric in one figure, the rest in another."""

    imports = plots.IMPORTS

    def fit_end(self, session: Session, tally: Tally, metrics: Metrics) -> None:
        """Draw both figures."""
        names = list(dict.fromkeys(name.partition("/")[2] for name in session.history[0]))
        monitor = str((session.run.config.get("trainer") or {}).get("monitor", "")).partition("/")[2]
        scores = [name for name in (monitor, "accuracy", *names) if name in names and name != "loss"]
        main = [name for name in ("loss", *scores[:1]) if name in names]
        rest = [name for name in names if name not in main]
        self._draw("learning_curves", main, session)
        if rest:
            self._draw("more_curves", rest, session)

    def _draw(self, name: str, measures: Sequence[str], session: Session) -> None:
        rows = [{"epoch": i, **epoch} for i, epoch in enumerate(session.history, 1)]
        figure, axes = plots.panels(measures, x="epoch")
        for axis, measure in zip(axes, measures, strict=True):
            columns = [f"{split}/{measure}" for split in ("train", "val")]  # each split keeps its colour
            plots.draw_curves(axis, rows, "epoch", columns, mark=session.best["epoch"])
        session.run.figure(name, figure, rows, session.step)


class ConfusionMatrix(Callback):
    """Draws the confusion matrix of the test split, with its counts."""

    imports = plots.IMPORTS

    def fit_end(self, session: Session, tally: Tally, metrics: Metrics) -> None:
        """Draw the matrix."""
        confusion = tally.get("confusion")
        if not isinstance(confusion, Confusion):
            return
        counts = confusion.counts.tolist()
        names = session.dataset.class_names or tuple(str(i) for i in range(len(counts)))
        rows: list[dict[str, object]] = []
        for name, row in zip(names, counts, strict=True):
            rows.append({"true": name, **dict(zip(names, row, strict=True))})
        title = f"{session.dataset.name} ({session.dataset.label}), test"
        session.run.figure("confusion_matrix", class_plots.confusion_matrix(counts, names, title), rows, session.step)
