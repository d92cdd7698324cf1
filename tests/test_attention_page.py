"""docs/attention.md names functions and tests: all of them exist."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import dl_lab.conf
import pytest

import dl_lab.models.attention as package

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "attention.md").read_text(encoding="utf-8")
NAMES = sorted(set(re.findall(r"`([A-Za-z_]\w*)`", PAGE)))
CONF = Path(dl_lab.conf.__file__).parent


def implemented() -> set[str]:
    modules = [f"{package.__name__}.{module.name}" for module in pkgutil.iter_modules(package.__path__)]
    modules.append("dl_lab.procedures.attention_cost")
    return {name for module in modules for name in vars(importlib.import_module(module))}


def names_of_tests() -> set[str]:
    files = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")]
    return {name for text in files for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)}


@pytest.mark.parametrize("name", NAMES)
def test_the_page_names_what_exists(name):
    experiments = {path.stem for path in (CONF / "experiment").glob("*.yaml")}
    assert name in (names_of_tests() if name.startswith("test_") else implemented() | experiments)


def test_the_page_names_something():
    assert sum(name.startswith("test_") for name in NAMES) > 15
    assert {"softmax_attention", "mclaurin_features", "causal_sums"} <= set(NAMES)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\((figures/[^)]+)\)|`((?:tests|scripts)/[^` ]+)`", PAGE))))
def test_files_of_the_page_exist(path):
    figure, file = path
    assert (ROOT / "docs" / figure).exists() if figure else (ROOT / file).exists()


@pytest.mark.parametrize("command", re.findall(r"^    dl-lab (?:-m )?(\w+)=(\w+)", PAGE, re.MULTILINE))
def test_commands_of_the_page_exist(command):
    group, name = command
    assert (CONF / group / f"{name}.yaml").exists()


def test_every_mechanism_of_the_config_is_on_the_page():
    for path in (CONF / "model" / "attention").glob("*.yaml"):
        assert re.search(rf"model/attention=\S*\b{path.stem}\b", PAGE), path.stem
