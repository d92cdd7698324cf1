"""Every experiment YAML: it composes, names its question and id, and runs one smoke epoch on generated data."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import dl_lab.conf
import pytest
from matplotlib.figure import Figure

from dl_lab.runs import figures
from dl_lab.runs.anchors import load_yaml

CONF = Path(dl_lab.conf.__file__).parent
EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_opens_with_its_question(name):
    lines = (CONF / "experiment" / f"{name}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    comment = " ".join(line.lstrip("# ") for line in lines[1:] if line.startswith("#"))
    assert "?" in comment, f"{name}.yaml asks no question"


@pytest.fixture
def promised(monkeypatch):
    """The files that docs/courses.md promises for an experiment."""
    scripts = Path(__file__).resolve().parent.parent / "scripts"
    monkeypatch.syspath_prepend(str(scripts / "docs"))
    return importlib.import_module("course_pages").figures_of


def kind_of_figures(name: str) -> tuple[object, ...]:
    """What decides how figures look: the procedure, the callbacks, and the task or the data that choose it."""
    chosen: dict[str, str] = {}
    callbacks: set[str] = set()
    todo = [name]
    while todo:
        config = load_yaml((CONF / "experiment" / f"{todo.pop()}.yaml").read_text())
        callbacks |= set(config.get("callbacks") or {})
        for entry in config["defaults"]:
            if isinstance(entry, dict):
                for group, option in entry.items():
                    chosen.setdefault(group.rpartition("/")[2].partition("@")[0], str(option))
            elif entry != "_self_":
                todo.append(entry)  # an experiment that this one changes
    task = chosen.get("task") or chosen.get("dataset")
    return chosen.get("procedure"), chosen.get("callbacks"), task, tuple(sorted(callbacks))


FIRST_OF_A_KIND = {kind_of_figures(name): name for name in reversed(EXPERIMENTS)}.values()


@pytest.fixture
def quick_figures(monkeypatch):
    """Draw figures as coarse PNG only: fine PNG and SVG take most of the time of all figures."""
    savefig = Figure.savefig

    def save(figure, file, *, format, **options):
        if format == "png":
            savefig(figure, file, format=format, **options)

    monkeypatch.setattr(Figure, "savefig", save)
    monkeypatch.setattr(figures, "DOTS_PER_INCH", 30)


def mark(name: str):
    """An experiment whose figures are made like those of another one makes them and does not draw them."""
    return pytest.param(name, marks=[pytest.mark.figures] if name in FIRST_OF_A_KIND else [])


@pytest.mark.parametrize("name", [mark(name) for name in EXPERIMENTS])
@pytest.mark.usefixtures("quick_figures")
def test_runs_a_smoke_epoch(name, execute, promised):
    folder, metrics = execute(f"experiment={name}", "profile=smoke", "logger=none")
    summary = json.loads((folder / "summary.json").read_text())
    assert json.loads((folder / "status.json").read_text())["state"] == "done"
    assert metrics, f"{name} measured nothing"
    assert summary["metrics"].keys() == metrics.keys()
    assert summary.get("dataset", {}).get("label", "generated") == "generated"
    for file in promised(name):
        assert list(folder.glob(file)), f"docs/courses.md promises {file} of {name}"
