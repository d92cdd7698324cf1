"""The files that every starter has. NAME stands for the package."""

from __future__ import annotations

PYPROJECT = """[project]
name = "NAME"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["dl-lab"]

[tool.setuptools]
packages = ["NAME"]

[tool.dl-lab]
config_dir = "conf"
allow = ["NAME"]  # the packages that a config may use, once you trust this project: dl-lab trust
output_dir = "outputs"

[tool.pytest.ini_options]
testpaths = ["tests"]
"""

README = """# NAME

ABOUT

```console
dl-lab experiment=first                          # train
dl-lab -m experiment=first sweep=rates           # learning rates and seeds; then: dl-lab report last
PREDICT
```

`conf/` holds the configs, `NAME/` the code, `tests/` one test: `python -m pytest`. On another machine, or after
cloning, allow the code once with `dl-lab trust`.
"""

TEST = '''"""The project trains and its sweep can be planned."""

from pathlib import Path

import pytest

from dl_lab import cli

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("DL_LAB_ALLOW", "NAME")


def test_it_trains(tmp_path):
    words = ["experiment=first", "SHORT", f"hydra.run.dir={tmp_path / 'run'}", "logger=none"]
    assert cli.main(words) == 0
    assert (tmp_path / "run" / "summary.json").exists()


def test_its_sweep_can_be_planned():
    assert cli.main(["-m", "experiment=first", "sweep=rates", "--dry-run"]) == 0
'''

SWEEP = """# Which learning rate is best, over three seeds?
grid:
  optimizer.lr: [0.001, 0.01]
  seed: [0, 1, 2]
"""

EXPERIMENT = """# @package _global_
# QUESTION
defaults:
OVERRIDES
  - _self_
SETTINGS
"""


def make(
    about: str,
    question: str,
    overrides: str,
    settings: str,
    predict: str,
    short: str = "trainer.max_epochs=1",
    sweep: str = SWEEP,
) -> dict[str, str]:
    """Return the files of a project: name -> text.

    Args:
        about: The sentences of the README.
        question: The question of the first experiment.
        overrides: The `override` lines of the experiment.
        settings: The other lines of the experiment.
        predict: The third command of the README.
        short: The override that makes the experiment short, for the test.
        sweep: The text of the sweep file.
    """
    experiment = EXPERIMENT.replace("QUESTION", question).replace("OVERRIDES", overrides.rstrip())
    return {
        "pyproject.toml": PYPROJECT,
        "README.md": README.replace("ABOUT", about).replace("PREDICT", predict),
        ".gitignore": "outputs/\n__pycache__/\n",
        "conf/experiment/first.yaml": experiment.replace("SETTINGS", settings.rstrip()),
        "conf/sweep/rates.yaml": sweep,
        "tests/test_project.py": TEST.replace("SHORT", short),
        "NAME/__init__.py": '"""NAME: models and data of our own."""\n',
    }
