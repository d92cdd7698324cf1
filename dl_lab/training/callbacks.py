"""What else happens during a fit: the progress bar, early stopping, and the figures at the end."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any, Literal

from dl_lab import plots
from dl_lab.training.trainer import Callback, Session
from dl_lab.types import Confusion, Metrics, Tally


class ProgressBar(Callback):
    """Epoch, batches, samples/s, time left and the newest metrics; silent where the output is no terminal."""

    def __init__(self) -> None:
        self._bar: Any = None

    def fit_start(self, session: Session) -> None:
        if not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]:>{task.fields[width]}}/{task.fields[max_epochs]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}"),
            console=Console(stderr=True),
            refresh_per_second=5,
        )
        width = len(str(session.max_epochs))
        self._task = self._bar.add_task(
            "",
            total=session.max_epochs * session.n_batches,
            completed=session.epoch * session.n_batches + session.batch,
            epoch=session.epoch + 1,
            width=width,
            max_epochs=session.max_epochs,
            rate="",
            metrics="",
        )
        self._bar.start()

    def progress(self, session: Session) -> None:
        if self._bar is not None:
            done = session.epoch * session.n_batches + session.batch
            rate = f"{session.samples_per_second:,.0f}/s"
            self._bar.update(self._task, completed=done, epoch=session.epoch + 1, rate=rate)

    def epoch_end(self, session: Session, metrics: Metrics) -> None:
        if self._bar is None:
            return
        shown = [name for name in ("train/loss", "val/loss", "val/accuracy") if name in metrics] or list(metrics)[:2]
        text = "  ".join(f"{name} {metrics[name]:.4f}" for name in shown)
        done, epoch = session.epoch * session.n_batches, min(session.epoch + 1, session.max_epochs)
        rate = f"{session.samples_per_second:,.0f}/s"
        self._bar.update(self._task, completed=done, epoch=epoch, rate=rate, metrics=text)

    def close(self, session: Session) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class EarlyStopping(Callback):
    """Stops when a validation metric has not improved by `min_delta` for `patience` epochs."""

    def __init__(
        self, monitor: str = "val/loss", mode: Literal["min", "max"] = "min", patience: int = 5, min_delta: float = 0.0
    ) -> None:
        if not monitor.startswith("val/"):
            raise ValueError(f"monitor {monitor!r} is not a val/ metric: stopping must not look at train or test")
        self.monitor, self.sign, self.patience, self.min_delta = monitor, 1 if mode == "min" else -1, patience, min_delta
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


class LearningCurves(Callback):
    """One figure per metric at the end: train and validation over the epochs."""

    def fit_end(self, session: Session, tally: Tally, metrics: Metrics) -> None:
        names = dict.fromkeys(name.partition("/")[2] for name in session.history[0])
        for name in names:
            rows = [{"epoch": i, **_only(name, epoch)} for i, epoch in enumerate(session.history, 1)]
            figure = plots.curves(rows, x="epoch", title=name, mark=session.best["epoch"])
            session.run.figure(f"curves_{name}", figure, rows, session.step)


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


def _only(name: str, metrics: Metrics) -> Metrics:
    return {key: value for key, value in metrics.items() if key.partition("/")[2] == name}
