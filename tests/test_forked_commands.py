"""A forked command is the command: what it prints, how it ends, and what kills it are those of a real start."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pytest
from forked_commands import ForkedCommands

COMMAND = [sys.executable, "-m", "dl_lab"]
RUN = ["dataset=digits", "dataset.source=generated", "dataset.n_generated=512", "model=mlp", "threads=1", "logger=none"]


def run(*words, **options) -> subprocess.CompletedProcess:
    environment = {**os.environ, "COLUMNS": "90"}  # readline, in the tests' process, hands its own to children
    line = [*COMMAND, *words]
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=False, timeout=120, **options)


@pytest.mark.parametrize("words", [["--version"], ["list"], ["rusn"], ["model=mpl"], ["runs", "--nothing"]])
def test_it_prints_and_ends_as_a_real_one(words, tmp_path, monkeypatch):
    forked = run(*words, cwd=tmp_path)
    monkeypatch.setattr(ForkedCommands, "takes", lambda *_: False)
    real = run(*words, cwd=tmp_path)
    assert (forked.returncode, forked.stdout, forked.stderr) == (real.returncode, real.stdout, real.stderr)


def test_it_has_its_callers_folder_environment_and_pipes(tmp_path):
    (tmp_path / "own.py").write_text("import os, sys\nprint(os.getcwd(), os.environ['OWN'], sys.argv[1:])\n")
    process = subprocess.Popen(
        [*COMMAND, "dataset=digits", "model._target_=own.Net"],
        cwd=tmp_path,
        env={**os.environ, "OWN": "here", "DL_LAB_ALLOW": "own"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert os.getpgid(process.pid) == os.getpgid(0)
    text, _ = process.communicate(timeout=120)
    assert f"{tmp_path} here ['dataset=digits', 'model._target_=own.Net']" in text
    assert process.returncode == 2


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_signal_ends_it(tmp_path, number):
    process = subprocess.Popen([*COMMAND, *RUN, "trainer.max_epochs=100000"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 60
    while not list(tmp_path.glob("outputs/*/*/metrics.jsonl")) and time.monotonic() < end:
        time.sleep(0.05)
    assert process.poll() is None
    process.send_signal(number)
    assert process.wait(timeout=60) == (-signal.SIGKILL if number == signal.SIGKILL else 130)


def test_a_command_with_a_session_of_its_own_can_be_killed_with_its_children(tmp_path):
    process = subprocess.Popen([*COMMAND, *RUN, "trainer.max_epochs=100000"], cwd=tmp_path, start_new_session=True)
    assert os.getpgid(process.pid) == process.pid
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.1)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(timeout=60) == -signal.SIGKILL


def test_a_script_prints_and_ends_as_a_real_command(tmp_path, write_command):
    environment = {**os.environ, "COLUMNS": "90"}
    script = tmp_path / "dl-lab"
    write_command(script, environment)
    assert "socket" in script.read_text()
    for words in (["--version"], ["rusn"]):
        by_script = subprocess.run(
            [script, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        forked = run(*words, cwd=tmp_path)
        assert (by_script.returncode, by_script.stdout, by_script.stderr) == (
            forked.returncode,
            forked.stdout,
            forked.stderr,
        )
    write_command(script, {**environment, "PYTHONWARNINGS": "error"})
    assert "-m dl_lab" in script.read_text()


def test_a_missing_folder_is_the_callers_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        run("--version", cwd=tmp_path / "nothing")


@pytest.mark.parametrize("variable", ["PYTHONWARNINGS", "OMP_NUM_THREADS", "LD_PRELOAD"])
def test_what_is_read_at_the_start_is_not_ignored(variable):
    commands = ForkedCommands()
    assert commands.takes([*COMMAND, "runs"], None, {})
    assert not commands.takes([*COMMAND, "runs"], {**os.environ, variable: "7"}, {})
    assert not commands.takes([sys.executable, "-c", "import torch"], None, {})


@pytest.mark.parametrize("words", [["-m", "pytest", "-q"], ["test_own.py", "a", "b"]])
def test_other_programs_are_what_python_makes_of_them(words, tmp_path, monkeypatch):
    (tmp_path / "helper.py").write_text("HERE = 7\n")
    text = "import sys\nimport helper\nprint(__name__, sys.argv, helper.HERE)\ndef test_it(): assert helper.HERE == 7\n"
    (tmp_path / "test_own.py").write_text(text)
    monkeypatch.setenv("COLUMNS", "90")

    def start():
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
        )
        return done.returncode, re.sub(r"in [\d.]+s", "", done.stdout), done.stderr

    forked = start()
    monkeypatch.setattr(ForkedCommands, "takes", lambda *_: False)
    assert forked == start()
    assert forked[0] == 0


def test_a_shells_python_reads_its_program_from_standard_input(tmp_path, write_command):
    python = tmp_path / "python"
    environment = {**os.environ, "COLUMNS": "90"}
    write_command(python, environment)
    (tmp_path / "helper.py").write_text("HERE = 7\n")
    program = "import sys, helper, torch\nprint(__name__, sys.argv, sys.modules['__main__'].helper.HERE)"
    for words, text, says in (
        (["-"], program, "__main__ ['-'] 7"),
        (["-"], "1 / 0", "ZeroDivisionError"),
        (["-c", "print(6 * 7)"], "", "42"),
    ):
        done = subprocess.run(
            [python, *words], cwd=tmp_path, env=environment, input=text, capture_output=True, text=True, check=False
        )
        assert says in done.stdout + done.stderr
        assert done.returncode == ("Error" in says)


def figures(folder) -> dict[str, int]:
    """The size of each picture of a run."""
    assert run(*RUN, "trainer.max_epochs=1", cwd=folder).returncode == 0
    return {path.name: path.stat().st_size for path in folder.glob("outputs/*/*/figures/*")}


@pytest.mark.figures
def test_figures_are_drawn_for_a_test_that_reads_them(tmp_path):
    sizes = figures(tmp_path)
    assert {"learning_curves.png", "learning_curves.svg", "confusion_matrix.png"} <= set(sizes)
    assert min(sizes.values()) > 5000


def test_for_other_tests_they_are_made_and_not_drawn(tmp_path):
    sizes = figures(tmp_path)
    assert {"learning_curves.png", "learning_curves.svg", "confusion_matrix.png"} <= set(sizes)
    assert max(sizes.values()) < 100
    assert list(tmp_path.glob("outputs/*/*/tables/learning_curves.csv"))
