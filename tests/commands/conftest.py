"""Run folders written by the recorder itself, without training."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from dl_lab import cli
from dl_lab.run import NoBoard, Run

CONFIG = {
    "id": None,
    "seed": 0,
    "threads": None,
    "optimizer": {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1},
    "model": {"_target_": "dl_lab.models.mlp.MLP", "hidden": [8], "dropout": 0.0},
    "dataset": {"_target_": "dl_lab.datasets.digits.digits", "source": "real", "n_classes": 10},
    "trainer": {"max_epochs": 5, "batch_size": 64, "seed": 0},
    "paths": {"output_dir": "outputs", "data_dir": "data"},
    "reference": {},
}


@pytest.fixture
def make_run(tmp_path):
    """Write a run folder below tmp_path/outputs; returns it."""
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
    """Run dl-lab in this process, in an empty folder; returns (exit status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            cli.main(list(words))
        return end.value.code or 0, *capsys.readouterr()

    return run


@pytest.fixture
def cost(tmp_path):
    """Run dl-lab in its own process, three times; returns (least processor seconds, modules it imported)."""

    def run(*words: str) -> tuple[float, set[str]]:
        code = (
            "import sys, atexit; from dl_lab import cli; atexit.register(lambda: print(*sys.modules, file=sys.stderr));"
        )
        line = [sys.executable, "-c", f"{code} cli.main({list(words)!r})"]
        seconds, modules = [], ""
        for _ in range(3):
            before = _processor_seconds()
            done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=True)
            seconds.append(_processor_seconds() - before)
            modules = done.stderr.splitlines()[-1]
        return min(seconds), set(modules.split())

    return run


def _processor_seconds() -> float:
    """Of finished child processes: not disturbed by what else the machine does."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@pytest.fixture
def wait_for():
    """Wait until a condition holds, for at most 60 seconds."""

    def wait(condition) -> None:
        end = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < end, "waited for a minute"
            time.sleep(0.05)

    return wait
