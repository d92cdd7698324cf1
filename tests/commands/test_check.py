"""dl-lab check."""

from __future__ import annotations

from pathlib import Path


def test_a_job_that_fits_is_ok(command, tmp_path):
    status, out, _ = command("check", "experiment=octmnist_cnn")
    assert (status, out) == (0, "experiment=octmnist_cnn  ok\n")
    assert not (tmp_path / "outputs").exists()


def test_every_job_of_a_sweep_gets_its_line(command):
    status, out, _ = command("check", "-m", "dataset=digits", "optimizer.lr=0.1,high", "seed=1,2", "model=linear,mlp")
    lines = out.splitlines()
    assert status == 2
    assert len([line for line in lines if line.endswith("  ok")]) == 4
    assert len([line for line in lines if "optimizer.lr: 'high' (str) does not fit" in line]) == 4
    assert lines[-1] == "4 of 8 are fine."


def test_without_overrides_every_experiment_is_checked(command, tmp_path, monkeypatch):
    from dl_lab.configs import catalogue

    folder = tmp_path / "own" / "experiment"
    folder.mkdir(parents=True)
    (folder / "fine.yaml").write_text("# @package _global_\n# Fine?\nseed: 1\n")
    (folder / "wrong.yaml").write_text("# @package _global_\n# Wrong?\ntrainer: {max_epoch: 1}\n")
    (folder / "shapes.yaml").write_text("# @package _global_\n# Shapes?\nmodel: {input_shape: [1, 5, 5]}\n")
    (folder / "typo.yaml").write_text("# @package _global_\n# Typo?\noptimiser: {lr: 0.1}\n")
    own = [e for e in catalogue.experiments(str(tmp_path / "own")) if Path(e.path).is_relative_to(folder)]
    monkeypatch.setattr(catalogue, "experiments", lambda _: own)  # the shipped ones are test_experiments.py's
    status, out, _ = command("check", "--config-dir", str(tmp_path / "own"))
    answers = dict(line.split(maxsplit=1) for line in out.splitlines() if line and not line.startswith(" "))
    assert status == 2
    assert answers["fine"] == "ok"
    assert "max_epoch'" in answers["wrong"]
    assert "Did you mean max_epochs?" in answers["wrong"]
    assert "do not fit together" in answers["shapes"]
    assert "optimiser: nothing uses this key. Did you mean optimizer?" in answers["typo"]
    assert out.endswith("1 of 4 are fine.\n")
    assert not (tmp_path / "outputs").exists()
