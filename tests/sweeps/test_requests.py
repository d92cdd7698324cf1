"""The sweep that runs is the sweep that was asked for, and the plan says where it differs from the words."""

from __future__ import annotations

import json
import re

import pytest

SMOKE = ("-m", "profile=smoke", "threads=1")


@pytest.fixture
def plan(command):
    """Show a plan (--dry-run); return its rows, each "job value value ... action", and everything that was printed."""

    def show(*words: str, status: int = 0) -> tuple[list[list[str]], str]:
        code, out, err = command(*SMOKE, *words, "--dry-run")
        assert code == status, out + err
        rows = [line.split() for line in out.splitlines() if re.match(r" +\d+ ", line)]
        return [row[1:] for row in rows], out + err

    return show


def test_the_command_line_wins_over_a_sweep_file(plan):
    rows, text = plan("sweep=oct_lr", "optimizer.lr=0.3")
    assert [row[0] for row in rows] == ["octmnist_cnn", "octmnist_cnn_strided"]
    assert "optimizer.lr=0.3 of the command line replaces what the sweep file says about optimizer.lr." in text
    rows, _ = plan("sweep=oct_lr", "optimizer.lr=0.3,0.2")
    assert len(rows) == 4


def test_a_key_given_twice_is_refused(plan):
    rows, text = plan("optimizer.lr=0.1,0.01", "optimizer.lr=1,2", status=2)
    assert "optimizer.lr is given twice: optimizer.lr=0.1,0.01 and optimizer.lr=1,2." in text
    assert rows == []


def test_two_spellings_of_one_job_run_once(plan):
    rows, text = plan(
        "scheduler=none,null", "trainer.device=cpu,auto", "optimizer.lr=0.1,1e-1,0.2", "trainer.log_steps=1,2"
    )
    assert len(rows) == 2
    assert "Jobs that give the same result run once: " in text


def test_another_spelling_of_a_job_is_checked_although_it_does_not_run(command, sweep):
    for words in (["threads=1,0"], ["threads=1,-2", "seed=0,1"]):
        status, _, error = command("-m", "profile=smoke", *words, "--dry-run")
        assert status == 2
        assert f"A job with {words[0].replace('1,', '')}" in error and "threads" in error
    status, _, error = command("-m", "profile=smoke", "trainer.device=cpu,nowhere", "--dry-run")
    assert status == 2
    assert "device 'nowhere' is no device: use auto, cpu, cuda, cuda:1 or mps" in error
    swept = sweep("profile=smoke", "threads=1,0", smoke=False)
    assert swept.status == 2, swept.text
    assert swept.folder is None


def test_filters_compare_values(plan):
    rows, _ = plan("optimizer.lr=0.1,0.01", "model.hidden=[32,32],[8]", "--exclude", "optimizer.lr=1e-1")
    assert len(rows) == 2
    rows, _ = plan("model.hidden=[32,32],[8]", "--exclude", "model.hidden=[32, 32]")
    assert rows == [["[8]", "run", "?"]]
    rows, _ = plan("seed=0,1", "--zip", "model.activation='relu',tanh model.hidden=[32, 32],[8]", "--where", "seed=1")
    assert len(rows) == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["optimizer.lr=0.1,0.01", "--exclude", "sed=1"], "this sweep sets no sed"),
        (["optimizer.lr=0.1,0.01", "--exclude", "optimizer.lr=1"], "fits no job of this sweep"),
        (["sweep=oct_lr,speech"], "a sweep has one sweep. Start several sweeps:  dl-lab -m sweep=oct_lr and"),
        (["launcher=local,slurm"], "a sweep has one launcher"),
        (["lanes=1,2"], "a sweep has one lanes"),
        (["optimizer.lr=0.1,-1"], "Job 1: learner: Invalid learning rate: -1"),
        (["model=mlp,linear", "model.dropuot=0.1,0.2"], "model.dropuot"),
    ],
)
def test_a_dry_run_refuses_what_the_check_refuses(plan, tmp_path, words, says):
    _, text = plan(*words, status=2)
    assert says in text
    assert not (tmp_path / "outputs").exists()


