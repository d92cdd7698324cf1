"""What the tests of sweeps share: the command as a user types it, and what its jobs left behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from dl_lab import cli

SMOKE = ("profile=smoke", "threads=1", "callbacks.curves=null", "callbacks.confusion_matrix=null")


@dataclass(frozen=True)
class Swept:
    """A sweep that ended: its exit status, its output, and its folder (None where it wrote none)."""

    status: int
    text: str
    folder: Path | None

    @property
    def jobs(self) -> list[Path]:
        """The run folders in the plan's order."""
        assert self.folder is not None, self.text
        plan = yaml.safe_load((self.folder / "sweep.yaml").read_text())
        return [self.folder / f"{job['number']}_{job['id']}" for job in plan["jobs"]]

    @property
    def states(self) -> list[str]:
        return [json.loads((job / "status.json").read_text())["state"] for job in self.jobs]

    @property
    def summaries(self) -> list[dict[str, Any]]:
        return [json.loads((job / "summary.json").read_text()) for job in self.jobs]


@pytest.fixture
def sweep(tmp_path):
    """Run `dl-lab -m ...` in a process of its own, with the smoke profile: its jobs take a fraction of a second."""

    def run(*words: str, smoke: bool = True, timeout: float = 120) -> Swept:
        done = subprocess.run(
            [sys.executable, "-m", "dl_lab", "-m", *(SMOKE if smoke else ()), *words],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "140"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert "Traceback (most recent call last)" not in done.stdout, done.stdout
        named = re.search(r"^Sweep folder (.+?)  \(|The sweep would be in (.+)\.$", done.stdout, re.MULTILINE)
        return Swept(done.returncode, done.stdout, tmp_path / (named[1] or named[2]) if named else None)

    return run


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """Run dl-lab in this process, in an empty folder; returns (exit status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")

    def run(*words: str) -> tuple[int, str, str]:
        status = cli.main(list(words))
        return status, *capsys.readouterr()

    return run
