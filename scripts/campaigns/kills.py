"""`kill -9` at random instants of runs and of sweeps: after the same command again, every result has the same bits."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

from campaigns.processes import COMMANDS, Problem, TooLate, Trial, parent_of, wait_until
from dl_lab.configs.identity import code_fingerprint

QUICK = [
    "dataset.source=generated",
    "trainer.checkpoint_seconds=0",
    "callbacks.curves=null",
    "callbacks.confusion_matrix=null",
    "threads=1",
]
SMALL = [*QUICK, "dataset.n_generated=256", "trainer.batch_size=8", "trainer.max_epochs=6"]
# One run of each kind of state that a checkpoint has to keep.
RUNS = {
    "mlp": SMALL,
    "dropout": [*SMALL, "model.dropout=0.5", "optimizer=adamw"],
    "streamed": [*SMALL, "dataset.loading.residence=stream", "dataset.loading.workers=2"],
    "bf16": [*SMALL, "learner.precision=bf16"],
    "accumulation": [*SMALL, "learner.accumulation=2", "learner.clip_norm=1.0", "optimizer=rmsprop"],
    "one cycle": [*SMALL, "scheduler=one_cycle", "learner.schedule_every=step"],
    "plateau": [*SMALL, "scheduler=plateau", "optimizer=sgd_momentum"],
    "early stopping": [*SMALL, "callbacks=early_stopping", "callbacks.early_stopping.patience=2"],
    "perceptron": ["experiment=toy_perceptron", "threads=1", "trainer.checkpoint_seconds=0"],
    "numpy mlp": ["experiment=octmnist_mlp_numpy", *QUICK, "dataset.n_generated=256", "trainer.max_epochs=6"],
    "convolutions": ["experiment=octmnist_cnn", *QUICK, "dataset.n_generated=128", "trainer.max_epochs=4"],
    "bilstm": ["experiment=imdb_bilstm", "profile=smoke", "trainer.max_epochs=3", "trainer.checkpoint_seconds=0"],
    "vae": ["experiment=mnist_vae", *QUICK, "dataset.n_generated=128", "trainer.max_epochs=4"],
    "ctc": ["experiment=tone_speech_ctc", "profile=smoke", "trainer.max_epochs=3", "trainer.checkpoint_seconds=0"],
}
JOBS = [*QUICK, "dataset.n_generated=256", "trainer.batch_size=8", "trainer.max_epochs=4"]
SWEEPS = {
    "grid": [*JOBS, "optimizer.lr=0.01,0.02", "seed=0,1"],
    "zip": [*JOBS, "--zip", "optimizer.lr=0.01,0.02,0.03 seed=0,1,2"],
    "search": [*JOBS, "search=random", "n_trials=4", "lanes=1", "optimizer.lr=interval(0.01,0.1)"],
}
DEEP = ["experiment=imdb_bilstm", "profile=smoke", "model.n_layers=3", "trainer.max_epochs=3", "threads=1"]
MALLOC_DEBUG = "libc_malloc_debug.so.0"  # glibc's checks of every malloc and free
VICTIMS = ("sweep", "server", "job")
SAME_BYTES = ("metrics.jsonl", "losses.f64", "checkpoints/last.safetensors", "checkpoints/best.safetensors")


def kill_run(work: Path, rng: random.Random, name: str) -> None:
    """Kill one run one to three times, resume it each time, and compare it with the undisturbed one."""
    whole, seconds = run_undisturbed(work, name, [*RUNS[name], "hydra.run.dir=run"])
    trial = Trial(work / "trial")
    run = trial.folder / "run"
    n_kills = 0
    for _ in range(rng.randint(1, 3)):
        process = trial.start(*_next_command(trial, name))
        if rng.random() < 0.7:  # most of a short run is its start: aim at the training more often
            wait_until((run / "metrics.jsonl").exists, 20)
            time.sleep(rng.uniform(0, seconds / 4))
        else:
            time.sleep(rng.uniform(0, seconds))
        n_kills += kill(process)
        trial.expect_no_orphan()
        if _state(run) == "done":
            break
    if not n_kills:
        raise TooLate("the run was over before it could be killed")
    if _state(run) != "done":
        trial.run(*_next_command(trial, name))
    trial.expect_no_orphan()
    expect_same_run(whole / "run", run)


def interrupt_deep_run(work: Path, rng: random.Random, number: int) -> None:
    """Interrupt a three-layer BiLSTM with Ctrl-C or SIGTERM, and resume it. glibc must not find its heap damaged.

    "corrupted size vs. prev_size" was seen twice in such runs, with torch 2.11. Every second trial checks each malloc.
    """
    command = [*DEEP, "trainer.checkpoint_seconds=0", "hydra.run.dir=run"]
    whole, seconds = run_undisturbed(work, "deep bilstm", command)
    checks = {"LD_PRELOAD": MALLOC_DEBUG, "GLIBC_TUNABLES": "glibc.malloc.check=3", "MALLOC_PERTURB_": "165"}
    trial = Trial(work / "trial", checks if number % 2 else {})
    run = trial.folder / "run"
    process = trial.start(*command)
    wait_until(lambda: (run / "status.json").exists() or process.poll() is not None, 120)
    time.sleep(rng.uniform(0, seconds))
    sent = rng.choice((signal.SIGINT, signal.SIGTERM))
    process.send_signal(sent)
    code = process.wait(120)
    trial.expect_no_orphan()
    has_crashed = code < 0 and code != -sent  # before and after the training, the signal itself ends the process
    if has_crashed or "Traceback" in trial.output() or "corrupted" in trial.output():
        raise Problem(f"an interruption ends the run with {code}: {trial.output()[-300:]!r}")
    if code == 0:
        raise TooLate("the run was over before it could be interrupted")
    if _state(run) != "done":
        trial.run("resume", "run")
    expect_same_run(whole / "run", run)


def _next_command(trial: Trial, name: str) -> list[str]:
    """The run's command, or how it continues once its folder exists."""
    run = trial.folder / "run"
    if (run / "config.yaml").exists() and (run / "env.json").exists():
        return ["resume", "run"]
    shutil.rmtree(run, ignore_errors=True)  # nothing was recorded yet: what a user would do as well
    return [*RUNS[name], "hydra.run.dir=run"]


