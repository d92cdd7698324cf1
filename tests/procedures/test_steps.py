"""The steps of an analysis: on a terminal, off a terminal, and for the sweep that runs it."""

from __future__ import annotations

import sys
import time

import pytest

from dl_lab.datasets import progress
from dl_lab.procedures.steps import steps
from dl_lab.runs.board import NoBoard
from dl_lab.runs.recorder import Run


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", {}, {}, NoBoard(), {})


def test_the_sweep_hears_of_every_step(run):
    told = []
    run.on_progress = told.append
    assert list(steps(run, "abc", "letters")) == ["a", "b", "c"]
    assert [(one.done, one.total, one.max_epochs) for one in told] == [(0, 3, 0), (1, 3, 0), (2, 3, 0)]


def test_off_a_terminal_a_line_now_and_then(run, monkeypatch, capsys):
    assert list(steps(run, range(5), "quick work")) == [0, 1, 2, 3, 4]
    assert capsys.readouterr().err == "", "quick work says nothing"
    times = iter(range(0, 100, 4))
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    list(steps(run, range(5), "slow work"))
    assert capsys.readouterr().err.splitlines() == ["slow work: 2 of 5"]


def test_on_a_terminal_a_bar_that_counts(run, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    seen = []
    for item in steps(run, range(3), "work"):
        seen.append(item)
        time.sleep(0.25)
    assert seen == [0, 1, 2]
    shown = capsys.readouterr().err
    assert "work" in shown
    assert "1/3" in shown


def test_the_lines_of_items_without_a_known_number(monkeypatch, capsys):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    list(progress.show_progress(iter("ab"), None, "reading"))
    assert capsys.readouterr().err.splitlines() == ["reading: 0", "reading: 1"]
