"""The end of the command's process: no output is lost, and a full disk is one line."""

import subprocess
import sys
from pathlib import Path

import pytest

FULL = Path("/dev/full")


def start(code, folder, out=subprocess.PIPE):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, stdout=out, stderr=subprocess.PIPE, text=True, check=False, timeout=60
    )


COMMAND = "import atexit, sys, threading, time\nfrom dl_lab import cli\n{before}\nsys.argv[1:] = {words!r}\ncli.main()"


@pytest.mark.parametrize(("words", "status"), [(["runs"], 0), (["rusn"], 2), (["runs", "--nothing"], 2)])
def test_the_status_is_that_of_the_command(tmp_path, words, status):
    assert start(COMMAND.format(before="", words=words), tmp_path).returncode == status


def test_exit_functions_are_called_and_threads_are_joined(tmp_path):
    before = (
        "atexit.register(print, 'bye')\n"
        "threading.Thread(target=lambda: (time.sleep(0.5), print('thread'))).start()\n"
        "sys.stdout.write('no newline, ')"
    )
    done = start(COMMAND.format(before=before, words=["--version"]), tmp_path)
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first.startswith("no newline, dl-lab ")
    assert rest == ["thread", "bye"]


def test_an_exception_keeps_its_status(tmp_path):
    code = COMMAND.format(before="cli._dispatch = lambda argv: 1 // 0", words=["runs"])
    done = start(code, tmp_path)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.skipif(not FULL.exists(), reason="needs Linux' device that is always full")
@pytest.mark.parametrize("words", [["runs"], ["list"], ["--help"]])
def test_a_full_output_is_one_line(tmp_path, words):
    with open(FULL, "w") as full:
        done = start(COMMAND.format(before="", words=words), tmp_path, full)
    assert done.returncode == 1
    assert done.stderr == "dl-lab: No space left on device.\n"