def test_a_sweep_without_m_says_to_add_m(command):
    status, _, error = command("sweep=oct_lr", "optimizer.lr=0.3")
    assert status == 2
    assert "dl-lab -m sweep=oct_lr optimizer.lr=0.3" in error


def test_one_job_is_a_sweep(plan):
    rows, _ = plan("seed=3", "launcher=slurm")
    assert rows == [["run", "?"]]


def test_a_folder_may_have_a_blank_in_its_name(plan):
    assert "The sweep would be in a b." in plan("seed=0,1", 'hydra.sweep.dir="a b"')[1]


def test_a_key_that_only_one_option_has_varies_for_that_option_alone(plan):
    rows, text = plan("model=mlp,linear", "model.dropout=0.1,0.5", "optimizer.weight_decay=0,0.1")
    assert sorted({tuple(row[:-2]) for row in rows}) == [
        ("linear", "0"),
        ("linear", "0.1"),
        ("mlp", "0.1", "0"),
        ("mlp", "0.1", "0.1"),
        ("mlp", "0.5", "0"),
        ("mlp", "0.5", "0.1"),
    ]
    assert "model.dropout is set only where model=mlp: model=linear has no such key." in text
    rows, text = plan("model=mlp,linear", "model.dropout=0.5", "seed=0,1")
    assert len(rows) == 4
    assert "model=linear has no such key" in text


def test_a_sweep_file_keeps_types_and_quotes(plan, tmp_path):
    own = tmp_path / "own" / "sweep"
    own.mkdir(parents=True)
    texts = ["null", "1e-3", "it's", "é", "~/x"]
    quoted = json.dumps({"grid": {"id": texts}}, ensure_ascii=False)  # YAML too, with every text in quotes
    (own / "texts.yaml").write_text(quoted)
    rows, _ = plan("--config-dir", str(tmp_path / "own"), "sweep=texts", "seed=0")
    assert len(rows) == 1, "id does not count for identity: one job"
    (own / "texts.yaml").write_text("grid: {optimizer.lr: [1e-3, 1e-2]}\nexclude: [{optimizer.lr: 0.01}]\n")
    rows, _ = plan("--config-dir", str(tmp_path / "own"), "sweep=texts")
    assert [row[0] for row in rows] == ["0.001"]


def test_finished_jobs_are_taken_and_earlier_sweeps_are_found(sweep, command):
    first = sweep("optimizer.lr=0.1,0.01")
    assert first.states == ["done"] * 2
    wider = sweep("optimizer.lr=1e-1,0.01,0.02", "trainer.log_steps=3")
    assert wider.states == ["done"] * 3
    assert wider.text.count("take: from ") == 2
    assert [job.is_symlink() for job in wider.jobs] == [True, True, False]
    assert wider.summaries[0] == first.summaries[0]
    assert len((wider.folder / "results.csv").read_text().splitlines()) == 4
    rows = json.loads(command("compare", str(wider.folder), "--json")[1])
    assert [row["n"] for row in rows] == [1, 1, 1]
    assert len(json.loads(command("runs", "--json")[1])) == 3, "a link is no second run"

    new = sweep("optimizer.lr=0.1,0.02", "--new")
    assert new.folder != first.folder
    assert not any(job.is_symlink() for job in new.jobs)
    again = sweep("optimizer.lr=0.1,0.01", "--dry-run")
    assert again.folder == first.folder
    assert again.text.count("skip: done") == 2

    import shutil

    shutil.rmtree(first.folder)
    repaired = sweep("optimizer.lr=1e-1,0.01,0.02", "trainer.log_steps=3")
    assert repaired.states == ["done"] * 3, repaired.text
    assert [job.is_symlink() for job in repaired.jobs] == [True, False, False], "0.1 is done in another sweep"
