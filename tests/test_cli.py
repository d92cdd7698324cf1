"""How the command ends its process."""

from __future__ import annotations

import atexit
import os
import threading

import pytest

from dl_lab import cli


class Ended(BaseException):
    """Raised in place of the end of the process."""


@pytest.fixture
def ends(monkeypatch):
    """Record the steps of leaving; nothing of this process is shut down."""
    steps: list[str] = []

    def end(status: int) -> None:
        steps.append(f"exit {status}")
        raise Ended

    monkeypatch.setattr(threading, "_shutdown", lambda: steps.append("threads"))
    monkeypatch.setattr(atexit, "_run_exitfuncs", lambda: steps.append("exit functions"))
    monkeypatch.setattr(os, "_exit", end)
    return steps


def test_the_command_joins_threads_and_runs_exit_functions_before_it_ends(ends):
    with pytest.raises(Ended):
        cli._leave(3)
    assert ends == ["threads", "exit functions", "exit 3"]


@pytest.mark.parametrize(("module", "name"), [(threading, "_shutdown"), (atexit, "_run_exitfuncs")])
def test_python_ends_the_process_where_it_lacks_a_private_name(ends, monkeypatch, module, name):
    monkeypatch.delattr(module, name)
    cli._leave(3)
    assert ends == []


def test_a_warning_of_ours_is_a_sentence(lab, tmp_path):
    from PIL import Image

    for label in ("a", "b"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for i in range(9):
            Image.new("RGB", (4, 4), (i, i, i)).save(tmp_path / "pets" / label / f"{i}.png")
    (tmp_path / "pets" / "a" / "3.png").write_bytes(b"nothing")
    words = ["dataset=image_folder", f"dataset.folder={tmp_path / 'pets'}", "dataset.n_classes=2", "model=linear"]
    words += ["dataset.input_shape=[3,4,4]", "dataset.decoding.unreadable=skip", "trainer.max_epochs=1"]
    done = lab(*words, f"paths.cache_dir={tmp_path / 'cache'}", "trainer.batch_size=4", "logger=none")
    assert done.returncode == 0, done.stderr
    assert "\nWarning: Left out 1 image that cannot be read: " in f"\n{done.stderr}"
    assert "UserWarning" not in done.stderr


def test_an_error_in_the_users_own_code_is_one_sentence_with_its_line(tmp_path, monkeypatch, capsys):
    """An error of dl-lab's own keeps its traceback."""
    own = tmp_path / "mine.py"
    own.write_text("def look_up():\n    return {}['colour']\n")
    names: dict = {}
    exec(compile(own.read_text() + "def leave():\n    raise SystemExit(0)\n", str(own), "exec"), names)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.setattr(cli, "_dispatch", lambda argv: names["look_up"]())
    assert cli.main(["predict"]) == 1
    assert capsys.readouterr().err == (
        "dl-lab: KeyError: 'colour' (mine.py, line 2)\n  HYDRA_FULL_ERROR=1 shows the whole traceback.\n"
    )
    monkeypatch.setattr(cli, "_dispatch", lambda argv: names["leave"]())
    assert cli.main(["predict"]) == 1
    assert capsys.readouterr().err == "dl-lab: The code ended the program, sys.exit: 0 (mine.py, line 4)\n"
    monkeypatch.setattr(cli, "_dispatch", lambda argv: names["look_up"]())
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(KeyError):
        cli.main(["predict"])
    monkeypatch.delenv("HYDRA_FULL_ERROR")
    monkeypatch.setattr(cli, "_dispatch", find_nothing)
    monkeypatch.setattr("dl_lab.configs.own_place", lambda error: "")
    with pytest.raises(LookupError):
        cli.main(["predict"])


def find_nothing(argv: list[str]) -> int:
    raise LookupError(argv)
