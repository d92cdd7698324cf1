"""dl-lab runs."""

from __future__ import annotations

import csv
import io
import json
import shutil

import pytest


def test_newest_first_with_state_data_and_metrics(command, make_run):
    make_run(lr=0.1, metrics={"test/accuracy": 0.75, "val/accuracy": 0.8})
    make_run(lr=0.2, state="failed")
    make_run(lr=0.3, state="killed", n_logged=2)
    make_run(lr=0.4, state="running", label="generated", n_logged=3)
    status, out, _ = command("runs")
    rows = [line.split() for line in out.splitlines()[2:6]]
    assert status == 0
    assert [row[1] for row in rows] == ["running", "killed", "failed", "done"]
    assert "digits (generated)" in out.splitlines()[2]
    assert "3/5" in rows[0]
    assert "2/5" in rows[1]
    assert "0.7500" in rows[3]


def test_the_best_first(command, make_run):
    best = [make_run(metrics={"val/accuracy": value}) for value in (0.5, 0.9, 0.7)]
    status, out, _ = command("runs", "--sort", "val/accuracy", "--limit", "2")
    shown = [line.split()[0] for line in out.splitlines()[2:]]
    assert status == 0
    assert shown == [best[1].name.partition("_")[2], best[2].name.partition("_")[2]]


@pytest.mark.parametrize("width", [80, 120])
def test_fits_the_terminal(command, make_run, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    for i in range(4):
        make_run(lr=10.0**-i, seed=i, experiment="an_experiment_with_a_long_name", optimizer="sgd")
    _, out, _ = command("runs")
    assert max(map(len, out.splitlines())) <= width
    assert "an_experiment" in out


def test_the_other_forms_hold_everything(command, make_run):
    make_run(lr=0.1, seed=1, metrics={"test/accuracy": 0.123456789})
    make_run(lr=0.2, seed=2)
    table = json.loads(command("runs", "--json")[1])
    rows = list(csv.DictReader(io.StringIO(command("runs", "--csv")[1])))
    lines = command("runs", "--md")[1].splitlines()
    assert [row["optimizer.lr"] for row in table] == [0.2, 0.1]
    assert float(rows[1]["test/accuracy"]) == 0.123456789
    assert len(lines) == 4
    assert lines[0].startswith("| run | state |")


def test_a_run_of_which_little_was_written(command, make_run):
    folder = make_run(state="running", n_logged=2)
    for name in ("env.json", "config.yaml"):
        (folder / name).unlink()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "step"')  # as a kill leaves it
    status, out, _ = command("runs")
    assert status == 0
    assert "running" in out


def test_nothing_yet(command):
    status, out, _ = command("runs")
    assert status == 0
    assert "There are no runs under outputs yet" in out


def test_quick_for_200_runs_and_without_torch(cost, make_run):
    first = make_run(lr=0.125)
    for i in range(199):
        folder = shutil.copytree(first, first.with_name(f"11-00-00_{i:08x}"))
        text = (folder / "config.yaml").read_text().replace("0.125", f"{i / 1000}")
        (folder / "config.yaml").write_text(text)
    seconds, modules = cost("runs")
    assert seconds < 0.5
    assert not {"torch", "hydra", "numpy"} & modules
