"""Answers about sweeps: a ranking for each data set, ties, settings that failed, several sweeps, all kinds of names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dl_lab.commands.tensorboard import tensorboard_command

VALUES = {(lr, seed): lr + seed / 100 for lr in (0.5, 0.25, 0.75) for seed in (0, 1)}


def move_to_data(job: Path, name: str) -> None:
    """Write another data set into a job's records."""
    summary = json.loads((job / "summary.json").read_text())
    summary["dataset"]["name"] = name
    (job / "summary.json").write_text(json.dumps(summary))


def jobs(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def test_each_data_set_has_its_own_ranking(command, make_sweep):
    folder = make_sweep(VALUES)
    for job in jobs(folder)[:2]:
        move_to_data(job, "mnist")
    _, out, _ = command("compare", str(folder))
    assert "2 blocks: results on different data or by different metrics are not ranked together." in out
    assert "== mnist, val/accuracy ==" in out
    assert "Best by highest mean val/accuracy: lr=0.75. The next, lr=0.25, is" in out
    rows = json.loads(command("compare", str(folder), "--json")[1])
    assert [row["data"] for row in rows] == ["mnist", "digits", "digits"]
    assert [row["best"] for row in rows] == [True, True, False]
    status, _, err = command("best", str(folder))
    assert status == 1
    assert "--data NAME" in err
    status, out, err = command("best", str(folder), "--data", "digits")
    assert status == 0, err
    assert f"dl-lab best {folder} --retrain" in out
    assert command("report", str(folder))[0] == 0
    assert (folder / "report.html").exists()
    assert "mnist" in (folder / "report.md").read_text()


def test_a_tie_is_called_a_tie(command, make_sweep):
    folder = make_sweep({(0.5, 0): 0.8, (0.25, 0): 0.8, (0.75, 0): 0.7})
    _, out, _ = command("compare", str(folder))
    assert "A tie by highest mean val/accuracy: lr=0.5 and lr=0.25 have the same mean." in out
    assert "behind" not in out
    rows = json.loads(command("compare", str(folder), "--json")[1])
    assert [row["best"] for row in rows] == [True, True, False]


def test_a_setting_whose_jobs_all_failed_stays_with_its_reason(command, make_sweep):
    values = {**VALUES, (9.0, 0): "failed", (9.0, 1): "failed"}
    folder = make_sweep(values)
    for job in jobs(folder):
        status = json.loads((job / "status.json").read_text())
        if status["state"] == "failed":
            status["error"] = {"type": "ValueError", "message": "the loss became nan"}
            (job / "status.json").write_text(json.dumps(status))
    _, out, _ = command("compare", str(folder))
    (line,) = [line for line in out.splitlines() if "failed: the loss became nan" in line]
    assert line.split()[:2] == ["9", "0"]
    rows = json.loads(command("compare", str(folder), "--json")[1])
    assert rows[-1]["optimizer.lr"] == 9.0
    assert rows[-1]["n"] == 0
    assert rows[-1]["reason"] == "failed: the loss became nan"


def test_a_sweep_by_its_key_with_each(command, make_sweep):
    make_sweep(VALUES)
    status, out, err = command("compare", "abcd", "--each", "--json")
    assert status == 0, err
    assert len(json.loads(out)) == 6


def test_last_is_the_sweep_that_the_newest_run_belongs_to(command, make_sweep, make_run, tmp_path):
    from dl_lab.commands import doctor, tensorboard
    from dl_lab.sweeps.results import outcome

    sweep = make_sweep({(0.5, 0): 0.75, (0.25, 0): 0.5})
    outputs = tmp_path / "outputs"
    assert outcome.find_sweep_or_run("last", outputs) == tensorboard.log_folder("last", outputs) == sweep
    assert [folder.parent for folder in doctor.find_runs("last", outputs)] == [sweep, sweep]
    assert "2 finished jobs" in command("compare", "last")[1]
    run = make_run()
    status = json.loads((run / "status.json").read_text())
    (run / "status.json").write_text(json.dumps({**status, "started": "2026-01-03T00:00:00+00:00"}))
    assert outcome.find_sweep_or_run("last", outputs) == tensorboard.log_folder("last", outputs) == run
    assert doctor.find_runs("last", outputs) == [run]
    assert "0.7500" in command("compare", "last")[1]
    assert outcome.find_sweep("last", outputs) == sweep, "of the verbs that take a sweep only"


@pytest.mark.parametrize("line", ["compare", "report", "doctor", "evaluate", "resume", "verify", "clean"])
@pytest.mark.parametrize("name", ["last", "1a2b"])
def test_without_runs_every_verb_says_that_there_are_none(command, line, name):
    status, _, err = command(line, name)
    assert (status, err) == (1, "dl-lab: There are no runs under outputs yet. Make one:  dl-lab\n")


@pytest.mark.parametrize("line", ["diff last last", "predict last file.csv", "learner.start_from=last"])
def test_without_runs_a_verb_of_several_words_says_so_too(command, line):
    assert "There are no runs under outputs yet." in command(*line.split())[2]


def test_without_sweeps_best_says_so(command, make_run):
    make_run()
    assert "There are no sweeps under outputs yet." in command("best", "last")[2]


@pytest.mark.parametrize("verb", ["evaluate", "resume", "verify"])
def test_a_verb_that_takes_a_run_names_the_jobs_of_a_sweep(command, make_sweep, tmp_path, verb):
    sweep = make_sweep(VALUES)
    first = jobs(sweep)[0]
    assert (
        f"abcd is a sweep, and no run. Give one of its 6 runs: {first}".replace(f"{tmp_path}/", "")
        in command(verb, "abcd")[2]
    )
    assert f"it has no status.json. Give one of its 6 runs: {first}" in command(verb, str(sweep))[2]


def test_several_sweeps_and_single_runs_together(command, make_sweep, tmp_path):
    def move(folder: Path, name: str) -> Path:
        return folder.rename(folder.with_name(name))

    single = move(make_sweep({(0.125, 0): 0.6}), "09-00-00_eeee0000")
    second = move(make_sweep({(0.5, 0): 0.8, (0.25, 0): 0.7}), "11-00-00_ffff0000")
    first = make_sweep({(0.75, 0): 0.9})
    status, out, err = command("compare", str(first), "ffff", str(jobs(single)[0]), "--json")
    assert status == 0, err
    assert [row["optimizer.lr"] for row in json.loads(out)] == [0.75, 0.5, 0.25, 0.125]

    (first / "9_00000000").symlink_to(jobs(second)[0])
    plan = (first / "sweep.yaml").read_text()
    (first / "sweep.yaml").write_text(plan.replace("jobs:", "jobs:\n- {number: 9, id: '00000009', overrides: []}", 1))
    (first / "9_00000000").rename(first / "9_00000009")
    rows = json.loads(command("compare", str(first), "ffff", "--json")[1])
    assert [row["n"] for row in rows] == [1, 1, 1], "a linked job counts once"
    assert len(json.loads(command("compare", str(first), "--each", "--json")[1])) == 2


@pytest.mark.parametrize(
    ("words", "run", "own"),
    [
        (["--port", "6007"], None, ["--port", "6007"]),
        (["abcd", "--port", "6007", "--bind_all"], "abcd", ["--port", "6007", "--bind_all"]),
        (["--bind_all", "abcd"], "abcd", ["--bind_all"]),
        (["--port=6007", "abcd"], "abcd", ["--port=6007"]),
    ],
)
def test_tensorboard_takes_keys_and_flags_in_any_order(make_sweep, tmp_path, monkeypatch, words, run, own):
    folder = make_sweep(VALUES)
    monkeypatch.chdir(tmp_path)
    command = tensorboard_command(words)
    shown = Path(command[command.index("--logdir") + 1])
    named = tmp_path / "outputs" / ".tensorboard" / folder.name  # links to the jobs, named by what varies
    assert shown.resolve() == (named if run else tmp_path / "outputs").resolve()
    assert command[command.index("--logdir") + 2 :] == own


def test_check_takes_the_name_of_an_experiment(command):
    status, out, err = command("check", "octmnist_cnn", "seed=3")
    assert status == 0, err
    assert out.split() == ["octmnist_cnn", "seed=3", "ok"]
    status, _, err = command("check", "octmnist_cmn")
    assert status == 2
    assert "Did you mean octmnist_cnn?" in err
