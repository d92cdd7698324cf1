"""dl-lab evaluate counts its looks at test; a run that is made longer equals one of that length from the start."""

from __future__ import annotations

import pytest

from dl_lab.commands import evaluate, resume
from dl_lab.runs.files import read_json, read_records
from dl_lab.types import ConfigError, UserError

SMALL = ["dataset.source=generated", "dataset.n_generated=100", "model.hidden=[8]", "logger=none",
         "callbacks.curves=null", "callbacks.confusion_matrix=null"]  # fmt: skip


def test_the_weights_judge_the_test_split_again_and_other_data(execute, capsys):
    folder, metrics = execute(*SMALL, "trainer.max_epochs=2")
    assert evaluate.main([str(folder)]) == 0
    assert evaluate.main([str(folder), "dataset.n_generated=50", "--split", "val", "--weights", "last"]) == 0
    again, other = read_records(folder / "evaluations.jsonl")
    assert again["metrics"]["test/loss"] == pytest.approx(metrics["test/loss"], rel=1e-6)
    assert other["dataset"]["fingerprint"] != again["dataset"]["fingerprint"] and "val/accuracy" in other["metrics"]
    assert read_json(folder / "summary.json")["test_looks"] == 2
    assert "test/accuracy" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"dataset.n_generate=5 is not a setting .* dataset.n_generated"):
        evaluate.main([str(folder), "dataset.n_generate=5"])
    with pytest.raises(UserError, match="does not take these data"):
        evaluate.main([str(folder), "dataset=octmnist", "dataset.source=generated", "dataset.n_generated=20"])


def test_a_finished_run_continues_with_more_epochs(execute):
    words = [*SMALL, "model.dropout=0.3", "trainer.checkpoint_seconds=0"]
    whole, metrics = execute(*words, "trainer.max_epochs=5")
    folder, _ = execute(*words, "trainer.max_epochs=2")
    assert resume.main([str(folder), "trainer.max_epochs=5", "--mixed-code"]) == 0
    assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    summary = read_json(folder / "summary.json")
    assert summary["metrics"] == metrics and summary["test_looks"] == 2 and summary["epochs"] == 5
    with pytest.raises(ConfigError, match=r"does not make .* longer: 5 epochs are done"):
        resume.main([str(folder), "trainer.max_epochs=5", "--mixed-code"])
    with pytest.raises(ConfigError, match=r"only takes trainer.max_epochs"):
        resume.main([str(folder), "trainer.max_epoch=9", "--mixed-code"])


def test_a_planned_schedule_is_not_made_longer(execute):
    folder, _ = execute(*SMALL, "trainer.max_epochs=2", "scheduler=cosine")
    with pytest.raises(UserError, match="schedule was planned for the whole training"):
        resume.main([str(folder), "trainer.max_epochs=5", "--mixed-code"])
    assert read_json(folder / "status.json")["state"] == "done"
