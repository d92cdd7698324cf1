"""dl-lab tensorboard: what it starts."""

from __future__ import annotations

import sys

import pytest

from dl_lab.commands.tensorboard import tensorboard_command
from dl_lab.types import UserError


def test_all_runs_one_run_one_sweep(make_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = make_run()
    start = [sys.executable, "-m", "tensorboard.main", "--logdir"]
    assert tensorboard_command([]) == [*start, "outputs"]
    assert tensorboard_command(["last"]) == [*start, str(run.relative_to(tmp_path))]
    assert tensorboard_command([str(run.parent), "--port", "7007"]) == [*start, str(run.parent), "--port", "7007"]
    assert tensorboard_command(["--outputs", str(tmp_path), "--bind_all"]) == [*start, str(tmp_path), "--bind_all"]


def test_nothing_to_show(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no runs under outputs yet"):
        tensorboard_command([])
    with pytest.raises(UserError, match="No run 'nothing'"):
        tensorboard_command(["nothing"])


def test_tensorboard_takes_over(lab, tmp_path):
    from tensorboard.version import VERSION

    (tmp_path / "outputs").mkdir()
    done = lab("tensorboard", "--version_tb")
    assert (done.returncode, done.stdout) == (0, f"{VERSION}\n")
