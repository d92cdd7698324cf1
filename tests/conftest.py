"""What the tests share: the command in its own process, the command in this process, and real data where it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def lab(tmp_path):
    """Run `dl-lab ...` as a user does: a process of its own, in an empty folder. Returns the finished process."""

    def run(*arguments: str, env: dict[str, str] | None = None, timeout: float = 120) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "dl_lab", *arguments],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100", **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def execute_in():
    """Compose and run in this process: (folder, *overrides) -> metrics."""
    from dl_lab import config
    from dl_lab.commands import train

    composer = config.Composer()

    def run(folder: Path, *overrides: str) -> dict[str, float]:
        composed = composer.compose([*overrides, f"hydra.run.dir={folder}", "threads=1"])
        return train.execute(composed, ["dl-lab", *overrides], quiet=True)

    return run


@pytest.fixture
def execute(tmp_path, execute_in):
    """Compose and run in this process, in an empty folder; returns (run folder, metrics)."""

    def run(*overrides: str):
        folder = tmp_path / f"run{len(list(tmp_path.glob('run*')))}"
        return folder, execute_in(folder, *overrides)

    return run


@pytest.fixture
def real_data() -> Path:
    """The folder of real data; the test is skipped where there is none."""
    folder = os.environ.get("DL_LAB_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("needs real data: DL_LAB_DATA names no folder")
    return Path(folder)
