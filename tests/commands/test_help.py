"""dl-lab --help, and the --help of every verb."""

from __future__ import annotations

import pytest

from dl_lab import catalogue, cli


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


def test_quick_and_without_torch_or_hydra(cost):
    seconds, modules = cost("--help")
    assert seconds < 0.3
    assert not {"torch", "hydra", "omegaconf", "numpy"} & modules


@pytest.mark.parametrize("verb", [verb for verb in cli.verbs() if verb not in ("help", "train")])
def test_every_verb_explains_itself(command, verb):
    status, out, _ = command(verb, "--help")
    assert status == 0
    assert out.startswith("usage: dl-lab")


def test_version(command):
    from dl_lab import __version__

    assert command("--version") == (0, f"dl-lab {__version__}\n", "")
