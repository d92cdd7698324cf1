"""dl-lab --help, and the --help of every verb."""

from __future__ import annotations

import re

import pytest

from dl_lab import cli
from dl_lab.configs import catalogue


def test_one_screen_names_every_verb_group_and_flag(command):
    status, out, _ = command("--help")
    assert status == 0
    assert max(map(len, out.splitlines())) <= 80
    assert len(out.splitlines()) <= 60
    words = out.split()
    assert "..." not in out.partition("Verbs\n")[2].partition("Config groups")[0], "a verb's summary is too long"
    assert {verb for verb in cli.verbs() if verb not in ("help", "train")} <= set(words)
    groups = {group for group, options in catalogue.groups().items() if len(options) > 1 and "/" not in group}
    assert groups <= set(words)
    assert f"({len(catalogue.groups()['model'])} in all)" in out
    assert {"-m,", "--cfg", "--info", "--config-dir", "--dry-run"} <= set(words)
    assert out == command("help")[1] == command("-h")[1]


def test_an_experiment_explains_itself(command):
    status, out, _ = command("experiment=octmnist_cnn", "optimizer.lr=0.5", "--help")
    assert status == 0
    assert out.startswith("octmnist_cnn  (IST2-CNN)\nDoes max-pooling beat strided convolution")
    lines = [line.split() for line in out.splitlines()]
    assert ["optimizer.lr", "0.5"] in lines
    assert ["model", "pooled_cnn"] in lines
    assert ["trainer.max_epochs", "15"] in lines
    assert "There is no key" in command("optimizer.nothing=1", "--help")[2]


def test_help_imports_neither_torch_nor_hydra(cost):
    spent = cost("--help")
    assert not {"torch", "hydra", "omegaconf", "numpy"} & spent.modules
    assert spent.files == []
    assert len(spent.modules) < 200
    assert spent.processes == []


@pytest.mark.parametrize("verb", [verb for verb in cli.verbs() if verb not in ("help", "train")])
def test_every_verb_explains_itself(command, verb):
    status, out, _ = command(verb, "--help")
    assert status == 0
    assert out.startswith("usage: dl-lab")


@pytest.mark.parametrize("words", [["--help"], ["runs", "--help"], ["experiment=octmnist_cnn", "--help"]])
def test_help_has_colours_on_a_terminal_only(command, monkeypatch, words):
    plain = command(*words)[1]
    assert "\033[" not in plain
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    coloured = command(*words)[1]
    heading = {"runs": "options:", "--help": "Verbs"}.get(words[0], "Examples")
    assert f"\033[1m{heading}\033[0m" in coloured
    assert re.search(r"^  \033\[36m(-h, --help|init|dl-lab [^\n]*)\033\[0m", coloured, re.MULTILINE)
    assert re.sub(r"\033\[\d+m", "", coloured) == plain
    monkeypatch.setenv("NO_COLOR", "1")
    assert command(*words)[1] == plain


def test_a_wrong_flag_has_a_red_error_on_a_terminal(command, monkeypatch):
    status, _, error = command("runs", "--nothing")
    assert status == 2
    assert error.splitlines()[-1] == "dl-lab runs: error: unrecognized arguments: --nothing"
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert "\033[31merror\033[0m: unrecognized" in command("runs", "--nothing")[2]


def test_version_is_printed(command):
    from dl_lab import __version__

    assert command("--version") == (0, f"dl-lab {__version__}\n", "")
