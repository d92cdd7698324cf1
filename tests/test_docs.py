"""The README and the docs do what they show: commands compose, own models and data sets run as written."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dl_lab import cli
from dl_lab import config as configs
from dl_lab.commands import _sweep, sweep, train
from dl_lab.sweeps import families

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


def shown_commands() -> list[str]:
    lines = [line for page in PAGES for block in blocks(page, "console") for line in block.splitlines()]
    return sorted({line.partition(" #")[0].strip() for line in lines if line.startswith("dl-lab")})


@pytest.mark.parametrize("line", shown_commands())
def test_shown_commands_can_be_pasted(line):
    """What bash or zsh would read as something of their own stands in quotes."""
    bare = re.sub(r"'[^']*'|\"[^\"]*\"", "", line)
    assert not re.search(r"[()\[\]{}*?;&<>]", bare), line


@pytest.mark.parametrize("line", shown_commands())
def test_shown_commands_are_right(line):
    words = shlex.split(line)[1:]
    if words and not words[0].startswith("-") and "=" not in words[0]:
        assert words[0] in cli.verbs()
        if words[0] != "sweep":
            return
        words = words[1:]
    if line.startswith(("dl-lab -m", "dl-lab sweep")):
        options = sweep.parse(words)
        composer = configs.Composer(options.config_dir)
        grid = _sweep.expand(composer, options)
        jobs = families.compose_all(
            composer.compose, composer.group_names(), [[*grid.fixed, *job] for job in grid.jobs()]
        )
        assert len(jobs) > 1
    else:
        jobs = [configs.Composer().compose(train.parse(words).overrides)]
    configs.check(jobs[0].config)


def test_adding_a_model_a_data_set_and_an_experiment_as_the_readme_says(tmp_path):
    readme = ROOT / "README.md"
    for block in [*blocks(readme, "python"), *blocks(readme, "yaml")]:
        name, _, content = block.partition("\n")
        path = tmp_path / name.removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (command,) = [line for block in blocks(readme, "console") for line in block.splitlines() if "my_conf" in line]
    variable, _, rest = command.partition(" dl-lab ")
    env = {**os.environ, **dict([variable.split("=")]), "OMP_NUM_THREADS": "1"}
    refused = subprocess.run(
        [sys.executable, "-m", "dl_lab", *shlex.split(rest)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "not allowed in a config" in refused.stderr
    done = subprocess.run(
        [sys.executable, "-m", "dl_lab", *shlex.split(rest)],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "stripes" in done.stdout
    assert "made up for this page" in done.stdout
