"""Every experiment YAML: it composes, names its question and id, and runs one smoke epoch on generated data."""

from __future__ import annotations

import json
from pathlib import Path

import dl_lab.conf
import pytest

CONF = Path(dl_lab.conf.__file__).parent
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_opens_with_its_question(name):
    lines = (CONF / "experiment" / f"{name}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    comment = " ".join(line.lstrip("# ") for line in lines[1:] if line.startswith("#"))
    assert "?" in comment, f"{name}.yaml asks no question"


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_runs_a_smoke_epoch(name, execute):
    folder, metrics = execute(f"experiment={name}", "profile=smoke", "logger=none")
    summary = json.loads((folder / "summary.json").read_text())
    assert json.loads((folder / "status.json").read_text())["state"] == "done"
    assert metrics, f"{name} measured nothing"
    assert summary["metrics"].keys() == metrics.keys()
    assert summary.get("dataset", {}).get("label", "generated") == "generated"
