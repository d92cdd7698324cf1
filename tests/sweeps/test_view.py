"""What a sweep shows while it runs, and the sentence at its end."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from dl_lab.runs.files import read_newest
from dl_lab.sweeps.backends.protocol import Exited, Progress, Started
from dl_lab.sweeps.endings import Ending
from dl_lab.sweeps.plan import Job, Sweep
from dl_lab.sweeps.results.headline import summarise
from dl_lab.sweeps.view import View, make_console, show_failures, show_plan

METRIC = "val/accuracy"


def job(number: int, action: str = "run", estimate: float | None = None) -> Job:
    words = [f"optimizer.lr={10.0**-number}", f"seed={number}"]
    return Job(number, f"{number:08x}", words, {}, {}, action=action, estimate=estimate)


def log(folder, one: Job, *values: float, done: bool = False) -> None:
    """Write what a run has measured so far."""
    run = folder / one.name
    run.mkdir(exist_ok=True)
    records = [{"epoch": i, METRIC: value} for i, value in enumerate(values, 1)]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    if done:
        (run / "summary.json").write_text(json.dumps({"metrics": {METRIC: values[-1]}}))


@pytest.fixture
def screen():
    """A console of a width, and what it has printed since the last call."""

    def make(width: int):
        console = Console(file=io.StringIO(), width=width, highlight=False)

        def read() -> str:
            text = console.file.getvalue()
            console.file.seek(0)
            console.file.truncate()
            return text

        return console, read

    return make


@pytest.mark.parametrize("width", [80, 120])
def test_the_live_view_shows_the_best_so_far_and_the_metric_of_each_lane(tmp_path, screen, width):
    console, read = screen(width)
    jobs = [job(0, "skip"), *(job(i) for i in range(1, 5))]
    log(tmp_path, jobs[0], 0.5, done=True)
    view = View(console, tmp_path, jobs, ["optimizer.lr", "seed"], METRIC, "max")
    view.observe(Started(1, lane=0))
    view.observe(Started(2, lane=1))
    console.print(view.render())
    shown = read()
    assert "1/5 jobs" in shown, "the counter counts the jobs of the plan, those that were done before too"
    assert "best so far  val/accuracy 0.5000  lr=1.0 seed=0" in shown
    assert shown.count("starting") == 2
    log(tmp_path, jobs[1], 0.6, 0.625)
    view.observe(Progress(1, epoch=31, max_epochs=30, done=310, total=300, samples_per_second=1234.0, lane=0))
    console.print(view.render())
    lines = read().splitlines()
    assert max(map(len, lines)) <= width
    lane = next(line for line in lines if "epoch" in line)
    assert "epoch 30/30" in lane
    assert "val/accuracy 0.6250" in lane
    assert "lr=0.1 seed=1" in lane
    assert ("1,234/s" in lane) == (width == 120)
    view.observe(Exited(1, 0, lane=0), Ending(metrics={METRIC: 0.75}))
    assert read().startswith("✓ 2/5 lr=0.1 seed=1  val/accuracy 0.7500")
    view.observe(Started(3, lane=0))
    view.observe(Progress(3, epoch=0, max_epochs=0, done=1, total=8, lane=0))
    console.print(view.render())
    assert "step 2/8" in read(), "an analysis has steps, not epochs"
    view.observe(Exited(2, 0, lane=1), Ending(metrics={METRIC: None}, not_finite={METRIC: "nan"}))
    view.observe(Exited(3, 1, lane=0), Ending("broken"))
    console.print(view.render())
    shown = read()
    assert "4/5 jobs" in shown
    assert "best so far  val/accuracy 0.7500  lr=0.1 seed=1" in shown
    view.observe(Exited(4, 0, lane=0), Ending(metrics={METRIC: 0.7}))
    console.print(view.render())
    shown = read()
    assert "5/5 jobs" in shown
    assert "left" not in shown
    assert "best so far  val/accuracy 0.7500" in shown


def test_the_lowest_loss_is_the_best(tmp_path, screen):
    console, _ = screen(80)
    view = View(console, tmp_path, [job(0), job(1)], ["seed"], "val/loss", "min")
    for number, value in ((0, 1e30), (1, 0.5)):
        view.observe(Exited(number, 0), Ending(metrics={"val/loss": value}))
    assert view.best is not None and view.best[0] == 0.5


def test_a_plan_says_which_jobs_its_estimate_leaves_out(tmp_path, screen):
    console, read = screen(80)
    jobs = [job(0, "skip"), job(1, estimate=60.0), job(2), job(3)]
    show_plan(console, Sweep(tmp_path, "k", "c", "c", jobs), ["seed"])
    assert "About 1:00 of work" in (shown := read())
    assert "2 jobs of unknown length are not counted." in shown
    show_plan(console, Sweep(tmp_path, "k", "c", "c", jobs[:2]), ["seed"])
    assert "unknown length" not in read()


def test_values_are_shown_as_they_are_and_a_log_file_has_one_line_for_a_job(tmp_path, capsys, monkeypatch):
    """rich would take [a,b] for a style and leave it out, take [/c] for its end and fail, and fold at 50 columns."""
    monkeypatch.setenv("COLUMNS", "50")
    values = ["[a,b]", "[/c]", "[red]"]
    jobs = [Job(i, f"{i:08x}", [f"dataset.columns.leave_out={value}"], {}, {}) for i, value in enumerate(values)]
    sweep = Sweep(tmp_path / "[bold]", "k", "c", "c", jobs)
    keys = ["dataset.columns.leave_out"]
    console = make_console()
    show_plan(console, sweep, keys)
    plan = capsys.readouterr().out
    view = View(console, sweep.folder, jobs, keys, METRIC, "max")
    for one in jobs:
        view.observe(Exited(one.number, lane=0, status=0), Ending(metrics={METRIC: 0.5}))
        view.observe(
            Exited(one.number, lane=0, status=1), Ending(reason="There is no column [/x] in this very long sentence.")
        )
    ends = capsys.readouterr().out.splitlines()
    assert len(ends) == 2 * len(jobs)
    monkeypatch.setenv("COLUMNS", "100")
    show_failures(make_console(), sweep, jobs, keys)
    failures = capsys.readouterr().out
    for i, value in enumerate(values):
        assert value in plan
        assert f"leave_out={value}  val/accuracy 0.5000" in ends[2 * i]
        assert f"leave_out={value}  There is no column [/x] in this very long sentence." in ends[2 * i + 1]
        assert f"leave_out={value}" in failures
        assert f"{jobs[i].name}/status.json" in failures


def test_the_newest_value_of_a_file_that_grows(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert read_newest(path, "loss") is None
    path.write_text("".join(f'{{"epoch": {i}, "loss": {i / 2}}}\n' for i in range(1000)) + '{"step": 1}\n{"loss": 7')
    assert read_newest(path, "loss") == 999 / 2
    assert read_newest(path, "other") is None


# -- the end ------------------------------------------------------------------------------------------------------


def test_the_end_names_the_best_setting_its_spread_and_what_failed(make_sweep):
    values = {(lr, seed): lr + seed / 100 for lr in (0.5, 0.25) for seed in (0, 1, 2)}
    folder = make_sweep({**values, (1.0, 0): "failed", (1.0, 1): None})
    (sentence,) = summarise(folder, METRIC)
    assert sentence == (
        "The best of 2 settings by val/accuracy is lr=0.5 with 0.510 ± 0.010 over 3 seeds; "
        "6 of 8 jobs done, 1 failed, 1 not started."
    )


def test_the_end_without_seeds_a_tie_or_a_result(make_sweep, tmp_path):
    folder = make_sweep({(0.5, 0): 0.75, (0.25, 0): 0.75, (0.1, 0): 0.5})
    (sentence,) = summarise(folder, METRIC)
    assert sentence == (
        "The best of 3 settings by val/accuracy is lr=0.5 with 0.7500, the same mean as 1 other; 3 of 3 jobs done."
    )


def test_the_end_of_a_sweep_without_a_finished_job(make_sweep):
    (sentence,) = summarise(make_sweep({(0.5, 0): "failed"}), METRIC)
    assert sentence.startswith("0 of 1 jobs done.")
    assert "(1 failed)" in sentence
