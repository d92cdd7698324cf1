"""Jobs that another terminal adds to a sweep while it runs (`--extend`)."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from dl_lab.sweeps import plan, plan_file, queue
from dl_lab.sweeps.growing_grid import GrowingGrid

WORK = """
import time
from pathlib import Path

def work(run):
    while run.config["seed"] == 0 and not Path("go").exists():
        time.sleep(0.02)
    return {"seed": float(run.config["seed"])}
"""


# The command, in a process that loses a race: just before it locks the sweep's folder, another terminal runs the sweep
# from its start to its end. That terminal's seeds are in the variable RIVAL.
LATE = """
import os, subprocess, sys
from dl_lab import cli
from dl_lab.sweeps import plan

try_lock = plan.Sweep.try_lock

def lose_the_race(sweep):
    plan.Sweep.try_lock = try_lock
    words = [word for word in sys.argv[1:] if not word.startswith("seed=")]
    subprocess.run([sys.executable, "-m", "dl_lab", *words, os.environ["RIVAL"]], check=True, capture_output=True)
    return try_lock(sweep)

plan.Sweep.try_lock = lose_the_race
sys.exit(cli.main(sys.argv[1:]))
"""


class Terminals:
    """Terminals in one project, whose job with seed=0 waits for the file `go`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "mine.py").write_text(WORK)
        (folder / "own" / "procedure").mkdir(parents=True)
        (folder / "own" / "procedure" / "work.yaml").write_text("_target_: mine.work\n_partial_: true\n")

    def start(self, *words: str, program: tuple[str, ...] = ("-m", "dl_lab")) -> subprocess.Popen:
        fixed = ["-m", "--config-dir", "own", "procedure=work", "lanes=1", "logger=none", "threads=1"]
        return subprocess.Popen(
            [sys.executable, *program, *fixed, *words],
            cwd=self.folder,
            env={**os.environ, "COLUMNS": "160", "DL_LAB_ALLOW": "mine", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *words: str) -> tuple[int, str]:
        return finish(self.start(*words))

    def start_and_wait(self, *words: str) -> subprocess.Popen:
        """Start a sweep and wait until its first job runs."""
        process = self.start(*words)
        while not list(self.folder.glob("outputs/sweeps/*/*/0_*/status.json")):
            assert process.poll() is None, finish(process)[1]
            time.sleep(0.05)
        return process

    def let_go(self) -> None:
        (self.folder / "go").touch()

    @property
    def sweep(self) -> Path:
        (path,) = self.folder.glob("outputs/sweeps/*/*/sweep.yaml")
        return path.parent

    def seeds_of_plan(self) -> list[str]:
        jobs = yaml.safe_load((self.sweep / "sweep.yaml").read_text())["jobs"]
        return [job["overrides"][0] for job in jobs]

    def results(self) -> list[float]:
        rows = csv.DictReader((self.sweep / "results.csv").read_text().splitlines())
        return [float(row["seed"]) for row in rows]


def finish(process: subprocess.Popen) -> tuple[int, str]:
    text, _ = process.communicate(timeout=240)
    assert "Traceback (most recent call last)" not in text, text
    return process.returncode, text


@pytest.fixture
def terminals(tmp_path) -> Terminals:
    return Terminals(tmp_path)


def test_another_terminal_adds_jobs_to_a_sweep_that_runs(terminals):
    first = terminals.start_and_wait("seed=0,1")
    status, text = terminals.run("seed=0,-1", "--extend")
    assert status == 2, text
    assert not (terminals.sweep / "queue").exists(), "a wrong job was added"
    status, text = terminals.run("seed=0,1,2,3", "--extend")
    assert status == 0, text
    assert "Added to the sweep that runs in" in text and "2 jobs." in text
    status, text = terminals.run("seed=2,3", "--extend")
    assert status == 0
    assert "has these jobs already" in text
    status, text = terminals.run("seed=0,1")
    assert status == 1
    assert "Another process is running this sweep" in text and "--extend adds jobs to it while it runs" in text
    terminals.let_go()
    status, text = finish(first)
    assert status == 0, text
    assert "Added from another terminal: seed=2; seed=3." in text
    assert "4/4 seed=3" in text, "the total did not grow"
    assert "4 of 4 jobs done" in text
    assert terminals.seeds_of_plan() == ["seed=0", "seed=1", "seed=2", "seed=3"]
    assert terminals.results() == [0.0, 1.0, 2.0, 3.0]
    assert not (terminals.sweep / "queue").exists()
    status, text = terminals.run("seed=0,1")
    assert status == 0, text
    assert text.count("skip: done on") == 4, "the first command continues the jobs that were added"


@pytest.mark.parametrize("rival", ["seed=0,1", "seed=0,2"])
def test_jobs_are_matched_after_the_lock_is_taken(terminals, monkeypatch, rival):
    monkeypatch.setenv("RIVAL", rival)
    terminals.let_go()
    status, text = finish(terminals.start("seed=0,1", "hydra.sweep.dir=outputs/sweeps/x/y", program=("-c", LATE)))
    if rival == "seed=0,1":
        assert status == 0, text
        assert text.count("skip: done on") == 2, "the other terminal had run both jobs"
    else:
        assert status == 1, text
        assert "started before with another grid" in text
    assert terminals.seeds_of_plan() == rival.replace(",", " seed=").split()
    assert not (terminals.sweep / "set_aside").exists(), "a finished job ran again"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_the_next_start_takes_jobs_that_were_added_to_a_sweep_that_ended(terminals, number):
    first = terminals.start_and_wait("seed=0,1")
    status, text = terminals.run("seed=1,2", "--extend")
    assert status == 0, text
    first.send_signal(number)
    _, text = finish(first)
    if number == signal.SIGINT:
        assert "Added, but not started: seed=2." in text
    assert terminals.seeds_of_plan() == ["seed=0", "seed=1"]
    terminals.let_go()
    status, text = terminals.run("seed=0,1")
    assert status == 0, text
    assert "3 of 3 jobs done" in text
    assert terminals.results() == [0.0, 1.0, 2.0]


def make_job(number: int) -> plan.Job:
    config = {"procedure": {"trainer": {"monitor": "val/loss"}}, "lr": float("inf")}
    return plan.Job(number, f"{number:08x}", [f"seed={number}"], config, {"model": "mlp"}, data="d", own="o")


@pytest.fixture
def running(tmp_path) -> plan.Sweep:
    one = plan.Sweep(tmp_path, "k", "dl-lab -m", "c", [make_job(0)])
    one.write()
    return one


def test_a_queue_gives_back_the_jobs_that_it_was_given(running):
    grid = GrowingGrid(running, running.jobs, None)
    assert grid.ask(running) is None
    assert queue.offer(running.folder, [make_job(7), make_job(8)])
    assert queue.offer(running.folder, [make_job(8)])
    taken = [grid.ask(running), grid.ask(running), grid.ask(running)]
    assert [job and (job.number, job.id, job.overrides) for job in taken] == [
        (1, "00000007", ["seed=7"]),
        (2, "00000008", ["seed=8"]),
        None,
    ]
    assert taken[0] is not None
    assert taken[0].config == make_job(7).config
    assert (taken[0].data, taken[0].own, taken[0].choices) == ("d", "o", {"model": "mlp"})
    assert grid.total() == 3
    assert [job["id"] for job in plan_file.read_plan(running.folder)["jobs"]] == ["00000000", "00000007", "00000008"]
    assert sorted(plan_file.read_frozen(running.folder)) == [0, 1, 2]


def test_a_queue_is_closed_after_the_last_job_and_not_before(running):
    grid = GrowingGrid(running, list(running.jobs), None)
    assert grid.ask(running) is None
    assert queue.offer(running.folder, [make_job(7)]), "a job runs: the queue is open"
    grid.note_end(running.jobs[0])
    job = grid.ask(running)
    assert job is not None and job.number == 1
    assert grid.ask(running) is None
    grid.note_end(job)
    assert grid.ask(running) is None
    assert not queue.offer(running.folder, [make_job(8)]), "nobody would take this job"
    GrowingGrid(running, [], None)
    assert queue.offer(running.folder, [make_job(8)]), "the next start opens the queue"


def test_a_file_in_the_queue_that_is_no_job_is_ignored(running):
    (running.folder / "queue").mkdir()
    for i, text in enumerate(
        ['{"id": "../../x", "overrides": [], "config": {"procedure": {}}}', "[]", "{", '{"id": 3}']
    ):
        (running.folder / "queue" / f"{i}.json").write_text(text)
    assert queue.read(running.folder) == []


def test_a_job_that_is_added_to_a_grid_with_a_pruner_reports_to_it(running):
    pytest.importorskip("optuna")
    from dl_lab.sweeps import journal
    from dl_lab.sweeps.pruned_grid import PrunedGrid

    pruned = PrunedGrid(running.folder, {"_target_": "optuna.pruners.MedianPruner"}, "val/loss", "min")
    pruned.enter(running.jobs[0])
    grid = GrowingGrid(running, running.jobs, pruned)
    queue.offer(running.folder, [make_job(7)])
    job = grid.ask(running)
    assert job is not None
    assert '"trial": 1' in job.files[journal.REPORT_FILE]
