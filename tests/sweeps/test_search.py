"""Searches: spaces and studies alone, and as a user runs them, killed and continued."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import yaml

from dl_lab import configs
from dl_lab.commands.sweep import main
from dl_lab.sweeps import grid, journal, search
from dl_lab.sweeps.space import Space, parse_space
from dl_lab.types import ConfigError, Pruned, UserError

FAST = [
    "dataset.source=generated",
    "dataset.n_generated=256",
    "trainer.batch_size=16",
    "trainer.max_epochs=3",
    "trainer.checkpoint_seconds=0",
    "callbacks.curves=null",
    "callbacks.confusion_matrix=null",
    "threads=1",
]
RATE = "optimizer.lr=tag(log,interval(1e-4,1e-1))"


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "dl_lab", "-m", *FAST, *arguments],
        cwd=folder,
        env={**os.environ, "COLUMNS": "120", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str]:
    text, _ = process.communicate(timeout=120)
    assert "Traceback" not in text, text
    return process.returncode, text


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    return finish(start(folder, *arguments))


def plan_of(folder: Path) -> tuple[Path, dict]:
    (path,) = folder.glob("outputs/sweeps/*/*/sweep.yaml")
    return path.parent, yaml.safe_load(path.read_text())


def jobs(folder: Path) -> list[Path]:
    root, plan = plan_of(folder)
    return [root / f"{job['number']}_{job['id']}" for job in plan["jobs"]]


def state(job: Path) -> str:
    return json.loads((job / "status.json").read_text())["state"]


# -- spaces -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def composer() -> configs.Composer:
    return configs.Composer()


def space(composer: configs.Composer, *words: str, spec: dict | None = None) -> Space:
    return parse_space(grid.expand(composer.loader, words, {}, spec, searching=True).ranges)


def test_hydras_words_become_optunas_distributions(composer):
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    words = [RATE, "a=interval(0,1)", "b=int(interval(1,8))", "c=range(8,65,8)", "d=choice(x,y)", "e=[1],[2,3]"]
    found = space(composer, *words).distributions
    assert found == {
        "optimizer.lr": FloatDistribution(1e-4, 1e-1, log=True),
        "a": FloatDistribution(0, 1),
        "b": IntDistribution(1, 8),
        "c": IntDistribution(8, 64, step=8),
        "d": CategoricalDistribution(["x", "y"]),
        "e": CategoricalDistribution(["[1]", "[2,3]"]),
    }


def test_the_command_line_wins_over_the_space_of_a_sweep_file(composer):
    spec = {"space": {"optimizer.lr": "interval(0.1, 0.2)", "seed": "range(3)"}, "grid": {"model": ["mlp", "linear"]}}
    found = space(composer, RATE, spec=spec)
    assert dict(found.words) == {
        "optimizer.lr": "tag(log,interval(1e-4,1e-1))",
        "seed": "range(3)",
        "model": "mlp,linear",
    }


def test_probes_hold_every_alternative_and_both_ends(composer):
    probes = space(composer, "a=interval(0,1)", "b=x,y,z").probes()
    assert probes == [["a=0.0", "b=x"], ["a=1.0", "b=y"], ["a=0.0", "b=z"]]


def test_a_grid_search_has_every_combination(composer):
    found = space(composer, "a=1,2", "b=range(2)").combinations()
    assert found == [{"a": "1", "b": 0}, {"a": "1", "b": 1}, {"a": "2", "b": 0}, {"a": "2", "b": 1}]
    with pytest.raises(ConfigError, match="values for a, not a range"):
        space(composer, "a=interval(0,1)").combinations()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([RATE], "an interval is for a search: add search=tpe"),
        (["search=tpe"], "nothing to vary"),
        (["search=tpe", "optimizer.lr=interval(1,0)"], "optimizer.lr: "),
        (["search=tpe", "optimizer.lr=tag(lgo,interval(0.1,1))"], "no tag 'lgo'"),
        (["search=tpe", RATE, "objective=test/accuracy"], "must not look at train or test"),
        (["search=tpe", RATE, "n_trials=0"], "n_trials=0"),
        (["search=tpe", RATE, "search.n_startup_trails=3"], "n_startup_trials"),
        (["search=tpe", RATE, "--zip", "seed=0,1 trainer.log_steps=1,2"], "A search has no zip"),
        (["search=tpe", "optimizer.lr=0.1,-1"], "A job with optimizer.lr=-1: "),
        (["seed=0,1", "--join"], "--join is for a search"),
        (["search=tpe", RATE, "--join"], "not started yet"),
    ],
)
def test_a_wrong_search_is_refused_before_anything_is_written(words, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        main([*FAST, *words])
    assert says in str(error.value)
    assert not list(tmp_path.glob("outputs/sweeps/*/*/*/status.json"))


# -- studies ------------------------------------------------------------------------------------------------------


def make(folder: Path, composer: configs.Composer, sampler: str = "tpe", seed: int = 0, n: int = 6) -> search.Search:
    words = ["optimizer.lr=tag(log,interval(1e-4,1e-1))", "a=interval(0,1)"]
    node = configs.plain(composer.load([f"search={sampler}"]).search)
    folder.mkdir(exist_ok=True)
    study = search.Search(
        folder, space(composer, *words), configs.build_checked(node, "search"), n, seed, "val/loss", "min"
    )
    study.open()
    return study


def drawn(study: search.Search, n: int, folder: Path) -> list[list[str]]:
    """Ask n times, and tell a value that depends on what was drawn."""
    found = []
    for _ in range(n):
        number, words = study.ask(lambda number, words: {}) or pytest.fail("no trial left")
        job = folder / str(number)
        job.mkdir()
        value = abs(float(words[1].partition("=")[2]) - 0.3)
        (job / "status.json").write_text('{"state": "done"}')
        (job / "summary.json").write_text(json.dumps({"metrics": {"val/loss": value}}))
        assert study.tell(number, job) == "done"
        found.append(words)
    return found


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes"])
def test_a_search_is_a_function_of_its_own_seed_also_when_interrupted(sampler, composer, tmp_path):
    whole = drawn(make(tmp_path / "whole", composer, sampler, n=14), 14, tmp_path / "whole")
    part = drawn(make(tmp_path / "part", composer, sampler, n=14), 5, tmp_path / "part")
    rest = drawn(make(tmp_path / "part", composer, sampler, n=14), 9, tmp_path / "part")  # a new process
    assert part + rest == whole
    assert len({tuple(words) for words in whole}) == 14
    other = drawn(make(tmp_path / "other", composer, sampler, seed=1, n=14), 14, tmp_path / "other")
    assert other != whole


def test_n_trials_is_a_total_and_failed_trials_may_be_repeated(composer, tmp_path):
    study = make(tmp_path / "s", composer, n=3)
    drawn(study, 2, tmp_path / "s")
    number, words = study.ask(lambda number, words: {}) or pytest.fail("no trial left")
    failed = tmp_path / "s" / "failed"
    failed.mkdir()
    (failed / "status.json").write_text('{"state": "failed"}')
    assert study.tell(number, failed) == "failed"
    assert study.ask(lambda number, words: {}) is None
    assert study.retry_failed() == 1
    assert study.retry_failed() in (0, 1)
    again = study.ask(lambda number, words: {})
    assert again is not None
    assert again == (3, words)


@pytest.mark.parametrize("sampler", ["random", "tpe", "cmaes"])
def test_a_kill_while_a_trial_begins_changes_nothing(composer, tmp_path, sampler, monkeypatch):
    """The trial is recorded whole or not at all: the next start draws the same values under the same number."""
    whole = drawn(make(tmp_path / "whole", composer, sampler=sampler), 6, tmp_path / "whole")
    killed = make(tmp_path / "killed", composer, sampler=sampler)
    first = drawn(killed, 3, tmp_path / "killed")
    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(killed.study, "add_trial", lambda trial: (_ for _ in ()).throw(KeyboardInterrupt))
        killed.ask(lambda number, words: {})
    again = make(tmp_path / "killed", composer, sampler=sampler)
    assert [*first, *drawn(again, 3, tmp_path / "killed")] == whole


def test_a_queued_trial_whose_process_was_killed_is_queued_again(composer, tmp_path):
    study = make(tmp_path / "s", composer)
    study.study.enqueue_trial({"optimizer.lr": 0.05, "a": 0.5})
    study.study.ask(dict(study.space.distributions))  # begun, and killed before anything else of it was written
    number, words = study.ask(lambda number, words: {}) or pytest.fail("no trial left")
    assert (number, words) == (1, ["optimizer.lr=0.05", "a=0.5"])
    assert study._count_started() == 1


def test_another_space_is_refused(composer, tmp_path):
    make(tmp_path / "s", composer)
    study = search.Search(
        tmp_path / "s", space(composer, RATE), partial(search.EveryCombination), 3, 0, "val/loss", "min"
    )
    with pytest.raises(UserError, match="another space"):
        study.open()


def test_a_job_reports_and_is_pruned(composer, tmp_path):
    study = make(tmp_path / "s", composer)
    pruner = {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 1, "n_warmup_steps": 0}
    build = partial(configs.build_checked, name="pruner")
    ended, said = [], ""
    for value in (0.5, 0.9):
        number, _ = study.ask(lambda number, words: {}) or pytest.fail("no trial left")
        job = tmp_path / "s" / str(number)
        job.mkdir()
        (job / journal.REPORT_FILE).write_text(json.dumps(study.report_file(number, pruner)))
        report = journal.make_reporter(job, build) or pytest.fail("no pruner")
        try:
            report(1, {"val/loss": value})
            report = journal.make_reporter(job, build) or pytest.fail("no pruner")  # killed and continued
            report(1, {"val/loss": value})
            (job / "status.json").write_text('{"state": "done"}')
            (job / "summary.json").write_text(json.dumps({"metrics": {"val/loss": value}}))
        except Pruned as pruned:
            said = str(pruned)
            (job / "status.json").write_text('{"state": "pruned"}')
        ended.append(study.tell(number, job))
    assert ended == ["done", "pruned"]
    assert "after epoch 1, with val/loss 0.9" in said
    assert [trial.state.name for trial in study.trials()] == ["COMPLETE", "PRUNED"]


def test_a_pruner_may_be_successive_halving_and_other_jobs_do_not_report(composer, tmp_path):
    node = configs.plain(composer.load(["search=tpe", "pruner=successive_halving"]).pruner)
    assert type(configs.build_checked(node, "pruner")).__name__ == "SuccessiveHalvingPruner"
    assert journal.make_reporter(tmp_path, lambda node: None) is None


# -- as a user ----------------------------------------------------------------------------------------------------

SEARCH = ["search=tpe", "search.n_startup_trials=2", "n_trials=6", RATE, "lanes=1"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """An undisturbed search."""
    folder = tmp_path_factory.mktemp("whole")
    code, text = run(folder, *SEARCH)
    assert code == 0, text
    return folder


def outcomes(folder: Path) -> list[tuple[str, bytes]]:
    return [(job.name, (job / "metrics.jsonl").read_bytes()) for job in jobs(folder)]


def test_a_search_is_a_sweep(whole, lab):
    root, plan = plan_of(whole)
    assert [job["number"] for job in plan["jobs"]] == list(range(6))
    assert plan["search"]["space"] == {"optimizer.lr": "tag(log,interval(1e-4,1e-1))"}
    assert [state(job) for job in jobs(whole)] == ["done"] * 6
    config = yaml.safe_load((jobs(whole)[0] / "config.yaml").read_text())
    assert not {"search", "pruner", "launcher"} & set(config)
    assert 1e-4 <= config["optimizer"]["lr"] <= 1e-1
    words = yaml.safe_load((jobs(whole)[0] / ".hydra" / "overrides.yaml").read_text())
    assert words == [*FAST, *plan["jobs"][0]["overrides"]], "not what repeats this job alone"
    text = lab("compare", str(root)).stdout
    assert "6 finished jobs" in text, text
    before = outcomes(whole)
    code, text = run(whole, *SEARCH)
    assert code == 0, text
    assert "Best val/loss" in text
    assert outcomes(whole) == before


def test_a_search_that_was_killed_and_typed_again_is_the_undisturbed_search(whole, tmp_path):
    process = start(tmp_path, *SEARCH)
    end = time.monotonic() + 60
    while len(list(tmp_path.glob("outputs/sweeps/*/*/2_*/checkpoints/last.pt"))) < 1:
        assert time.monotonic() < end
        time.sleep(0.01)
    process.kill()
    process.communicate()
    code, text = run(tmp_path, *SEARCH)
    assert code == 0, text
    assert outcomes(tmp_path) == outcomes(whole)


def test_two_processes_work_on_one_search_and_pruned_jobs_are_left_out(tmp_path):
    words = ["search=random", "pruner=median", "pruner.n_startup_trials=2", "pruner.n_warmup_steps=1", "n_trials=10"]
    words += ["optimizer.lr=tag(log,interval(1e-5,1))", "lanes=1"]
    first = start(tmp_path, *words)
    end = time.monotonic() + 60
    while not list(tmp_path.glob("outputs/sweeps/*/*/sweep.yaml")):
        assert time.monotonic() < end
        time.sleep(0.01)
    second = start(tmp_path, *words, "--join")
    code, text = finish(first)
    assert code == 0, text
    code, joined = finish(second)
    assert code == 0, joined
    states = [state(job) for job in jobs(tmp_path)]
    assert len(states) == 10
    assert states.count("done") >= 2
    assert states.count("pruned") >= 1
    assert states.count("done") + states.count("pruned") == 10, states
    from dl_lab.sweeps.results import outcome

    found = outcome.read(plan_of(tmp_path)[0])
    assert len(found.records) == states.count("done")
    assert outcome.words(found.unfinished, found.not_started) == f"{states.count('pruned')} pruned"


def test_ctrl_c_saves_a_grid_search_and_the_next_start_completes_it(tmp_path):
    words = ["search=grid", "optimizer.lr=0.01,0.001", "seed=0,1", "lanes=1"]
    process = start(tmp_path, *words)
    end = time.monotonic() + 60
    while len(list(tmp_path.glob("outputs/sweeps/*/*/1_*/checkpoints/last.pt"))) < 1:
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    code, text = finish(process)
    assert code in (0, 130), text
    code, text = run(tmp_path, *words)
    assert code == 0, text
    assert [job["overrides"] for job in plan_of(tmp_path)[1]["jobs"]] == [
        ["optimizer.lr=0.01", "seed=0"],
        ["optimizer.lr=0.01", "seed=1"],
        ["optimizer.lr=0.001", "seed=0"],
        ["optimizer.lr=0.001", "seed=1"],
    ]
    assert [state(job) for job in jobs(tmp_path)] == ["done"] * 4
