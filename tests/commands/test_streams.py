"""The standard streams: closed ones, and encodings that lack a character."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dl_lab.runs import records

POSIX = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # Python would choose UTF-8 by itself
TRAINING = ["trainer.max_epochs=1", "threads=1", "hydra.run.dir=run"]


@pytest.mark.skipif(not Path("/bin/bash").exists(), reason="needs bash")
def test_a_training_whose_streams_are_closed_ends_as_any_other(tmp_path):
    words = shlex.join([sys.executable, "-m", "dl_lab", *TRAINING])
    done = subprocess.run(["/bin/bash", "-c", f"exec {words} <&- >&- 2>&-"], cwd=tmp_path, check=False)
    assert done.returncode == 0
    assert records.read_json(tmp_path / "run" / "status.json")["state"] == "done"
    texts = [path for path in (tmp_path / "run").rglob("*") if path.suffix in (".json", ".jsonl", ".yaml")]
    assert texts
    assert not any("Run folder" in path.read_text() for path in texts)  # no file got the number of a closed stream


def test_a_pipe_gets_utf8_whatever_the_locale(tmp_path):
    words = [sys.executable, "-m", "dl_lab", *TRAINING]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, check=False, env={**os.environ, **POSIX})
    assert done.returncode == 0, done.stderr
    assert "────" in done.stdout.decode("utf-8")


def test_a_terminal_without_a_character_shows_a_question_mark(tmp_path):
    terminal, end = os.openpty()
    words = [sys.executable, "-m", "dl_lab", "--help"]
    code = "from dl_lab import cli; import sys; cli._prepare_streams(); print('caf\\u00e9 \\u2500')"
    for command in (words, [sys.executable, "-c", code]):
        done = subprocess.run(
            command, cwd=tmp_path, stdout=end, stderr=subprocess.PIPE, check=False, env={**os.environ, **POSIX}
        )
        assert done.returncode == 0, done.stderr
    os.close(end)
    assert b"caf? ?" in os.read(terminal, 1 << 16).splitlines()[-1]
    os.close(terminal)