def kill_sweep(work: Path, rng: random.Random, name: str, victim: str) -> None:
    """Kill the sweep, one of its servers or one of its jobs; type the command again until every job is done."""
    command = ["-m", *SWEEPS[name]]
    whole, seconds = run_undisturbed(work, f"sweep {name}", command)
    trial = Trial(work / "trial")
    process = trial.start(*command)
    if rng.random() < 0.7:
        wait_until(
            lambda: [*trial.folder.glob("outputs/sweeps/*/*/*/metrics.jsonl")] or process.poll() is not None, 120
        )
        time.sleep(rng.uniform(0, seconds / 3))
    else:
        time.sleep(rng.uniform(0, seconds))
    if not _kill_victim(trial, process, victim, rng):
        process.wait(600)
        raise TooLate(f"there was no {victim} to kill")
    for _ in range(3):
        if process.poll() is None:
            process.wait(600)
        trial.expect_no_orphan()
        process = trial.start(*command)
        if process.wait(600) == 0:
            break
    else:
        raise Problem(f"the sweep did not end well after three more tries: {trial.output()[-300:]!r}")
    trial.expect_no_orphan()
    if "Traceback" in trial.output():
        raise Problem(f"a traceback was printed: {trial.output()[-300:]!r}")
    expect_same_sweep(whole, trial.folder)


def has_begun(trial: Trial) -> bool:
    """Whether a job of the trial's sweep has recorded an epoch."""
    return any(trial.folder.glob("outputs/sweeps/*/*/*/metrics.jsonl"))


def _kill_victim(trial: Trial, process: subprocess.Popen[bytes], victim: str, rng: random.Random) -> bool:
    """Kill the sweep, one of its servers or one of its jobs; returns whether there was one."""
    if victim == "sweep" or process.poll() is not None:
        return kill(process)
    while process.poll() is None:  # a sweep has no job between two of them
        servers = [pid for pid in trial.living() if parent_of(pid) == process.pid]
        jobs = [pid for pid in trial.living() if parent_of(pid) in servers]
        candidates = servers if victim == "server" else jobs
        if candidates:
            with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
                os.kill(rng.choice(candidates), signal.SIGKILL)
                return True
    return False


def kill(process: subprocess.Popen[bytes]) -> bool:
    """Kill a process and wait for its end; returns whether it was alive."""
    is_alive = process.poll() is None
    if is_alive:
        process.kill()
    return process.wait() == -signal.SIGKILL and is_alive


def run_undisturbed(work: Path, name: str, command: list[str]) -> tuple[Path, float]:
    """The folder of the command that nothing disturbed, executed once; and how long that took, in seconds."""
    folder = work / "undisturbed" / code_fingerprint() / name.replace(" ", "_")
    finished = folder / "seconds.json"
    if not finished.exists():
        shutil.rmtree(folder, ignore_errors=True)
        is_forked = COMMANDS.enabled
        COMMANDS.enabled = True  # the time without the imports, in which nothing can be lost
        began = time.monotonic()
        Trial(folder).run(*command)
        COMMANDS.enabled = is_forked
        finished.write_text(json.dumps(time.monotonic() - began))
    return folder, json.loads(finished.read_text())


def _state(run: Path) -> str:
    try:
        return str(json.loads((run / "status.json").read_text())["state"])
    except (OSError, ValueError, KeyError):
        return "nothing"


def expect_same_run(whole: Path, run: Path) -> None:
    """Raise Problem where two finished runs differ in a byte of a result, a record, or a TensorBoard scalar."""
    if _state(run) != "done":
        raise Problem(f"the run is {_state(run)}, not done")
    for name in SAME_BYTES:
        if _content(whole / name) != _content(run / name):
            raise Problem(f"{name} differs")
    if _scalars(whole) != _scalars(run):
        raise Problem("the TensorBoard scalars differ")
    left = [path.name for path in run.rglob(".*.tmp")]
    if left:
        raise Problem(f"half-written files were left: {left}")


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """The scalars of all event files of a run, without those that measure its speed."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run), size_guidance={"scalars": 0})
    board.Reload()
    names = [name for name in board.Tags()["scalars"] if not name.startswith("speed/")]
    return {name: [(event.step, event.value) for event in board.Scalars(name)] for name in names}


def expect_same_sweep(whole: Path, folder: Path) -> None:
    """Raise Problem where two finished sweeps have different jobs, tables or results."""
    one, other = _sweep_folder(whole), _sweep_folder(folder)
    if _table(one) != _table(other):
        raise Problem("results.csv differs")
    jobs = [path.parent.name for path in one.glob("*/summary.json")]
    if sorted(jobs) != sorted(path.parent.name for path in other.glob("*/summary.json")):
        raise Problem("the sweeps have different jobs")
    for name in jobs:
        expect_same_run(one / name, other / name)


def _sweep_folder(folder: Path) -> Path:
    plans = [*folder.glob("outputs/sweeps/*/*/sweep.yaml")]
    if len(plans) != 1:
        raise Problem(f"there are {len(plans)} sweep folders, not one")
    return plans[0].parent


def _table(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if "second" not in key} for row in rows]
