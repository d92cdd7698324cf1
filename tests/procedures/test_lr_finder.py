"""The learning-rate finder: rates grow, the steepest fall is suggested, nothing is tested."""

from __future__ import annotations

import math

import pytest

from dl_lab.procedures.lr_finder import suggest
from dl_lab.runs.files import read_json, read_records


def test_the_steepest_fall_is_suggested():
    losses = [3.0, 2.9, 2.7, 1.5, 1.0, 1.1, 2.0]
    rows = [{"lr": 10.0 ** (i - 6), "smoothed": loss} for i, loss in enumerate(losses)]
    assert suggest(rows) == {"suggested_lr": pytest.approx(1e-3), "lr_of_least_loss": pytest.approx(1e-2)}


def test_it_runs_as_a_procedure(execute):
    folder, metrics = execute(
        "dataset.source=generated", "dataset.n_generated=256", "model.hidden=[8]", "procedure=lr_finder",
        "procedure.n_updates=20", "procedure.greatest=0.1", "optimizer=sgd", "logger=none",
    )  # fmt: skip
    assert 1e-6 <= metrics["suggested_lr"] <= 0.1
    rates = [record["lr"] for record in read_records(folder / "metrics.jsonl")]
    assert rates == sorted(rates) and math.isclose(rates[0], 1e-6)
    assert (folder / "figures" / "lr_finder.png").exists()
    assert "test_looks" not in read_json(folder / "summary.json")
