"""dl-lab tune as a command."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--seconds", "1"], "too short: give at least 10"),
        (["--seconds", "inf"], "too short: give at least 10"),
        (["experiment=attention_cost"], "there is nothing to tune"),
        (["optimizer.lrr=1"], "There is no key 'optimizer.lrr'"),
        (["model=cnnn"], "There is no model 'cnnn'"),
    ],
)
def test_wrong_words_are_one_sentence(command, tmp_path, monkeypatch, words, sentence):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    status, _, error = command("tune", *words)
    assert status == 2
    assert sentence in error
    assert "Traceback" not in error
    assert not (tmp_path / "config").exists()


def test_a_job_is_measured_and_its_settings_are_used(lab, tmp_path):
    job = ["dataset.source=generated", "dataset.n_generated=256", "model.hidden=[8]", "logger=none"]
    env = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    done = lab("tune", *job, "--seconds", "10", env=env)
    assert done.returncode == 0, done.stderr
    assert "as it is" in done.stdout
    assert "learner.precision=bf16" in done.stdout
    assert "the same setting differed from itself" in done.stdout
    assert not (tmp_path / "outputs").exists(), "tuning leaves no run"
    file = tmp_path / "config" / "dl-lab" / "local.yaml"
    assert file.exists() == ("From now on dl-lab uses" in done.stdout)
    assert lab("tune", "--forget", env=env).returncode == 0
    assert not file.exists()
