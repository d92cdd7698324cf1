"""dl-lab tensorboard: the command that it starts."""

from __future__ import annotations

import sys

import pytest

from dl_lab.commands.tensorboard import tensorboard_command
from dl_lab.types import UserError


def test_it_opens_all_runs_one_run_or_one_sweep(make_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = make_run()
    start = [sys.executable, "-m", "tensorboard.main", "--logdir"]
    assert tensorboard_command([]) == [*start, "outputs"]
    assert tensorboard_command(["last"]) == [*start, f"outputs/.tensorboard/{run.name}"]
    (link,) = (tmp_path / "outputs" / ".tensorboard" / run.name).iterdir()
    assert link.resolve() == run
    assert tensorboard_command([str(run.parent), "--port", "7007"]) == [*start, str(run.parent), "--port", "7007"]
    assert tensorboard_command(["--outputs", str(tmp_path), "--bind_all"]) == [*start, str(tmp_path), "--bind_all"]


def test_the_jobs_of_a_sweep_are_named_by_what_varies(make_sweep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = make_sweep({(0.5, 0): 0.7, (0.5, 1): 0.6, (0.25, 0): 0.5, (0.25, 1): None})
    folder = tmp_path / tensorboard_command(["abcd"])[-1]
    links = {link.name: link.readlink() if link.is_symlink() else None for link in folder.iterdir()}
    assert set(links) == {"lr=0.5 seed=0", "lr=0.5 seed=1", "lr=0.25 seed=0", "lr=0.25 seed=1"}
    assert links["lr=0.5 seed=1"] == sweep / "1_00000001"
    assert not links["lr=0.25 seed=1"].exists(), "a job that has not started yet"


def test_hparams_of_a_sweep_has_columns_for_what_varies_and_the_final_metrics(make_sweep, tmp_path, monkeypatch):
    from tensorboard.plugins.hparams import metadata

    monkeypatch.chdir(tmp_path)
    make_sweep({(0.5, 0): "failed", (0.5, 1): 0.6, (0.25, 0): 0.5})
    folder = tmp_path / tensorboard_command(["abcd"])[-1]
    (job,) = [path for path in folder.iterdir() if not path.is_symlink()]
    assert job.name == "lr=0.5 seed=1", "the first job that is done"
    content = read_events(job).SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
    experiment = metadata.parse_experiment_plugin_data(content)
    assert [info.name for info in experiment.hparam_infos] == ["optimizer.lr", "seed"]
    shown = [(info.display_name, info.name.tag) for info in experiment.metric_infos]
    assert shown == [("val/accuracy", "summary/val/accuracy"), ("test/accuracy", "summary/test/accuracy")]


def read_events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder))
    board.Reload()
    return board


def test_the_links_do_not_count_as_runs(make_run, command):
    make_run()
    tensorboard_command(["last"])
    assert len(command("runs", "--csv")[1].splitlines()) == 2


def test_without_runs_it_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no runs under outputs yet"):
        tensorboard_command([])
    with pytest.raises(UserError, match="no runs under outputs yet"):
        tensorboard_command(["nothing"])


def test_the_process_becomes_tensorboard(lab, tmp_path):
    from tensorboard.version import VERSION

    (tmp_path / "outputs").mkdir()
    done = lab("tensorboard", "--version_tb")
    assert (done.returncode, done.stdout) == (0, f"{VERSION}\n")
