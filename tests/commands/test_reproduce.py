"""dl-lab reproduce."""

from __future__ import annotations

import pytest

EXPERIMENT = """# @package _global_
# Can the digits be learned?
trainer: {{max_epochs: 2}}
threads: 1
logger: {{_target_: dl_lab.run.NoBoard}}
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


def test_reached(command, write):
    write("mine", EXPERIMENT.format(value=0.5))
    status, out, _ = command("reproduce", "mine", "--config-dir", "own")
    verdicts = out.rpartition("verdict")[2]
    assert status == 0
    assert verdicts.count("pass") == 2
    assert "at least 0.5000" in verdicts
    assert "at most 2.4000" in verdicts
    assert "test/accuracy: a book" in verdicts
    assert "mine is reproduced: 2 of 2 figures." in verdicts


def test_falls_short(command, write):
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


def test_nothing_to_judge_by(command, write, tmp_path):
    write("mine", "# @package _global_\n# Nothing published?\nseed: 1\n")
    status, _, err = command("reproduce", "mine", "--config-dir", "own")
    assert status == 2
    assert "mine names no reference figure" in err
    assert not (tmp_path / "outputs").exists()
