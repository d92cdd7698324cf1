"""No outcome of a job ends a sweep: infinite metrics, failures, values that do not fit together, foreign files."""

from __future__ import annotations

import json

import pytest

from dl_lab.runs.files import error_line
from dl_lab.runs.recorder import not_finite_metrics
from dl_lab.show import tables
from dl_lab.sweeps.endings import Ending, read_ending
from dl_lab.types import Pruned


def test_a_metric_that_is_not_finite_does_not_end_the_sweep(sweep, command):
    swept = sweep("optimizer.lr=inf,1e30,0.1,0.01", "learner.clip_norm=null,1.0")
    assert swept.states == ["done"] * 8
    assert swept.status == 0
    assert "val/loss is nan" in swept.text
    assert "val/loss is not finite in job " in swept.text
    first = swept.summaries[0]
    assert first["metrics"]["val/loss"] is None
    assert first["not_finite"]["val/loss"] == "nan"
    assert "not_finite" not in swept.summaries[-1]
    rows = json.loads(command("compare", str(swept.folder), "--json")[1])
    values = [row["val/loss/mean"] for row in rows]
    n_finite = sum(value is not None for value in values)
    assert n_finite < 8
    assert values[:n_finite] == sorted(value for value in values if value is not None)


def test_losses_of_several_kinds_are_named_and_not_compared_without_a_warning(sweep, command):
    """A class on the command line is a setting like any other; the best by a loss of its own kind says little."""
    swept = sweep("task.loss={_target_:torch.nn.MultiMarginLoss,margin:0.5},cross_entropy", "seed=0,1")
    caution = "settings differ in task.loss, so val/loss is not the same quantity in all of them."
    assert f"The {caution}" in swept.text
    assert "is loss=MultiMarginLoss(margin=0.5) with " in swept.text
    answer = " ".join(command("compare", str(swept.folder))[1].split())
    assert f"Warning: the {caution} Choose by another metric: --metric val/accuracy." in answer
    assert caution not in " ".join(command("compare", str(swept.folder), "--metric", "val/accuracy")[1].split())
    rows = json.loads(command("compare", str(swept.folder), "--json")[1])
    assert {row["task.loss"] for row in rows} == {"MultiMarginLoss(margin=0.5)", "cross_entropy"}


def test_a_search_continues_after_trials_without_a_value(sweep):
    swept = sweep("search=random", "n_trials=4", "optimizer.lr=tag(log,interval(1e-3,1e32))", "search_seed=1")
    assert swept.states == ["done"] * 4
    assert swept.status == 0
    values = [summary["metrics"]["val/loss"] for summary in swept.summaries]
    assert None in values
    best = min(value for value in values if value is not None)
    assert f" {tables.number(best)} " in swept.text


def test_a_search_without_a_single_value_fails(sweep):
    swept = sweep("search=random", "n_trials=2", "optimizer.lr=tag(log,interval(1e31,1e32))")
    assert swept.status == 1
    assert "No trial gave a finite val/loss" in swept.text


def test_a_misspelt_objective_is_refused_before_the_first_trial(sweep):
    swept = sweep("search=random", "n_trials=2", "optimizer.lr=interval(0.01,0.1)", "objective=val/acuracy")
    assert swept.status == 2
    assert "objective=val/acuracy is not measured" in swept.text
    assert "Did you mean val/accuracy?" in swept.text
    assert swept.folder is None


def test_hopeless_jobs_of_a_plain_grid_stop_early(sweep):
    pruner = ["pruner=median", "pruner.n_startup_trials=1", "pruner.n_warmup_steps=0", "lanes=1"]
    swept = sweep("trainer.max_epochs=4", "optimizer.lr=0.01,1e-7,1e-8", *pruner)
    assert swept.states == ["done", "pruned", "pruned"]
    assert swept.status == 0
    assert "2 pruned" in swept.text
    again = sweep("trainer.max_epochs=4", "optimizer.lr=0.01,1e-7,1e-8", *pruner, "--dry-run")
    assert again.text.count("skip: pruned") == 2


@pytest.mark.parametrize(
    ("metrics", "found"),
    [
        ({"a": 1.0, "b": float("nan"), "c": float("-inf"), "d": 3}, {"b": "nan", "c": "-inf"}),
        ({"a": 1.0}, {}),
    ],
)
def test_metrics_that_are_not_finite_are_named(metrics, found):
    assert not_finite_metrics(metrics) == found


@pytest.mark.parametrize("text", ["[1]", "not json", '{"error": "words"}', '{"error": null, "reason": 3}', ""])
@pytest.mark.parametrize("exit_status", [0, 1, 130, Pruned.exit_code, -9])
def test_foreign_files_in_a_job_folder_raise_nothing(tmp_path, text, exit_status):
    for name in ("status.json", "summary.json"):
        (tmp_path / name).write_text(text)
    assert isinstance(read_ending(tmp_path, exit_status), Ending)


def test_an_ending_says_the_value_or_why_there_is_none():
    ending = Ending("", {"val/loss": 0.25, "val/accuracy": None}, {"val/accuracy": "inf"})
    assert ending.value_of("val/loss") == "val/loss 0.2500"
    assert ending.value_of("val/accuracy") == "val/accuracy is inf"
    assert ending.value_of("val/f1") == ""


@pytest.mark.parametrize(
    ("status", "line"),
    [
        ({"error": {"message": "one\ntwo", "type": "ValueError"}}, "one"),
        ({"error": {"message": "", "type": "AssertionError"}}, "AssertionError"),
        ({}, ""),
    ],
)
def test_an_error_is_written_in_one_line(status, line):
    assert error_line(status) == line
