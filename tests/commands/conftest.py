"""Fixtures: run folders that the recorder writes without a training, and ways to run the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from dl_lab import cli
from dl_lab.runs.board import NoBoard
from dl_lab.runs.recorder import Run

CONFIG = {
    "id": None,
    "seed": 0,
    "threads": None,
    "optimizer": {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1},
    "model": {"_target_": "dl_lab.models.mlp.MLP", "hidden": [8], "dropout": 0.0},
    "dataset": {"_target_": "dl_lab.datasets.sets.digits.digits", "source": "real", "n_classes": 10},
    "trainer": {"max_epochs": 5, "batch_size": 64, "seed": 0},
    "paths": {"output_dir": "outputs", "data_dir": "data"},
    "reference": {},
}


@pytest.fixture
def make_run(tmp_path):
    """Write a run folder below tmp_path/outputs. Returns the folder."""
    count = iter(range(10_000))

    def make(
        lr: float = 0.1,
        seed: int = 0,
        metrics: dict[str, float] | None = None,
        label: str = "full",
        state: str = "done",
        n_logged: int = 5,
        **choices: str,
    ) -> Path:
        number = next(count)
        seconds = f"{number // 60:02d}-{number % 60:02d}"
        folder = tmp_path / "outputs" / "2026-01-02" / f"10-{seconds}_{number:08x}"
        config = {**CONFIG, "seed": seed, "optimizer": {**CONFIG["optimizer"], "lr": lr}}
        config["trainer"] = {**CONFIG["trainer"], "seed": seed}
        config["procedure"] = {key: config[key] for key in ("dataset", "trainer")}
        config["procedure"]["learner"] = {key: config[key] for key in ("model", "optimizer")}
        files = {
            "config.yaml": yaml.safe_dump(config),
            ".hydra/overrides.yaml": f"- optimizer.lr={lr}\n- seed={seed}\n",
        }
        minutes = f"2026-01-02T10:{number // 60 % 60:02d}:{number % 60:02d}+00:00"
        facts = {"choices": {"dataset": "digits", "model": "mlp", **choices}, "time": minutes, "command": "dl-lab"}
        run = Run.create(folder, files, config, NoBoard(), facts)
        dataset = {"name": "digits", "label": label, "note": "a note", "sizes": {}}
        metrics = metrics or {"train/loss": 0.5, "val/accuracy": 0.8, "test/accuracy": 0.75}
        run.set_status("running", started=minutes, pid=os.getpid(), host=os.uname().nodename, dataset=dataset)
        for epoch in range(1, n_logged + 1):
            run.log({"train/loss": 1 / epoch, "val/accuracy": 1 - 1 / (epoch + 1)}, epoch * 10, epoch)
        if state == "killed":
            run.set_status("running", pid=2**22 + 1)  # above the largest process id of Linux
        elif state != "running":
            run.set_status(state, ended=minutes)
        if state == "done":
            run.finish(metrics, epochs=5, dataset=dataset)
        return folder

    return make


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run dl-lab in this process, in an empty folder. Returns (exit status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*words: str) -> tuple[int, str, str]:
        status = cli.main(list(words))
        return status, *capsys.readouterr()

    return run


@dataclass(frozen=True)
class Cost:
    """What a command did in its own process, apart from the seconds it took.

    Attributes:
        modules: names of all imported modules.
        files: paths below the working folder that it opened, one for each time.
        processes: names of the audit events by which it started other processes.
    """

    modules: set[str]
    files: list[str]
    processes: list[str]


@pytest.fixture
def cost(tmp_path):
    """Run dl-lab in its own process and return its Cost.

    A test of speed asserts what costs time (imports, files, processes): seconds depend on what else the machine does.
    """
    code = """
import atexit, json, os, sys
files, processes = [], []
here = os.getcwd()

def watch(event, arguments):
    if event == "open":
        path = arguments[0]
        if isinstance(path, (str, bytes, os.PathLike)):
            path = os.path.abspath(os.fsdecode(path))
            if path.startswith(here + os.sep):
                files.append(os.path.relpath(path, here))
    elif event in ("subprocess.Popen", "os.fork", "os.posix_spawn", "os.exec") and "lscpu" not in arguments[0:1]:
        processes.append(event)  # NumPy 2.1 starts lscpu where an old SciPy imports its tests

def report():
    print(json.dumps({"modules": [*sys.modules], "files": files, "processes": processes}), file=sys.stderr)

sys.addaudithook(watch)
atexit.register(report)
from dl_lab import cli
sys.exit(cli.main(sys.argv[1:]))
"""

    def run(*words: str) -> Cost:
        line = [sys.executable, "-c", code, *words]
        done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120)
        told = json.loads(done.stderr.splitlines()[-1])
        return Cost(set(told["modules"]), told["files"], told["processes"])

    return run


@pytest.fixture
def wait_for():
    """Wait until a condition holds, for at most 60 seconds."""

    def wait(condition) -> None:
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, "waited for a minute"
            time.sleep(0.05)

    return wait
