"""Sweeps as a user runs them: real processes, killed at awkward moments."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from dl_lab import configs
from dl_lab.runs.claims import claimed
from dl_lab.sweeps import families
from dl_lab.sweeps.expand import expand
from dl_lab.types import ConfigError

FAST = [
    "dataset.source=generated",
    "dataset.n_generated=256",
    "trainer.batch_size=8",
    "trainer.checkpoint_seconds=0",
    "callbacks.curves=null",
    "callbacks.confusion_matrix=null",
    "lanes=2",
    "threads=1",
]
GRID = ["trainer.max_epochs=6", "optimizer.lr=0.01,0.001", "seed=0,1"]


def start(
    folder: Path, *arguments: str, env: dict[str, str] | None = None, settings: Sequence[str] = FAST
) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "dl_lab", "-m", *settings, *arguments],
        cwd=folder,
        env={**os.environ, "COLUMNS": "120", **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen, timeout: float = 120) -> tuple[int, str]:
    text, _ = process.communicate(timeout=timeout)
    assert "Traceback" not in text, text
    return process.returncode, text


def sweep(folder: Path, *arguments: str) -> tuple[int, str]:
    return finish(start(folder, *arguments))


def the_sweep(folder: Path) -> Path:
    (found,) = folder.glob("outputs/sweeps/*/*/sweep.yaml")
    return found.parent


def jobs(folder: Path) -> list[Path]:
    plan = yaml.safe_load((the_sweep(folder) / "sweep.yaml").read_text())
    return [the_sweep(folder) / f"{job['number']}_{job['id']}" for job in plan["jobs"]]


def state(job: Path) -> str:
    return json.loads((job / "status.json").read_text())["state"]


def results(folder: Path) -> list[tuple[str, bytes, bytes]]:
    """Return what must be the same for every job, whatever interrupted it."""
    return [
        (job.name, (job / "metrics.jsonl").read_bytes(), (job / "checkpoints" / "last.safetensors").read_bytes())
        for job in jobs(folder)
    ]


def wait_for(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def checkpoints(folder: Path) -> int:
    return len(list(folder.glob("outputs/sweeps/*/*/*/checkpoints/last.pt")))


def processes_of(folder: Path) -> list[int]:
    """Every live process whose working folder is this one (a sweep's servers and jobs inherit it)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
                if status != "Z" and (entry / "cwd").readlink() == folder.resolve():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """An undisturbed sweep."""
    folder = tmp_path_factory.mktemp("whole")
    code, text = sweep(folder, *GRID)
    assert code == 0, text
    return folder


def test_every_job_is_a_normal_run_with_its_result(whole):
    assert [state(job) for job in jobs(whole)] == ["done"] * 4
    rows = list(csv.DictReader((the_sweep(whole) / "results.csv").read_text().splitlines()))
    assert [(row["optimizer.lr"], row["seed"]) for row in rows] == [(a, b) for a in ("0.01", "0.001") for b in "01"]
    for row, job in zip(rows, jobs(whole), strict=True):
        assert float(row["test/accuracy"]) == json.loads((job / "summary.json").read_text())["metrics"]["test/accuracy"]
        assert any(job.glob("events.out.tfevents.*"))
    assert len({row["val/loss"] for row in rows}) == 4, "jobs that differ gave the same loss"


def test_a_job_gives_the_bits_of_the_same_single_run(whole, execute):
    folder, _ = execute(*FAST[:-2], "trainer.max_epochs=6", "optimizer.lr=0.01", "seed=1")
    assert (folder / "metrics.jsonl").read_bytes() == (jobs(whole)[1] / "metrics.jsonl").read_bytes()


def test_the_same_command_again_skips_finished_jobs(whole):
    before = results(whole)
    stamps = [(job / "summary.json").stat().st_mtime_ns for job in jobs(whole)]
    code, text = sweep(whole, *GRID)
    assert code == 0
    assert text.count("skip: done on") == 4
    assert [(job / "summary.json").stat().st_mtime_ns for job in jobs(whole)] == stamps
    assert results(whole) == before


def test_a_changed_grid_is_refused_unless_extended(whole, tmp_path):
    import shutil

    shutil.copytree(whole / "outputs", tmp_path / "outputs")
    changed = ["trainer.max_epochs=6", "optimizer.lr=0.01,0.001", "seed=0,1,2"]
    code, text = sweep(tmp_path, *changed)
    assert code == 1
    assert "--extend" in text
    assert "2 new" in text
    code, text = sweep(tmp_path, *changed, "--extend")
    assert code == 0, text
    assert text.count("skip: done on") == 4
    assert [state(job) for job in jobs(tmp_path)] == ["done"] * 6
    assert results(tmp_path)[:4] == results(whole)


def test_dry_run_shows_the_plan_and_starts_nothing(tmp_path, whole):
    code, text = sweep(tmp_path, *GRID, "--dry-run")
    assert code == 0
    assert "4 jobs" in text
    assert not (tmp_path / "outputs").exists()
    code, text = sweep(whole, *GRID, "--dry-run")
    assert "4 skip" in text


def test_dry_run_estimates_from_earlier_runs(whole):
    code, text = sweep(whole, "trainer.max_epochs=3", "optimizer.lr=0.02,0.03", "--dry-run")
    assert code == 0
    assert "from the throughput of earlier runs" in text


@pytest.mark.parametrize("whom", ["sweep", "server"])
def test_a_sweep_that_was_killed_and_typed_again_is_bit_identical(whole, tmp_path, whom):
    process = start(tmp_path, *GRID)
    wait_for(lambda: checkpoints(tmp_path) >= 2)
    if whom == "sweep":
        process.kill()
        process.communicate()
        wait_for(lambda: not processes_of(tmp_path), seconds=10)  # nothing is left behind
        assert any(state(job) != "done" for job in jobs(tmp_path) if (job / "status.json").exists())
        code, text = sweep(tmp_path, *GRID)
        assert "resume: killed in epoch" in text
    else:
        server = next(pid for pid in processes_of(tmp_path) if parent(pid) == process.pid)
        os.kill(server, signal.SIGKILL)
        code, text = finish(process)
        assert "its lane was killed" in text
    assert code == 0, text
    assert results(tmp_path) == results(whole)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def test_a_killed_job_fails_alone_and_is_resumed_next_time(whole, tmp_path):
    process = start(tmp_path, *GRID)
    wait_for(lambda: checkpoints(tmp_path) >= 1)
    running = [job for job in jobs(tmp_path) if (job / "status.json").exists() and state(job) == "running"]
    os.kill(json.loads((running[0] / "status.json").read_text())["pid"], signal.SIGKILL)
    code, text = finish(process)
    assert code == 1
    assert "killed by signal 9" in text
    assert "3 of 4 jobs done" in text
    code, text = sweep(tmp_path, *GRID)
    assert code == 0, text
    assert results(tmp_path) == results(whole)


def test_ctrl_c_saves_every_job_and_the_same_command_continues(whole, tmp_path):
    process = start(tmp_path, *GRID)
    wait_for(lambda: checkpoints(tmp_path) >= 2)
    process.send_signal(signal.SIGINT)
    code, text = finish(process)
    assert code == 130
    assert "Type the same command again to run what is left" in text
    assert not processes_of(tmp_path)
    assert "interrupted" in {state(job) for job in jobs(tmp_path) if job.exists()}
    code, text = sweep(tmp_path, *GRID)
    assert code == 0, text
    assert results(tmp_path) == results(whole)


FAILING = ["trainer.max_epochs=1", "optimizer=sgd", "optimizer.lr=0.01,1e30,0.02"]


def test_one_failing_job_does_not_stop_the_others(tmp_path):
    code, text = sweep(tmp_path, *FAILING)
    assert code == 1
    assert [state(job) for job in jobs(tmp_path)] == ["done", "failed", "done"]
    assert "1 failed" in text
    assert "The training loss became" in text
    error = json.loads((jobs(tmp_path)[1] / "status.json").read_text())["error"]
    assert "Traceback" in error["traceback"]
    code, text = sweep(tmp_path, *FAILING)
    assert code == 1, "a sweep with a failed job is not done"
    assert text.count("skip: ") == 3
    code, text = sweep(tmp_path, *FAILING, "--retry-failed")
    assert code == 1
    assert "retry: failed with" in text
    assert len(list((the_sweep(tmp_path) / "set_aside").iterdir())) == 1


def test_on_failure_stop_starts_no_further_job(tmp_path):
    code, _ = sweep(
        tmp_path, "trainer.max_epochs=1", "optimizer=sgd", "optimizer.lr=1e30,0.01,0.02", "on_failure=stop", "lanes=1"
    )
    assert code == 1
    assert [job.exists() for job in jobs(tmp_path)] == [True, False, False]


def test_a_wrong_job_is_found_before_any_starts(tmp_path):
    code, text = sweep(tmp_path, "trainer.max_epochs=1", "model.hidden=[8],[-1]")
    assert code == 2
    assert "Job 1" in text
    assert not list(tmp_path.glob("outputs/sweeps/*/*/*/status.json"))


@pytest.mark.parametrize("what", ["sweep=speech", "experiment=lj_speech_lstm,lj_speech_ctc"])
def test_a_fixed_key_may_belong_to_the_swept_experiments_only(what):
    """dataset.pad_frames is no key of the default config's digits."""
    composer = configs.Composer()
    for word, wrong in (("dataset.pad_frames=null", ""), ("dataset.pad_frame=null", "Did you mean dataset.pad_frames")):
        expanded = expand(composer, [what, word, "lanes=1"], {})
        assert expanded.fixed == [word, "lanes=1"]
        jobs = [[*expanded.fixed, *job] for job in expanded.jobs()]
        assert len(jobs) > 1
        if not wrong:
            composed = families.compose_all(composer.compose, composer.group_names(), jobs)
            assert {one.config["dataset"]["pad_frames"] for one in composed} == {None}
            continue
        with pytest.raises(ConfigError, match=wrong):
            families.compose_all(composer.compose, composer.group_names(), jobs)


def test_a_rate_that_the_optimizer_refuses_is_found_before_any_job_starts(tmp_path):
    code, text = sweep(tmp_path, "trainer.max_epochs=1", "optimizer.lr=0.1,-0.5,0.01", "seed=0,1")
    assert code == 2
    assert "Job 2: " in text and "-0.5" in text
    code, text = sweep(tmp_path, "trainer.max_epochs=1", "deterministic=true,7")
    assert code == 2
    assert "Job 1: deterministic: " in text
    assert not list(tmp_path.glob("outputs/sweeps/*/*"))


def test_a_failed_check_leaves_the_users_own_folder_as_it_is(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "note.txt").write_text("why")
    code, text = sweep(tmp_path, "hydra.sweep.dir=mine", "optimizer.lr=0.1,-0.5")
    assert code == 2, text
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["note.txt"]


def test_two_sweeps_at_once_share_no_folder(tmp_path):
    one = start(tmp_path, "trainer.max_epochs=2", "seed=0,1", "--new")
    two = start(tmp_path, "trainer.max_epochs=2", "seed=0,1", "--new")
    assert (finish(one)[0], finish(two)[0]) == (0, 0)
    plans = list(tmp_path.glob("outputs/sweeps/*/*/sweep.yaml"))
    assert len(plans) == 2
    assert len(list(tmp_path.glob("outputs/sweeps/*/*/*/summary.json"))) == 4


def test_the_same_sweep_at_the_same_time_is_refused(tmp_path):
    first = start(tmp_path, "trainer.max_epochs=500", "seed=0,1")
    wait_for(lambda: checkpoints(tmp_path) >= 1)
    code, text = sweep(tmp_path, "trainer.max_epochs=500", "seed=0,1")
    first.send_signal(signal.SIGTERM)
    assert finish(first)[0] == 130
    assert code == 1
    assert "Another process is running this sweep" in text


def test_damaged_weights_do_not_count_as_finished(tmp_path):
    grid = ["trainer.max_epochs=1", "seed=0,1"]
    assert sweep(tmp_path, *grid)[0] == 0
    weights = jobs(tmp_path)[0] / "checkpoints" / "best.safetensors"
    whole_bytes = weights.read_bytes()
    weights.write_bytes(whole_bytes[:-10])
    code, text = sweep(tmp_path, *grid)
    assert code == 0
    assert "retry: its weights are not readable" in text
    assert (jobs(tmp_path)[0] / "checkpoints" / "best.safetensors").read_bytes() == whole_bytes


def test_a_fresh_process_for_each_job_gives_the_same_results(whole, tmp_path):
    """Each of them imports torch: two jobs of the grid's four, those of seed 1."""
    code, text = sweep(tmp_path, *GRID[:-1], "seed=1", "job_process=fresh")
    assert code == 0, text
    wanted = [files for _, *files in results(whole)[1::2]]
    assert [files for _, *files in results(tmp_path)] == wanted


def test_sweep_files_and_hydra_mode_start_sweeps(tmp_path):
    configs = tmp_path / "own" / "sweep"
    configs.mkdir(parents=True)
    (configs / "mine.yaml").write_text(
        "# Does zip work?\ngrid: {seed: [0, 1]}\nzip: {optimizer.lr: [0.1, 0.01], model.dropout: [0.0, 0.5]}\n"
        "list: [{seed: 7}]\nexclude: [{seed: 1, optimizer.lr: 0.01}]\n"
    )
    code, text = sweep(tmp_path, "--config-dir", str(tmp_path / "own"), "sweep=mine", "trainer.max_epochs=1")
    assert code == 0, text
    plan = yaml.safe_load((the_sweep(tmp_path) / "sweep.yaml").read_text())
    assert [job["overrides"] for job in plan["jobs"]] == [
        ["seed=0", "optimizer.lr=0.1", "model.dropout=0.0"],
        ["seed=0", "optimizer.lr=0.01", "model.dropout=0.5"],
        ["seed=1", "optimizer.lr=0.1", "model.dropout=0.0"],
        ["seed=7"],
    ]
    other = tmp_path / "other"
    other.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "dl_lab", *FAST, "trainer.max_epochs=1", "seed=0,1", "hydra.mode=MULTIRUN", "--dry-run"],
        cwd=other,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "2 jobs" in done.stdout


