"""One process at a time works in a run's folder."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dl_lab.runs.claims import claimed, is_claimed
from dl_lab.types import UserError

HOLD = """
import sys
from pathlib import Path
from dl_lab.runs.claims import claimed
with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path) -> Iterator[subprocess.Popen]:
    """Another process that holds tmp_path."""
    words = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_process_is_refused_until_the_first_one_is_gone(tmp_path, holder):
    with pytest.raises(UserError, match="Another process continues"), claimed(tmp_path):
        pass
    holder.kill()
    holder.wait()
    with claimed(tmp_path):
        pass
    assert not list(tmp_path.iterdir())  # no file is left


def test_a_run_that_has_begun_is_named_with_its_process(tmp_path, holder):
    write_status(tmp_path)
    with pytest.raises(UserError, match=f"is running \\(process {os.getpid()} "), claimed(tmp_path):
        pass


def test_whether_a_folder_is_claimed(tmp_path):
    assert is_claimed(tmp_path) is False
    with claimed(tmp_path):
        assert is_claimed(tmp_path) is True
    assert is_claimed(tmp_path) is False


def write_status(folder: Path, **facts: object) -> None:
    status = {"state": "running", "pid": os.getpid(), "host": socket.gethostname(), "format": 2, **facts}
    (folder / "status.json").write_text(json.dumps(status))
