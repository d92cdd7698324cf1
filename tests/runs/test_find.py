"""Runs and sweeps by their short names."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dl_lab.runs.find import find_run, is_alive, short_name
from dl_lab.sweeps.results.outcome import find_sweep, find_sweep_or_none
from dl_lab.types import UserError


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("14-03-22_1f0c9a2b", "1f0c9a2b"),
        ("3_1f0c9a2b", "1f0c9a2b"),
        ("14-03-22_1f0c9a2b-1", "1f0c9a2b-1"),  # two sweeps of one second
        ("14-03-22_10293847", "10293847"),
        ("cnn_1f0c9a2b", "1f0c9a2b"),  # cnn_${run_id:}
        # Names that a user gave.
        ("large_batch", "large_batch"),
        ("12_epochs", "12_epochs"),
        ("cnn_20261201", "cnn_20261201"),
        ("first", "first"),
        ("2026-12-01_14-03-22", "2026-12-01_14-03-22"),
    ],
)
def test_a_name_that_a_user_gave_stays_whole(name, short):
    assert short_name(Path("outputs") / name) == short


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    for name in ("large_batch", "small_batch", "2026-12-01/14-03-22_1f0c9a2b", "lr/0_0badcafe", "lr_more/0_0badcafd"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "status.json").write_text(json.dumps({"state": "done"}))
    for name in ("lr", "lr_more"):
        (tmp_path / name / "sweep.yaml").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        ("large_batch", "large_batch"),
        ("small", "small_batch"),
        ("1f0c", "2026-12-01/14-03-22_1f0c9a2b"),
        ("0badcafe", "lr/0_0badcafe"),
    ],
)
def test_a_run_is_found_by_its_short_name(outputs, text, folder):
    assert find_run(text, outputs) == outputs / folder


def test_the_end_of_a_users_name_is_no_name(outputs):
    with pytest.raises(
        UserError, match=r"No run 'batch' under .*: give its folder, or the name that `dl-lab runs` shows"
    ):
        find_run("batch", outputs)


def test_a_sweep_is_found_by_a_users_name(outputs):
    """The whole name goes before the start of another one."""
    assert find_sweep("lr", outputs) == outputs / "lr"
    assert find_sweep("lr_m", outputs) == find_sweep_or_none("lr_more", outputs) == outputs / "lr_more"


@pytest.mark.parametrize(("ago", "alive"), [(1, True), (-3600, True), (7 * 86400, False)])
def test_a_process_that_is_younger_than_the_heartbeat_did_not_write_it(ago, alive):
    """A container that is started again gives the numbers of its processes anew."""
    beat = datetime.now(UTC) - timedelta(seconds=ago)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        status = {"pid": other.pid, "host": socket.gethostname(), "heartbeat": beat.isoformat()}
        assert is_alive(status) is alive
        assert is_alive({**status, "heartbeat": None})  # nothing speaks against it
        other.kill()
