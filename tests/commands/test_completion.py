"""Tab completion: what it offers, and that bash, zsh and fish show it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dl_lab.commands.completion import SCRIPTS, complete


def test_completion_offers_verbs_keys_and_options():
    assert complete(["comp"]) == ["compare ", "completion "]
    assert "optimizer=" in complete([""])
    assert "optimizer.lr=" in complete(["optimizer.l"])
    assert "optimizer.momentum=" not in complete(["optimizer=adam", "optimizer.m"])
    assert "experiment=octmnist_cnn_strided " in complete(["experiment=octmnist_cnn_"])
    assert "experiment=a,octmnist_cnn " in complete(["-m", "experiment=a,octmnist_c"])
    assert "sweep=oct_lr " in complete(["-m", "sweep=oct"])
    assert "seed=" in complete(["se"])
    assert complete(["reproduce", "octmnist_cnn_s"]) == ["octmnist_cnn_strided "]
    assert complete(["nonsense", "x"]) == []


def test_flags_are_those_of_the_verb():
    assert complete(["best", "--re"]) == ["--retrain "]
    assert "--exclude " in complete(["-m", "--"])
    assert "--multirun " in complete(["--"])


def test_completion_offers_run_ids_and_sweep_keys(make_run, make_sweep, tmp_path):
    run = make_run()
    make_sweep({(0.5, 0): 0.5})
    outputs = tmp_path / "outputs"
    assert "last " in complete(["resume", ""], outputs)
    assert f"{run.name.rpartition('_')[2]} " in complete(["resume", "0"], outputs)
    assert complete(["report", ""], outputs) == ["abcd1234 "]
    assert "abcd1234 " in complete(["compare", "--outputs", str(outputs), "abc"])


def test_an_error_is_not_printed_into_the_prompt(command, tmp_path):
    assert command("completion", "--words", "compare", "--outputs", "/nowhere", "x") == (0, "\n", "")
    assert command("-sc", "query=bash")[2] == ""
    assert command("--shell-completion", "install=bash")[1] == SCRIPTS["bash"]


@pytest.fixture
def shell(tmp_path):
    """Run a text in a shell with this `dl-lab` and its completion. Returns the lines."""
    program = tmp_path / "bin" / "dl-lab"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m dl_lab "$@"\n')
    program.chmod(0o755)

    def run(name: str, text: str) -> list[str]:
        if shutil.which(name) is None:
            pytest.skip(f"{name} is not installed")
        flags = {"bash": ["--norc", "--noprofile"], "zsh": ["-f"], "fish": ["--no-config"]}[name]
        path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
        done = subprocess.run(
            [name, *flags, "-c", text],
            env={**os.environ, "PATH": path, "HOME": str(tmp_path)},
            cwd=Path(tmp_path),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stderr == ""
        return [line.strip() for line in done.stdout.splitlines()]

    return run


def ask_bash(line: str) -> str:
    quoted = shlex.quote(line)
    call = f"COMP_LINE={quoted}; COMP_POINT={len(line)}; _dl_lab; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    return f'eval "$(dl-lab completion bash)"; {call}'


def ask_zsh(line: str) -> str:
    words = " ".join(shlex.quote(word) for word in line.split(" "))
    stubs = "compdef() { :; }; compadd() { shift 4; print -l -- $@; }"  # they work inside of a prompt only
    return f'{stubs}; eval "$(dl-lab completion zsh)"; words=({words}); CURRENT=$#words; _dl_lab'


def ask_fish(line: str) -> str:
    return f"dl-lab completion fish | source; complete -C {shlex.quote(line)}"


@pytest.mark.parametrize(("name", "ask"), [("bash", ask_bash), ("zsh", ask_zsh), ("fish", ask_fish)])
def test_each_shell_shows_the_completion(shell, name, ask):
    assert shell(name, ask("dl-lab comp")) == ["compare", "completion"]
    offered = shell(name, ask("dl-lab -m sweep=oct_"))
    assert offered == (["oct_lr"] if name == "bash" else ["sweep=oct_lr"])  # bash replaces what stands after =
    assert shell(name, ask("dl-lab best --re")) == ["--retrain"]
    assert shell(name, ask("dl-lab nonsense x")) == ([""] if name == "bash" else [])
