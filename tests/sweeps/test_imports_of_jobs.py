"""What a job imports while it runs is imported once, before the jobs of a sweep are forked."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import dl_lab

ROOT = Path(dl_lab.__file__).parent
HEAVY = ("matplotlib", "sklearn", "scipy", "pandas")
FILES = sorted(path for part in ("procedures", "training") for path in (ROOT / part).glob("*.py"))


def late_imports(tree: ast.Module) -> set[str]:
    """The heavy modules that functions of a file import when they are called."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    found = {node.module or "" for one in functions for node in ast.walk(one) if isinstance(node, ast.ImportFrom)}
    return {name for name in found if name.partition(".")[0] in HEAVY}


def declaring_classes(path: Path, tree: ast.Module) -> list[type]:
    module = importlib.import_module(".".join(path.relative_to(ROOT.parent).with_suffix("").parts))
    classes = [getattr(module, node.name) for node in tree.body if isinstance(node, ast.ClassDef)]
    return [one for one in classes if hasattr(one, "imports")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_class_declares_what_it_imports_late(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    classes = declaring_classes(path, tree)
    if classes:
        declared = {name for one in classes for name in one.imports}
        assert {name for name in late_imports(tree) if name != "matplotlib.colors"} <= declared


@pytest.mark.real_start
def test_drawing_a_figure_imports_no_more_of_matplotlib():
    program = """
import importlib, io, sys
from dl_lab.runs import figures
from dl_lab.show import plots
for name in plots.IMPORTS:
    importlib.import_module(name)
before = set(sys.modules)
figures.render(plots.curves([{"epoch": 1, "loss": 1.0}, {"epoch": 2, "loss": 0.5}], "epoch", "loss"))
print(sorted(name for name in set(sys.modules) - before if name.startswith(("matplotlib", "mpl_toolkits"))))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
