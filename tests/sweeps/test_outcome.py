"""compare SWEEP: groups over seeds, the best by validation, a baseline, and what is said where something is missing."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import pytest

from dl_lab import cli

GRID = {(lr, seed): lr + seed / 100 for lr in (0.5, 0.25, 0.75) for seed in (0, 1, 2)}


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            cli.main(list(words))
        return end.value.code or 0, *capsys.readouterr()

    return run


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_groups_over_seeds_best_first(command, make_sweep):
    folder = make_sweep(GRID)
    status, out, _ = command("compare", str(folder))
    assert status == 0
    assert "9 finished jobs: 3 settings that differ in lr, seeds 0, 1, 2 each." in out
    assert "Best by highest mean val/accuracy: lr=0.75. The next, lr=0.5, is 0.2500 behind" in out
    assert "0.760 ± 0.010" in out
    assert "looked at 9 times" in out
    found = rows(command("compare", "abcd", "--csv")[1])
    assert [row["optimizer.lr"] for row in found] == ["0.75", "0.5", "0.25"]
    assert [row["best"] for row in found] == ["True", "False", "False"]
    assert float(found[0]["val/accuracy/mean"]) == pytest.approx(0.76)
    assert float(found[0]["val/accuracy/std"]) == pytest.approx(0.01)


@pytest.mark.parametrize("width", ["60", "80", "120"])
def test_fits_the_width(command, make_sweep, monkeypatch, width):
    folder = make_sweep(GRID)
    monkeypatch.setenv("COLUMNS", width)
    out = command("compare", str(folder), "--baseline", "lr=0.5")[1]
    assert max(map(len, out.splitlines())) <= int(width)


def test_paired_with_a_baseline(command, make_sweep):
    noise = {0: 0.001, 1: -0.002, 2: 0.0}
    values = {(lr, seed): lr + seed / 10 + (noise[seed] if lr == 0.75 else 0) for lr, seed in GRID}
    folder = make_sweep(values)
    found = json.loads(command("compare", str(folder), "--baseline", "lr=0.5", "--json")[1])
    by_lr = {row["optimizer.lr"]: row for row in found}
    assert by_lr[0.75]["difference/difference"] == pytest.approx(0.25, abs=0.001)
    assert by_lr[0.75]["difference/p"] < 0.001  # the seeds' own spread of 0.1 is no noise of the comparison
    assert by_lr[0.75]["difference/smallest"] == 0.25
    assert by_lr[0.5]["baseline"]
    out = command("compare", str(folder), "--baseline", "optimizer.lr=0.50")[1]
    assert "Warning: 3 seeds are too few" in out
    assert "1 of 4 cases" in out


def test_six_seeds_need_no_warning(command, make_sweep):
    folder = make_sweep({(lr, seed): lr + seed / 100 for lr in (0.5, 0.25) for seed in range(6)})
    assert "Warning" not in command("compare", str(folder))[1]


@pytest.mark.parametrize("words", ["lr=9", "nothing=1", "", "lr"])
def test_a_wrong_baseline_lists_what_there_is(command, make_sweep, words):
    status, _, error = command("compare", str(make_sweep(GRID)), "--baseline", words)
    assert status == 1
    assert "  lr=0.25\n" in error


def test_test_cannot_choose(command, make_sweep):
    status, _, error = command("compare", str(make_sweep(GRID)), "--metric", "test/accuracy")
    assert status == 1
    assert "selection may look at val/* only" in error


def test_what_is_not_finished_is_in_no_mean(command, make_sweep):
    values = {**GRID, (0.75, 0): "failed", (0.75, 1): "interrupted", (0.25, 0): None}
    folder = make_sweep(values)
    (folder / "8_00000008" / "status.json").write_text('{"sta')
    out = command("compare", str(folder))[1]
    assert "1 failed, 1 interrupted, 1 unreadable, 1 not started" in out
    assert [row["n"] for row in rows(command("compare", str(folder), "--csv")[1])] == ["3", "2"]
    assert "not all over the same seeds" in out


def test_an_older_try_set_aside_counts_for_nothing(command, make_sweep):
    import shutil

    folder = make_sweep(GRID)
    shutil.copytree(folder / "0_00000000", folder / "set_aside" / "0_00000000-1")
    assert {row["n"] for row in rows(command("compare", str(folder), "--csv")[1])} == {"3"}


def test_no_results_yet_and_no_sweep(command, make_sweep, tmp_path):
    folder = make_sweep({(0.5, 0): "failed", (0.5, 1): None})
    status, _, error = command("compare", str(folder))
    assert (status, error.count("\n")) == (1, 1)
    assert "No job of" in error
    assert "(1 failed, 1 not started)" in error
    (folder / "sweep.yaml").write_text("jobs: [")
    status, _, error = command("compare", str(folder))
    assert status == 1
    assert "sweep.yaml is not a readable plan" in error
    status, _, error = command("compare", "7_0000", "--baseline", "lr=1")
    assert "--baseline needs a sweep" in error


def test_every_job_by_itself(command, make_sweep):
    folder = make_sweep(GRID)
    assert len(rows(command("compare", str(folder), "--each", "--csv")[1])) == 9


def test_answers_without_torch(make_sweep, tmp_path):
    folder = make_sweep(GRID)
    code = "import sys, atexit; from dl_lab import cli; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); "
    code += f"cli.main(['compare', {str(folder)!r}, '--baseline', 'lr=0.5'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    modules = set(done.stderr.split())
    assert "dl_lab.statistics" in modules
    assert not {"torch", "hydra", "scipy.stats", "matplotlib"} & modules
