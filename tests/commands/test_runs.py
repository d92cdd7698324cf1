"""dl-lab runs."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil

import pytest


def test_the_newest_run_comes_first_with_state_data_and_metrics(command, make_run):
    make_run(lr=0.1, metrics={"test/accuracy": 0.75, "val/accuracy": 0.8})
    make_run(lr=0.2, state="failed")
    make_run(lr=0.3, state="killed", n_logged=2)
    make_run(lr=0.4, state="running", label="generated", n_logged=3)
    status, out, _ = command("runs")
    rows = [line.split() for line in out.splitlines()[2:6]]
    assert status == 0
    assert [row[1] for row in rows] == ["running", "killed", "failed", "done"]
    assert "mlp on digits lr=0.4 (generated)" in out.splitlines()[2]
    assert "3/5" in rows[0]
    assert "2/5" in rows[1]
    assert "0.8000" in rows[3]
    assert rows[3][2:4] == ["01-02", "10:00"]


def test_the_best_run_comes_first(command, make_run):
    best = [make_run(metrics={"val/accuracy": value}) for value in (0.5, 0.9, 0.7)]
    status, out, _ = command("runs", "--sort", "val/accuracy", "--limit", "2")
    shown = [line.split()[0] for line in out.splitlines()[2:]]
    assert status == 0
    assert shown == [best[1].name.partition("_")[2], best[2].name.partition("_")[2]]


def whole_rows(table: str) -> list[str]:
    """The rows of a table, the lines of each joined."""
    rows: list[str] = []
    lines = table.splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("run "))
    for line in lines[header + 1 :]:
        if line.startswith(" "):
            rows[-1] += f" {line.strip()}"
        elif line and not line.startswith("Left out"):
            rows.append(line)
    return rows


@pytest.mark.parametrize("width", [80, 120])
def test_rows_fit_the_terminal_and_can_be_told_apart(command, make_run, make_sweep, monkeypatch, width):
    for i in range(4):
        make_run(lr=10.0**-i, seed=i, experiment="an_experiment_of_considerable_length", optimizer="sgd")
    make_run(state="interrupted")
    make_run(state="failed", dataset="octmnist")
    make_sweep({(lr, seed): 0.5 + lr for lr in (0.1, 0.01) for seed in (0, 1)} | {(1.0, 0): "failed"})
    monkeypatch.setenv("COLUMNS", str(width))
    _, out, _ = command("runs")
    assert max(map(len, out.splitlines())) <= width
    for title in ("run", "state", "started", "took", "sweep", "accuracy", "what"):
        assert title in out.splitlines()[1]
    rows = whole_rows(out)
    assert len(rows) == 11
    assert len({row[8:] for row in rows}) == 11, "the ids alone do not tell them apart"
    assert sum("abcd1" in row for row in rows) == 5
    assert sum("lr=0.01 seed=1" in row for row in rows) == 1
    assert any("octmnist" in row and "mlp on" in row for row in rows)
    joined = re.sub(r"(?<=_)\n +", "", out)
    assert joined.split().count("an_experiment_of_considerable_length") == 4, "a name breaks after its marks only"
    assert "n_classes" not in out, "a setting that no command line named is left out where the others suffice"


def test_settings_of_equal_command_lines_are_shown_where_they_differ(command, make_run):
    for hidden in (8, 16):
        config = make_run(experiment="one") / "config.yaml"
        config.write_text(config.read_text().replace("- 8", f"- {hidden}"))
    rows = whole_rows(command("runs")[1])
    assert ["hidden=[16]" in rows[0], "hidden=[8]" in rows[1]] == [True, True]


def test_each_run_shows_the_metric_that_it_monitors(command, make_run):
    make_run(metrics={"val/accuracy": 0.5, "test/accuracy": 0.25})
    make_run(metrics={"val/mae": 0.125, "test/mae": 0.25}, experiment="other")
    rows = whole_rows(command("runs")[1])
    assert rows[0].endswith("other: val/mae 0.1250")
    assert rows[1].endswith("mlp on digits: val/accuracy 0.5000")


def test_states_have_colours_on_a_terminal_only(command, make_run, monkeypatch):
    make_run(state="failed")
    assert "\033[" not in command("runs")[1]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert "\033[31mfailed" in command("runs")[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033[" not in command("runs")[1]


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


def test_a_run_with_few_files_is_listed(command, make_run):
    folder = make_run(state="running", n_logged=2)
    for name in ("env.json", "config.yaml"):
        (folder / name).unlink()
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "step"')  # as a kill leaves it
    status, out, _ = command("runs")
    assert status == 0
    assert "running" in out


def test_an_empty_folder_says_how_to_begin(command):
    status, out, _ = command("runs")
    assert status == 0
    assert "There are no runs under outputs yet" in out


def test_reads_few_files_of_200_runs_and_imports_no_torch(cost, make_run):
    first = make_run(lr=0.125)
    for i in range(199):
        folder = shutil.copytree(first, first.with_name(f"11-00-00_{i:08x}"))
        text = (folder / "config.yaml").read_text().replace("0.125", f"{i / 1000}")
        (folder / "config.yaml").write_text(text)
    spent = cost("runs")
    assert not {"torch", "hydra", "numpy"} & spent.modules
    assert len(spent.files) <= 200 * 6, "it reads few files of a run, each once or twice"
    assert spent.processes == []
