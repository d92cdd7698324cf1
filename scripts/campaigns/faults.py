"""Faults under the file system: a full, a read-only and a broken disk, a clock set back, moved folders, stale locks.

Filling and remounting a disk needs root, on a file system in memory (tmpfs). A trial that cannot be made here is
skipped with a reason.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from campaigns.kills import JOBS, SMALL, expect_same_run, expect_same_sweep, has_begun, kill, run_undisturbed
from campaigns.processes import Problem, Skip, TooLate, Trial, wait_until

# Long enough to be killed after its first checkpoint.
RUN = [word for word in SMALL if not word.startswith("trainer.max_epochs")] + [
    "trainer.max_epochs=40",
    "hydra.run.dir=run",
]
MOST_WRITES = 400  # about as many as RUN makes
SWEEP = ["-m", *JOBS, "optimizer.lr=0.01,0.02", "seed=0,1"]


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A file system in memory of this size at `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() != 0:
        raise Skip("mounting a small file system needs root")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        raise Skip("this machine does not let root mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=False)


def remount(folder: Path, options: str) -> None:
    """Change the options of a mounted file system."""
    done = subprocess.run(
        ["mount", "-o", f"remount,{options}", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise Skip(f"remounting with {options} is not possible here: {done.stderr.strip()}")


def fill_disk(work: Path, rng: random.Random) -> None:
    """The disk is full at some write of a run; the run says so, and continues once there is room."""
    whole, _ = run_undisturbed(work, "long mlp", RUN)
    used = sum(path.stat().st_size for path in (whole / "run").rglob("*") if path.is_file()) // 1024
    with small_disk(work / "trial", rng.randint(16, 2 * used)) as folder:
        text = _run_on_failing_disk(folder, {})
        remount(folder, "size=64m")
        _expect_continuation(Trial(folder), text, "No space left on device", whole / "run")


def break_disk(work: Path, rng: random.Random) -> None:
    """The disk gives an I/O error at some write of a run and ever after; the run says so, and continues elsewhere."""
    whole, _ = run_undisturbed(work, "long mlp", RUN)
    folder = work / "trial"
    folder.mkdir()
    broken = {
        "LD_PRELOAD": str(_build_broken_disk(work)),
        "BROKEN_FOLDER": str(folder),
        "BROKEN_AFTER": str(rng.randint(0, MOST_WRITES)),
    }
    text = _run_on_failing_disk(folder, broken)
    _expect_continuation(Trial(folder), text, "Input/output error", whole / "run")


def _build_broken_disk(work: Path) -> Path:
    """Compile broken_disk.c, once."""
    library = work / "broken_disk.so"
    if not library.exists():
        compiler = shutil.which("cc")
        if compiler is None or sys.platform != "linux":
            raise Skip("the broken disk needs Linux and a C compiler")
        source = Path(__file__).with_name("broken_disk.c")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library


def _run_on_failing_disk(folder: Path, environment: dict[str, str]) -> str | None:
    """What the run said when it failed; None if it did not. Its output goes elsewhere."""
    elsewhere = Trial(folder.parent / "output of trial", environment)
    process = elsewhere.start(*RUN[:-1], f"hydra.run.dir={folder / 'run'}")
    code = process.wait(300)
    text = elsewhere.output()
    shutil.rmtree(elsewhere.folder)
    if "Traceback" in text:
        raise Problem(f"a failing disk gives a traceback: {text[-400:]!r}")
    if code < 0:
        raise Problem(f"a failing disk ends the run with signal {-code}: {text[-400:]!r}")
    return text if code else None


def _expect_continuation(trial: Trial, text: str | None, reason: str, whole: Path) -> None:
    """Raise Problem unless the message gives the reason, and the run, continued, is the same as the undisturbed one."""
    run = trial.folder / "run"
    if text is not None:
        if reason not in text:
            raise Problem(f"the message does not say {reason!r}: {text[-300:]!r}")
        _continue(trial, run)
    expect_same_run(whole, run)


def _continue(trial: Trial, run: Path) -> None:
    """Resume the run, or start it anew where nothing of it was recorded."""
    if (run / "config.yaml").exists() and (run / "status.json").exists() and (run / "env.json").exists():
        trial.run("resume", "run")
    else:
        shutil.rmtree(run, ignore_errors=True)
        trial.run(*RUN)


def make_read_only(work: Path, rng: random.Random) -> None:
    """The disk is read-only when a killed run is resumed; the command says so, and the run continues afterwards."""
    whole, seconds = run_undisturbed(work, "long mlp", RUN)
    with small_disk(work / "trial", 65536) as folder:
        run = _kill_after_start(Trial(folder), rng, seconds)
        remount(folder, "ro")
        elsewhere = Trial(work / "output of trial")
        text = elsewhere.run("resume", str(run), codes=(1,))
        if "Read-only file system" not in text:
            raise Problem(f"the message does not say that the disk is read-only: {text[-300:]!r}")
        shutil.rmtree(elsewhere.folder)
        remount(folder, "rw")
        Trial(folder).run("resume", "run")
        expect_same_run(whole / "run", run)


def set_clock_back(work: Path, rng: random.Random) -> None:
    """Every time that a killed run has noted lies a day in the future when it is resumed."""
    whole, seconds = run_undisturbed(work, "long mlp", RUN)
    trial = Trial(work / "trial")
    run = _kill_after_start(trial, rng, seconds)
    later = datetime.now(UTC) + timedelta(days=1)
    status = json.loads((run / "status.json").read_text())
    status.update(heartbeat=later.isoformat(timespec="seconds"), started=later.isoformat(timespec="seconds"))
    (run / "status.json").write_text(json.dumps(status))
    for path in run.rglob("*"):
        os.utime(path, (later.timestamp(), later.timestamp()))
    trial.run("runs")
    trial.run("resume", "run")
    expect_same_run(whole / "run", run)


def move_folder(work: Path, rng: random.Random) -> None:
    """The folder of a killed run has another name, on another machine, when it is resumed."""
    whole, seconds = run_undisturbed(work, "long mlp", RUN)
    trial = Trial(work / "trial")
    run = _kill_after_start(trial, rng, seconds)
    status = json.loads((run / "status.json").read_text())
    status.update(host="another-machine", heartbeat="2026-01-01T00:00:00+00:00")
    (run / "status.json").write_text(json.dumps(status))
    moved = trial.folder / "elsewhere" / "of another name"
    moved.parent.mkdir()
    if rng.random() < 0.5:
        shutil.move(run, moved)
    else:
        shutil.copytree(run, moved)
    trial.run("resume", str(moved))
    expect_same_run(whole / "run", moved)


def start_two_sweeps(work: Path, rng: random.Random) -> None:
    """The same sweep is typed twice at once; one of them does every job, the other says why it does not."""
    whole, seconds = run_undisturbed(work, "sweep faults", SWEEP)
    trial = Trial(work / "trial")
    first = trial.start(*SWEEP)
    time.sleep(rng.uniform(0, seconds))
    second = trial.start(*SWEEP)
    codes = (first.wait(600), second.wait(600))
    if 0 not in codes:
        raise Problem(f"neither of two sweeps ended well: {trial.output()[-400:]!r}")
    if "Traceback" in trial.output():
        raise Problem(f"a traceback was printed: {trial.output()[-400:]!r}")
    trial.expect_no_orphan()
    expect_same_sweep(whole, trial.folder)


def leave_stale_locks(work: Path, rng: random.Random) -> None:
    """A killed sweep left its lock file, dated in the future, as a network file system may keep it."""
    whole, seconds = run_undisturbed(work, "sweep faults", SWEEP)
    trial = Trial(work / "trial")
    process = trial.start(*SWEEP)
    wait_until(lambda: has_begun(trial) or process.poll() is not None, 120)
    time.sleep(rng.uniform(0, seconds / 3))
    kill(process)
    trial.expect_no_orphan()
    for lock in trial.folder.rglob("*lock*"):
        lock.write_text("999999\nanother-machine\n")
        os.utime(lock, (time.time() + 86400, time.time() + 86400))
    trial.run(*SWEEP)
    expect_same_sweep(whole, trial.folder)


def _kill_after_start(trial: Trial, rng: random.Random, seconds: float) -> Path:
    """Kill a run once it has a checkpoint, and return its folder."""
    process = trial.start(*RUN)
    run = trial.folder / "run"
    wait_until(lambda: (run / "checkpoints" / "last.pt").exists() or process.poll() is not None, 300)
    time.sleep(rng.uniform(0, seconds / 20))
    kill(process)
    trial.expect_no_orphan()
    if json.loads((run / "status.json").read_text())["state"] != "running":
        raise TooLate("the run was over before it could be killed")
    return run


FAULTS: dict[str, Callable[[Path, random.Random], None]] = {
    "disk full": fill_disk,
    "broken disk": break_disk,
    "read-only disk": make_read_only,
    "clock set back": set_clock_back,
    "folder moved or copied": move_folder,
    "two sweeps on one folder": start_two_sweeps,
    "stale locks": leave_stale_locks,
}
