"""The progress bar: one line, never wider than the terminal; where there is no terminal, lines of whole epochs."""

from __future__ import annotations

import io
import re
import sys
from typing import Any

import pytest

from dl_lab.training.callbacks import ProgressBar, format_metrics
from dl_lab.training.distributed import World
from dl_lab.training.trainer import Session

METRICS = {"train/loss": 0.5, "train/accuracy": 0.8, "val/loss": 0.4, "val/accuracy": 0.87, "val/f1": 0.5}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def epochs(bar: ProgressBar, n_epochs: int = 12, n_batches: int = 1250) -> None:
    nothing: Any = None
    session = Session(nothing, nothing, nothing, max_epochs=n_epochs, batch_size=8, n_batches=n_batches)
    bar.fit_start(session)
    for _ in range(n_epochs):
        session.batch, session.samples_per_second = n_batches // 2, 123_456.7
        session.step += session.batch
        bar.progress(session)
        session.step += n_batches - session.batch
        session.epoch, session.batch = session.epoch + 1, 0
        bar.epoch_end(session, METRICS)
    bar.close(session)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_one_line_that_fits(monkeypatch, width):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    epochs(ProgressBar())
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    last = re.split(r"[\r\n]+", plain.strip())[-1]
    lines = [line for line in re.split(r"[\r\n]+", plain) if line.strip()]
    assert all(len(line) <= width for line in lines)
    assert last.startswith("epoch 12/12  1250/1250 ")
    assert "123,457/s" in last
    assert "…" not in last
    assert ("val/accuracy 0.8700" in last) == (width >= 80)
    assert ("train/loss 0.5000" in last) == (width >= 120)


def test_without_a_terminal_quick_epochs_share_a_plain_line_and_the_last_one_is_printed(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    monkeypatch.setattr("dl_lab.training.callbacks.LINE_SECONDS", 1e9)
    monkeypatch.setattr("dl_lab.training.callbacks.time.monotonic", lambda: 2e9)
    epochs(ProgressBar())
    first, last = file.getvalue().splitlines()
    assert first.startswith("epoch  1/12  val/accuracy 0.8700  val/loss 0.4000") and first.endswith("123,457/s")
    assert last.startswith("epoch 12/12  ")


def test_max_steps_shortens_the_bar():
    nothing: Any = None
    session = Session(nothing, nothing, nothing, max_epochs=3, batch_size=8, n_batches=100, max_steps=250)
    assert session.n_updates == 250
    session.max_steps = 1000
    assert session.n_updates == 300


def test_only_the_first_process_prints_lines(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(sys, "stderr", file)
    monkeypatch.setattr("dl_lab.training.callbacks.world", lambda: World(rank=1, size=2))
    epochs(ProgressBar())
    assert file.getvalue() == ""


@pytest.mark.parametrize(
    ("room", "shown"),
    [
        (10, ""),
        (19, "val/accuracy 0.8700"),
        (36, "val/accuracy 0.8700  val/loss 0.4000"),
        (200, "val/accuracy 0.8700  val/loss 0.4000  train/loss 0.5000  val/f1 0.5000"),
    ],
)
def test_as_many_metrics_as_fit(room, shown):
    assert format_metrics(METRICS, room) == shown
