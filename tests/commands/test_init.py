"""dl-lab init makes a project that trains, sweeps and passes its test; only the user may let its code run."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dl_lab import project
from dl_lab.commands import init

NAME = "pear_tree"


@pytest.fixture
def fresh(tmp_path, monkeypatch, fresh_imports):
    """An empty folder, and an empty memory of what the user allowed."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.delenv("DL_LAB_ALLOW", raising=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == NAME]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


@pytest.mark.parametrize("kind", list(init.KINDS))
def test_a_new_project_trains_sweeps_and_predicts(command, fresh, monkeypatch, kind):
    status, out, err = command("init", NAME, "--from", kind)
    assert status == 0, err
    assert f"cd {NAME}" in out
    monkeypatch.chdir(fresh / NAME)
    files = " ".join(path.read_text() for path in Path().rglob("*") if path.suffix in (".py", ".yaml", ".toml", ".md"))
    assert "NAME" not in files
    short = "procedure.epochs=2" if kind == "loop" else "trainer.max_epochs=1"
    status, out, err = command("experiment=first", short, "threads=1", "logger=none")
    assert status == 0, err
    assert list((fresh / NAME / "outputs").glob("*/*/summary.json"))
    status, out, err = command("-m", "experiment=first", "sweep=rates", "--dry-run")
    assert status == 0, err
    assert "jobs  (" in out
    (third,) = [
        line.partition(" ")[2].partition("  ")[0]
        for line in Path("README.md").read_text().splitlines()
        if line.startswith("dl-lab ") and "experiment" not in line and "sweep" not in line
    ]
    status, out, err = command(*shlex.split(third))
    assert status == 0, err
    status, _, err = command("list")
    assert status == 0, err


def test_its_test_passes(command, fresh):
    command("init", NAME, "--from", "loop")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(line, cwd=fresh / NAME, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_an_impossible_name_is_refused(command, fresh):
    for name, status, words in (("my-net", 2, "cannot be the name of a Python package"), ("class", 2, "cannot be")):
        found = command("init", name)
        assert (found[0], words in found[2]) == (status, True)
    (fresh / NAME).mkdir()
    status, _, err = command("init", NAME)
    assert (status, "exists already" in err) == (1, True)
    assert list((fresh / NAME).iterdir()) == []


def test_a_cloned_project_cannot_allow_itself(command, fresh, monkeypatch):
    command("init", NAME, "--from", "loop")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(fresh / "another_user"))
    monkeypatch.chdir(fresh / NAME)
    status, _, err = command("experiment=first", "logger=none")
    assert (status, "which you have not trusted yet" in err, "dl-lab trust" in err) == (2, True, True), err
    assert not Path("outputs").exists()
    assert command("trust")[0] == 0
    assert command("check", "experiment=first")[0] == 0
    changed = Path("pyproject.toml").read_text().replace('allow = ["pear_tree"]', 'allow = ["pear_tree", "os"]')
    Path("pyproject.toml").write_text(changed)
    status, out, err = command("check", "experiment=first")
    assert status != 0, "a package added later is asked for again"
    assert "not trusted" in out + err
    assert command("trust")[0] == 0
    assert command("trust", "--revoke")[0] == 0
    assert project.allowed_packages() == ()


def test_a_terminal_is_asked_and_only_a_yes_is_kept(command, fresh, monkeypatch):
    command("init", NAME, "--from", "loop")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(fresh / "another_user"))
    monkeypatch.chdir(fresh / NAME)
    for answer, allowed in (("", ()), ("n\n", ()), ("yes\n", (NAME,))):
        monkeypatch.setattr(sys, "stdin", _Terminal(answer))
        monkeypatch.setattr(sys, "stderr", _Terminal(""))
        project.ask()
        assert project.allowed_packages() == allowed
    known = json.loads((fresh / "another_user" / "dl-lab" / "trusted.json").read_text())
    assert known == {str(fresh / NAME): [NAME]}


class _Terminal:
    """A terminal that answers once."""

    def __init__(self, answer: str) -> None:
        self.answer = answer

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return self.answer

    def write(self, text: str) -> None:
        pass

    def flush(self) -> None:
        pass


def test_the_project_is_found_from_a_folder_inside_it(command, fresh, monkeypatch):
    command("init", NAME, "--from", "loop")
    inside = fresh / NAME / "notes"
    inside.mkdir()
    monkeypatch.chdir(inside)
    status, _, err = command("experiment=first", "procedure.epochs=2", "logger=none", "threads=1")
    assert status == 0, err
    assert not (inside / "outputs").exists()
    assert list((fresh / NAME / "outputs").glob("*/*/summary.json"))
    assert "pear_tree" not in command("runs")[2]
    assert command("runs", "--json")[1].count('"run"') == 1


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("[tool.dl-lab]\nallwo = []\n", "[tool.dl-lab] has no key 'allwo'"),
        ('[tool.dl-lab]\nallow = "mine"\n', "allow is a list of packages"),
        ("[tool.dl-lab]\nconfig_dir = 1\n", "config_dir is the name of a folder"),
        ('[tool.dl-lab]\noutput_dir = "../elsewhere"\n', "output_dir = '../elsewhere' lies outside the project"),
        ('[tool.dl-lab]\nconfig_dir = "nowhere"\n', "config_dir of [tool.dl-lab]: nowhere is not a folder"),
        ("[tool.dl-lab\n", "cannot be read as TOML"),
        ("[tool]\ndl-lab = 3\n", "[tool.dl-lab] is not a table"),
    ],
)
def test_a_wrong_table_is_one_sentence(command, fresh, table, words):
    (fresh / "pyproject.toml").write_text(table)
    status, _, err = command("list")
    assert (status, words in err) == (2, True), err
    assert "Traceback" not in err


def test_other_projects_files_are_left_alone(command, fresh):
    (fresh / "pyproject.toml").write_text("[tool.other]\nallow = 3\n")
    assert project.find() is None
    assert project.outputs() == Path("outputs")
