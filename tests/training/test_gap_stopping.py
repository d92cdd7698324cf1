"""The source's stopping rule: epochs with a large gap are counted and never forgotten."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from dl_lab.training.callbacks import EarlyStopping, GapStopping


def stopped_after(callback, gaps):
    session = SimpleNamespace(stop_reason="")
    for epoch, gap in enumerate(gaps, 1):
        callback.epoch_end(session, {"train/loss": 1.0, "val/loss": 1.0 + gap})
        if session.stop_reason:
            return epoch
    return None


def test_counts_without_reset():
    gaps = [0.2, 0.0, 0.2, 0.0, 0.0, 0.2, 0.2]
    assert stopped_after(GapStopping(gap=0.1, count=3), gaps) == 6
    assert stopped_after(GapStopping(gap=0.1, count=5), gaps) is None


def test_gap_itself_does_not_count():
    assert stopped_after(GapStopping(gap=0.5, count=1), [0.5]) is None
    assert stopped_after(GapStopping(gap=0.5, count=1), [0.5, 0.75]) == 2


def test_is_not_the_rule_of_patience():
    """A validation loss that keeps falling, but lags behind: only the gap rule stops."""
    session = SimpleNamespace(stop_reason="")
    patience = EarlyStopping(patience=2)
    for epoch in range(10):
        patience.epoch_end(session, {"val/loss": 1.0 - epoch / 100, "train/loss": 0.1})
    assert not session.stop_reason
    assert stopped_after(GapStopping(count=10), [0.9] * 10) == 10


def test_state_continues():
    first, second = GapStopping(gap=0.1, count=3), GapStopping(gap=0.1, count=3)
    assert stopped_after(first, [0.2, 0.2]) is None
    second.load_state_dict(first.state_dict())
    assert stopped_after(second, [0.2]) == 1


def test_count_must_be_positive():
    with pytest.raises(ValueError, match="count 0"):
        GapStopping(count=0)


def test_stops_a_run(execute):
    folder, _ = execute(
        "experiment=ag_news_early_stopping", "profile=smoke", "logger=none", "trainer.max_epochs=9",
        "callbacks.gap_stopping.gap=-100", "callbacks.gap_stopping.count=3",
    )  # fmt: skip
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["epochs"] == 3
    assert "val/loss was more than -100 above" in summary["stop_reason"]