def test_code_that_is_edited_while_the_sweep_runs_changes_no_job(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import time\n\ndef work(run):\n    time.sleep(0.3)\n"
        "    assert run.config['seed'] != 1\n    return {'zero': 0.0}\n"
    )
    (tmp_path / "own" / "procedure").mkdir(parents=True)
    (tmp_path / "own" / "procedure" / "work.yaml").write_text("_target_: mine.work\n_partial_: true\n")
    words = ["--config-dir", "own", "procedure=work", "seed=range(4)", "lanes=1", "logger=none"]
    process = start(tmp_path, *words, env={"DL_LAB_ALLOW": "mine"}, settings=["threads=1"])  # it reads no data set
    wait_for(lambda: list(tmp_path.glob("outputs/sweeps/*/*/0_*/summary.json")))
    (tmp_path / "mine.py").write_text("raise RuntimeError('edited')\n")
    code, text = finish(process)
    assert code == 1
    assert "3 of 4 jobs done" in text, text or "the lane's new process after the failed job has the code of the start"


def test_a_job_that_is_continued_by_hand_is_left_to_that_process(sweep):
    words = ("seed=1,2", "trainer.max_epochs=2", "hydra.sweep.dir=swept")
    folder = sweep(*words).jobs[0]
    status = json.loads((folder / "status.json").read_text())
    status |= {"state": "running", "pid": os.getpid()}
    (folder / "status.json").write_text(json.dumps(status))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with claimed(folder):
        again = sweep(*words)
    assert f"skip: running now in process {os.getpid()}, of another command" in again.text
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert again.states == ["running", "done"]
    assert sweep(*words).states == ["done", "done"]  # the number of the process alone says nothing
