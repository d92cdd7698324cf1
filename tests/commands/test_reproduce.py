"""dl-lab reproduce."""

from __future__ import annotations

import json
import re

import pytest

from dl_lab.configs import catalogue

EXPERIMENT = """# @package _global_
# Can the digits be learned?
trainer: {{max_epochs: 2}}
threads: 1
logger: {{_target_: dl_lab.runs.board.NoBoard}}
reference:
  test/accuracy: {{value: {value}, tolerance: 0.01, source: "a book"}}
  test/loss: {{value: 2.4, mode: min, source: "a paper"}}
"""


@pytest.fixture
def write(tmp_path):
    folder = tmp_path / "own" / "experiment"
    folder.mkdir(parents=True)

    def experiment(name: str, text: str) -> None:
        (folder / f"{name}.yaml").write_text(text)

    return experiment


def test_reached_figures_are_reproduced(command, write):
    write("mine", EXPERIMENT.format(value=0.5))
    status, out, _ = command("reproduce", "mine", "--config-dir", "own")
    verdicts = out.rpartition("verdict")[2]
    assert status == 0
    assert verdicts.count("pass") == 2
    assert "at least 0.5000" in verdicts
    assert "at most 2.4000" in verdicts
    assert "test/accuracy: a book" in verdicts
    assert "mine is reproduced: 2 of 2 figures." in verdicts


def test_a_figure_that_falls_short_fails(command, write):
    write("mine", EXPERIMENT.format(value=0.9999))
    status, out, _ = command("reproduce", "mine", "--config-dir", "own")
    assert status == 1
    assert "FAIL" in out
    assert "Not reproduced: test/accuracy" in out


def test_generated_data_never_count(command, write):
    write("mine", EXPERIMENT.format(value=0.0))
    status, out, _ = command("reproduce", "mine", "--config-dir", "own", "dataset.source=generated")
    assert status == 1
    assert "The reference figures do not apply: the data are generated" in out


def test_an_experiment_without_figures_is_refused(command, write, tmp_path):
    write("mine", "# @package _global_\n# Nothing published?\nseed: 1\n")
    status, _, err = command("reproduce", "mine", "--config-dir", "own")
    assert status == 2
    assert "mine names no reference figure" in err
    assert not (tmp_path / "outputs").exists()


# -- every experiment -------------------------------------------------------------------------------------------------


@pytest.fixture
def only_mine(monkeypatch):
    """--all would compose every shipped experiment: here those of the user alone count."""
    every = catalogue.experiments
    monkeypatch.setattr(catalogue, "experiments", lambda folder: [one for one in every(folder) if one.name in MINE])


MINE = ("mine", "yours", "unpublished")
LACKING = """# @package _global_
# What can be learned from a file that nobody has?
dataset: {storage: {files: [{path: nowhere/secret.npz}]}}
reference: {test/accuracy: {value: 0.5}}
"""


def test_a_dry_run_shows_what_would_run_and_runs_nothing(command, write, only_mine, tmp_path):
    write("mine", EXPERIMENT.format(value=0.5))
    write(
        "yours",
        LACKING.replace("# @package _global_", "# @package _global_\ndefaults: [override /dataset: mnist, _self_]"),
    )
    write("unpublished", "# @package _global_\n# Nothing published?\nseed: 1\n")
    status, out, _ = command("reproduce", "--all", "--missing", "--dry-run", "--config-dir", "own")
    assert status == 0
    assert re.search(r"mine +0 +run", out)
    assert re.search(r"yours +0 +lacks data +by hand: nowhere/secret.npz", out)
    assert "unpublished" not in out
    assert "2 runs: 1 to run, 1 without data that can be downloaded." in out
    assert not (tmp_path / "outputs").exists()


def test_what_is_to_be_downloaded_is_told_with_its_size(command, write, only_mine, monkeypatch, tmp_path):
    monkeypatch.setenv("DL_LAB_DATA", str(tmp_path / "empty"))
    write(
        "mine",
        "# @package _global_\n# Digits?\ndefaults: [override /dataset: mnist, _self_]\nreference: {a: {value: 1}}\n",
    )
    out = command("reproduce", "--all", "--dry-run", "--config-dir", "own")[1]
    assert "MNIST/raw/train-images-idx3-ubyte" in out
    assert "To download: 4 files" in out


