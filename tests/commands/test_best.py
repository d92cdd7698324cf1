"""dl-lab best: the best setting of a sweep, and training it again over more seeds."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import yaml

from dl_lab.commands import best
from dl_lab.sweeps.results import comparison, outcome

GRID = {(lr, seed): lr + seed / 100 for lr in (0.5, 0.25, 0.75) for seed in (0, 1, 2)}


def test_best_shows_the_setting_its_figures_and_its_runs(command, make_sweep):
    folder = make_sweep(GRID)
    status, out, _ = command("best", "last")
    assert status == 0
    assert "Best by highest mean val/accuracy: lr=0.75." in out
    assert "0.760 ± 0.010" in out
    assert f"seed 2  {str(folder / '8_00000008')[-20:]}"[-20:] in out
    assert f"dl-lab best {folder.relative_to(folder.parents[3])} --retrain seed=0,1,2,3,4" in out


def test_a_wrong_metric_and_a_wrong_sweep_are_named(command, make_sweep, tmp_path):
    make_sweep(GRID)
    assert "selection may look at val/* only" in command("best", "abcd", "--metric", "test/accuracy")[2]
    assert "there are val/accuracy." in command("best", "abcd", "--metric", "val/loss")[2]
    (tmp_path / "empty").mkdir()
    for name, words in (("empty", "it has no sweep.yaml"), ("nothing", "There is no sweep 'nothing'")):
        status, _, error = command("best", name)
        assert status == 1
        assert words in error


SWEEP = ["dataset.source=generated", "dataset.n_generated=64", "trainer.max_epochs=1", "lanes=1", "threads=1"]


@pytest.fixture
def trained(tmp_path):
    words = [*SWEEP, "model=mlp,linear", "optimizer.lr=0.01", "seed=0,1"]
    line = [sys.executable, "-m", "dl_lab", "-m", *words]
    subprocess.run(line, cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


def test_retrain_is_a_sweep_of_the_best_setting(trained):
    line = [sys.executable, "-m", "dl_lab", "best", "last", "--retrain", "seed=0,1,2"]
    done = subprocess.run(line, cwd=trained, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second = sorted(trained.glob("outputs/sweeps/*/*/sweep.yaml"))
    plan = yaml.safe_load(second.read_text())
    assert [job["overrides"] for job in plan["jobs"]] == [["seed=0"], ["seed=1"], ["seed=2"]]
    assert "3 of 3 jobs done" in done.stdout
    old = {json.loads(path.read_text())["choices"]["model"]: path for path in first.parent.glob("*/env.json")}
    new = json.loads(next(second.parent.glob("0_*/env.json")).read_text())
    assert f"model={new['choices']['model']}." in done.stdout.partition("The next")[0]
    assert new["choices"]["model"] in old
    configs = first.with_name("configs.jsonl")  # as if the YAML had been edited since
    configs.write_text(configs.read_text().replace('"lr": 0.01', '"lr": 0.02'))
    done = subprocess.run(
        [*line[:3], "best", str(first.parent), *line[5:]], cwd=trained, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "The configs have changed since this sweep" in done.stderr


def test_a_retraining_leaves_out_the_fold_and_takes_the_users_words(make_sweep):
    folder = make_sweep({(lr, seed): lr + seed / 100 for lr in (0.5, 0.25) for seed in (0, 1)})
    for path in folder.glob("*/config.yaml"):
        config = yaml.safe_load(path.read_text())
        config["dataset"] = {"rows": {"fold": config["seed"]}}
        path.write_text(yaml.safe_dump({**config, "seed": 0}))
    plan = yaml.safe_load((folder / "sweep.yaml").read_text())
    for job in plan["jobs"]:
        job["overrides"] = [word.replace("seed=", "dataset.rows.fold=") for word in job["overrides"]]
    plan |= {"fixed": ["model=mlp", "trainer.max_epochs=2"], "replicates": ["dataset.rows.fold"]}
    (folder / "sweep.yaml").write_text(yaml.safe_dump(plan))
    about = comparison.compare(outcome.read(folder))
    assert about.best is not None
    kept = ["model=mlp", "trainer.max_epochs=2", "optimizer.lr=0.5"]
    assert best.retrain_words(about, about.best, ["seed=0,1,2"]) == [*kept, "seed=0,1,2"]
    folds = "dataset.rows.fold=0,1,2,3,4"
    assert best.retrain_words(about, about.best, [folds]) == [*kept, folds]
    longer = "trainer.max_epochs=9"
    assert best.retrain_words(about, about.best, [longer]) == ["model=mlp", "optimizer.lr=0.5", longer]


def test_retrain_with_outputs_reads_and_writes_in_that_folder(trained):
    (trained / "outputs").rename(trained / "elsewhere")
    line = [sys.executable, "-m", "dl_lab", "best", "last", "--outputs", "elsewhere", "--retrain", "seed=0,1"]
    done = subprocess.run(line, cwd=trained, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list(trained.glob("elsewhere/sweeps/*/*/sweep.yaml"))) == 2
    assert not (trained / "outputs").exists()
    typed = next(line for line in done.stdout.splitlines() if line.startswith("Retraining:"))
    assert "paths.output_dir=elsewhere" in typed, "the printed command must work pasted"
