"""The audit of the first hundred updates: what it calls rising, and that each rising experiment says why."""

from __future__ import annotations

import csv
import importlib
from pathlib import Path

import dl_lab.conf
import pytest

from dl_lab.jobs.reproduction import Item

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "docs" / "results" / "benchmarks" / "first_updates.csv"
EXPERIMENTS = Path(dl_lab.conf.__file__).parent / "experiment"


@pytest.fixture
def audit(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("first_updates")


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [
        ([2.0 - i / 100 for i in range(100)], "falls"),
        ([1.0 + i / 100 for i in range(100)], "rises"),  # higher at the end than at first
        ([4.3, 32.6, 20, 12, 9, 7, *[4.0] * 94], "rises"),  # VGG with He's initialisation: it explodes, then falls
        ([2.0, 2.6, *[1.5] * 98], "falls"),  # one bad batch
        ([-1.0 - i for i in range(100)], "falls"),  # a loss below zero
        ([1.0] * 5, "falls"),
    ],
)
def test_what_rises(audit, losses, verdict):
    assert audit.judge(losses)["loss"] == verdict
    assert audit.judge(losses)["updates"] == len(losses)


def test_only_the_first_hundred_updates_count(audit):
    row = audit.judge([2.0 - i / 100 for i in range(100)] + [50.0] * 100)
    assert (row["updates"], row["loss"]) == (100, "falls")


def test_a_run_is_stopped_after_its_updates(audit, tmp_path, monkeypatch):
    """ag_news_feedforward on generated data would do 40 epochs."""
    monkeypatch.setattr(audit.results, "planned", lambda names, outputs, words: [item_without_data(names[0])])
    monkeypatch.setattr(audit, "N_UPDATES", 3)
    row = audit.look("ag_news_feedforward", tmp_path, 60)
    assert row is not None
    assert row["updates"] == 3
    assert row["data"] == "ag_news (generated)"


def item_without_data(name):
    return Item(name, ("dataset.source=generated", "trainer.batch_size=8"), 0, "run")


def rising():
    with TABLE.open(encoding="utf-8", newline="") as file:
        return [row["experiment"] for row in csv.DictReader(file) if row["loss"] == "rises"]


@pytest.mark.parametrize("name", rising())
def test_an_experiment_whose_loss_rises_says_why(name):
    text = (EXPERIMENTS / f"{name}.yaml").read_text(encoding="utf-8")
    assert "first hundred updates" in text.replace("\n# ", " ")