def test_missing_leaves_out_what_is_done_and_runs_the_rest(command, write, only_mine):
    write("mine", EXPERIMENT.format(value=0.0))
    write("yours", EXPERIMENT.format(value=0.9999))
    assert command("reproduce", "mine", "threads=2", "--config-dir", "own")[0] == 0
    status, out, _ = command("reproduce", "--all", "--missing", "--config-dir", "own")
    assert status == 1, "yours falls short"
    plan, _, outcome = out.partition("[1 of 1] dl-lab reproduce yours seed=0")
    assert re.search(r"mine +0 +done", plan)
    assert re.search(r"yours +0 +run", plan)
    assert re.search(r"mine +0 +2 of 2 +full", outcome)
    assert re.search(r"yours +0 +1 of 2 +full", outcome)
    assert "1 of 2 runs reach all their published figures on the full data." in outcome


def test_another_setting_is_no_run_of_the_experiment(command, write, only_mine):
    write("mine", EXPERIMENT.format(value=0.0))
    command("reproduce", "mine", "optimizer.lr=0.5", "--config-dir", "own")
    command("reproduce", "mine", "seed=7", "--config-dir", "own")
    out = command("reproduce", "--all", "--missing", "--dry-run", "--config-dir", "own")[1]
    assert re.search(r"mine +0 +run", out)


def test_seeds_follow_the_experiment_s_own(command, write, only_mine):
    write("mine", EXPERIMENT.format(value=0.0).replace("threads: 1", "threads: 1\nseed: 5"))
    command("reproduce", "mine", "seed=6", "--config-dir", "own")
    out = command("reproduce", "--all", "--missing", "--dry-run", "--seeds", "3", "--config-dir", "own")[1]
    assert [re.search(rf"mine +{seed} +(\w+)", out)[1] for seed in (5, 6, 7)] == ["run", "done", "run"]


def test_a_stopped_run_is_resumed(command, write, only_mine, tmp_path):
    write("mine", EXPERIMENT.format(value=0.0))
    command("reproduce", "mine", "--config-dir", "own")
    (path,) = tmp_path.glob("outputs/*/*/status.json")
    status = json.loads(path.read_text())
    path.write_text(json.dumps(status | {"state": "interrupted"}))
    out = command("reproduce", "--all", "--missing", "--dry-run", "--config-dir", "own")[1]
    assert re.search(r"mine +0 +resume", out)
    status, out, _ = command("reproduce", "--all", "--missing", "--config-dir", "own")
    assert "dl-lab resume outputs/" in out
    assert re.search(r"mine +0 +2 of 2", out)
    assert status == 0


def test_a_run_on_a_part_is_repeated_once_the_data_change(command, write, only_mine, make_run, tmp_path):
    """A finished run on a part of the data counts as long as the files are the ones that it read."""
    write("mine", EXPERIMENT.format(value=0.0))
    folder = make_run(label="part", experiment="mine")
    (folder / ".hydra" / "overrides.yaml").write_text("- experiment=mine\n")
    seen = "reproduce", "--all", "--missing", "--dry-run", "--config-dir", "own"
    assert re.search(r"mine +0 +done", command(*seen)[1])
    facts = json.loads((folder / "env.json").read_text())
    (folder / "env.json").write_text(json.dumps(facts | {"data_files": {"a.npz": "digest"}}))
    assert re.search(r"mine +0 +run", command(*seen)[1])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["mine", "--all"], "leave out mine"),
        (["--all", "seed=3"], "leave out seed=3"),
        (["--missing", "mine"], "--missing needs --all."),
        (["mine", "--dry-run"], "--dry-run needs --all."),
        ([], "Name an experiment"),
        (["--all", "--seeds", "0"], "--seeds 0 is not at least 1."),
    ],
)
def test_flags_that_do_not_fit_are_refused(command, words, sentence):
    status, _, err = command("reproduce", *words)
    assert status == 2
    assert sentence in err
    assert "Traceback" not in err
