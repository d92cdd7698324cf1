"""compare SWEEP: settings over seeds, the best by validation, a baseline, and sentences about what is missing."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import pytest
import yaml

from dl_lab import cli
from dl_lab.runs.records import Record

GRID = {(lr, seed): lr + seed / 100 for lr in (0.5, 0.25, 0.75) for seed in (0, 1, 2)}


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*words: str) -> tuple[int, str, str]:
        status = cli.main(list(words))
        return status, *capsys.readouterr()

    return run


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_settings_are_compared_over_seeds_the_best_first(command, make_sweep):
    folder = make_sweep(GRID)
    status, out, _ = command("compare", str(folder))
    assert status == 0
    assert "9 finished jobs: 3 settings that differ in lr, seeds 0, 1, 2 each." in out
    assert "Best by highest mean val/accuracy: lr=0.75. The next, lr=0.5, is 0.2500 behind" in out
    assert "0.760 ± 0.010" in out
    assert "looked at the test split 9 times" in out
    found = rows(command("compare", "abcd", "--csv")[1])
    assert [row["optimizer.lr"] for row in found] == ["0.75", "0.5", "0.25"]
    assert [row["best"] for row in found] == ["True", "False", "False"]
    assert float(found[0]["val/accuracy/mean"]) == pytest.approx(0.76)
    assert float(found[0]["val/accuracy/std"]) == pytest.approx(0.01)


def test_accuracy_parameters_and_time_stand_side_by_side(command, make_sweep):
    """Jobs of 9, 8 and 7 seconds, a model of 1,650 parameters of which 650 are trained."""
    folder = make_sweep(GRID)
    best = next(line for line in command("compare", str(folder))[1].splitlines() if line.startswith("*"))
    assert best.index("0.760") < best.index("1,650") < best.index("8s")
    found = rows(command("compare", str(folder), "--csv")[1])
    assert [(row["parameters"], row["trainable"], row["seconds/mean"]) for row in found] == [("1650", "650", "8.0")] * 3
    markdown = command("compare", str(folder), "--md")[1]
    assert "| parameters | time of a job |" in markdown
    each = rows(command("compare", str(folder), "--each", "--csv")[1])
    assert [row["seconds"] for row in each] == ["9", "8", "7"] * 3
    assert "parameters" not in each[0], "the same in all jobs"


def test_records_are_not_compared_with_each_other(command, make_sweep, monkeypatch):
    """Each with every other one takes minutes for 10,000 jobs."""

    def refuse(self, other):
        raise AssertionError("a record is compared with another one")

    folder = make_sweep(GRID)
    monkeypatch.setattr(Record, "__eq__", refuse)
    for words in (["compare", str(folder)], ["compare", str(folder), "--each"], ["report", str(folder)]):
        assert command(*words)[0] == 0


@pytest.mark.parametrize("width", ["60", "80", "120"])
def test_the_answer_fits_the_width(command, make_sweep, monkeypatch, width):
    folder = make_sweep(GRID)
    monkeypatch.setenv("COLUMNS", width)
    out = command("compare", str(folder), "--baseline", "lr=0.5")[1]
    assert max(map(len, out.splitlines())) <= int(width)


def test_settings_are_paired_with_a_baseline(command, make_sweep):
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
def test_a_wrong_baseline_lists_the_settings(command, make_sweep, words):
    status, _, error = command("compare", str(make_sweep(GRID)), "--baseline", words)
    assert status == 1
    assert "  lr=0.25\n" in error


def test_the_test_split_cannot_choose_the_best(command, make_sweep):
    status, _, error = command("compare", str(make_sweep(GRID)), "--metric", "test/accuracy")
    assert status == 1
    assert "selection may look at val/* only" in error


def test_unfinished_jobs_count_in_no_mean(command, make_sweep):
    values = {**GRID, (0.75, 0): "failed", (0.75, 1): "interrupted", (0.25, 0): None}
    folder = make_sweep(values)
    (folder / "8_00000008" / "status.json").write_text('{"sta')
    out = command("compare", str(folder))[1]
    assert "1 failed, 1 interrupted, 1 unreadable, 1 not started" in out
    assert [row["n"] for row in rows(command("compare", str(folder), "--csv")[1])] == ["3", "2", "0"]
    assert "not all over the same seeds" in out


def test_an_earlier_try_that_was_set_aside_does_not_count(command, make_sweep):
    import shutil

    folder = make_sweep(GRID)
    shutil.copytree(folder / "0_00000000", folder / "set_aside" / "0_00000000-1")
    assert {row["n"] for row in rows(command("compare", str(folder), "--csv")[1])} == {"3"}


def test_a_sweep_without_results_and_a_missing_sweep_are_named(command, make_sweep, tmp_path):
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


def test_compare_of_jobs_shows_each_by_itself(command, make_sweep):
    folder = make_sweep(GRID)
    assert len(rows(command("compare", str(folder), "--each", "--csv")[1])) == 9


def test_compare_does_not_import_torch(make_sweep, tmp_path):
    folder = make_sweep(GRID)
    code = "import sys, atexit; from dl_lab import cli; atexit.register(lambda: print(*sys.modules, file=sys.stderr)); "
    code += f"sys.exit(cli.main(['compare', {str(folder)!r}, '--baseline', 'lr=0.5']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    modules = set(done.stderr.split())
    assert "dl_lab.show.statistics" in modules
    assert not {"torch", "hydra", "scipy.stats", "matplotlib"} & modules


def test_a_setting_with_a_diverged_seed_ranks_last(command, make_sweep):
    values = {**GRID, (0.75, 1): float("nan")}
    folder = make_sweep(values)
    found = rows(command("compare", str(folder), "--csv")[1])
    assert [row["optimizer.lr"] for row in found] == ["0.5", "0.25", "0.75"]
    assert "(2 of 3)" in command("compare", str(folder))[1]


def rewrite_as_folds(folder, declare: bool) -> None:
    """Turn the seeds of a made sweep into the folds of a data set."""
    plan = yaml.safe_load((folder / "sweep.yaml").read_text())
    for job in plan["jobs"]:
        run = folder / f"{job['number']}_{job['id']}"
        config = yaml.safe_load((run / "config.yaml").read_text())
        fold = config["seed"]
        config["seed"] = 0
        config["trainer"]["seed"] = 0
        config["dataset"] = {"fold": fold, "scale": 10 + fold}  # learned from the fold: no setting
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        job["overrides"] = [word.replace("seed=", "dataset.fold=") for word in job["overrides"]]
        (run / ".hydra" / "overrides.yaml").write_text("".join(f"- {word}\n" for word in job["overrides"]))
    if declare:
        plan["replicates"] = ["dataset.fold"]
    (folder / "sweep.yaml").write_text(yaml.safe_dump(plan))


FOLDS = {(lr, fold): 0.5 + lr / 2 + fold / 100 for lr in (0.1, 0.2) for fold in range(3)}


def test_folds_are_settings_until_the_user_names_them_as_replicates(command, make_sweep):
    folder = make_sweep(FOLDS)
    rewrite_as_folds(folder, declare=False)
    assert "6 finished jobs, one of each setting; they differ in fold and lr" in command("compare", str(folder))[1]
    status, out, _ = command("compare", str(folder), "--over", "fold")
    assert status == 0
    assert "6 finished jobs: 2 settings that differ in lr, folds 0, 1, 2 each." in out
    assert "paired by fold; over 3 folds" in " ".join(out.split())
    assert "Folds share training data, so their results are not independent" in " ".join(out.split())
    assert "Warning: 3 folds are too few" in " ".join(out.split())
    rows = json.loads(command("compare", str(folder), "--over", "dataset.fold", "--json")[1])
    assert [(row["optimizer.lr"], row["n"]) for row in rows] == [(0.2, 3), (0.1, 3)]
    assert rows[0]["val/accuracy/mean"] == pytest.approx(0.61)
    status, _, err = command("compare", str(folder), "--over", "fodl")
    assert (status, "--over fodl: no key of this name varies in this sweep; " in err) == (1, True)
    assert command("compare", "--over", "fold")[0] == 1


def test_a_sweep_may_declare_its_folds_as_replicates(command, make_sweep):
    folder = make_sweep(FOLDS)
    rewrite_as_folds(folder, declare=True)
    assert "2 settings that differ in lr, folds 0, 1, 2 each." in command("compare", str(folder))[1]
    assert "lr=0.2" in command("best", str(folder))[1]


def test_folds_and_seeds_are_replicates_together(command, make_sweep):
    folder = make_sweep(FOLDS)
    rewrite_as_folds(folder, declare=True)
    for path in sorted(folder.glob("*_*/config.yaml"))[3:]:  # the second rate becomes the second seed of the first
        config = yaml.safe_load(path.read_text())
        config["seed"] = 1
        config["optimizer"]["lr"] = 0.1
        path.write_text(yaml.safe_dump(config))
    out = " ".join(command("compare", str(folder))[1].split())
    assert "6 finished jobs that differ in the seed and fold only (seeds 0, 1 and folds 0, 1, 2)." in out
