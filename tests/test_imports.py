"""Imports point down only; siblings in a row are strangers (the rows of the design, top to bottom)."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import dl_lab

PACKAGE = Path(dl_lab.__file__).parent
ROWS = (
    {"cli", "__main__", "commands"},
    {
        "config",
        "targets",
        "sweeps",
        "records",
        "tables",
        "reporting",
        "catalogue",
        "judge",
        "statistics",
        "verification",
        "loading",
        "preload",
    },  # what only reads and shows runs too
    {"experiments"},
    {"training"},
    {"datasets", "models", "from_scratch", "tasks"},
    {"run", "plots", "board"},
    {"types"},
)
HYDRA = {"config.py", "sweeps", "commands"}  # the commands: Hydra's own views of a config, and its errors
# The top two rows are one program that reads, plans and shows; strangers are the parts that a config names.
STRANGERS = ROWS[2:]


def row_of(part: str) -> int:
    return next(i for i, row in enumerate(ROWS) if part in row)


def imported(source: str, module: str) -> Iterator[str]:
    """Every module of ours that a source imports, wherever the statement stands (TYPE_CHECKING counts not)."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body.clear()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            assert node.module
            yield node.module
            if node.module == "dl_lab":
                yield from (f"dl_lab.{alias.name}" for alias in node.names)


def wrong(source: str, path: str) -> list[str]:
    """What is wrong with the imports of one file, given by its path inside the package."""
    own = Path(path).parts[0].removesuffix(".py")
    found = []
    for name in imported(source, path):
        parts = name.split(".")
        if parts[0] == "hydra" and Path(path).parts[0] not in HYDRA:
            found.append(f"{path} imports {name}: Hydra stops above")
        if parts[0] != "dl_lab" or len(parts) < 2 or parts[1] in (own, "__version__", "conf"):
            continue
        mine, theirs = row_of(own), row_of(parts[1])
        if theirs < mine or (theirs == mine and ROWS[mine] in STRANGERS):
            found.append(f"{path} imports {name}: {'sideways' if theirs == mine else 'upwards'}")
    return found


FILES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def test_every_part_has_its_row():
    parts = {path.stem for path in PACKAGE.glob("*.py")} | {path.name for path in PACKAGE.iterdir() if path.is_dir()}
    assert parts - {"__init__", "__pycache__", "conf"} <= set().union(*ROWS)


@pytest.mark.parametrize("path", FILES)
def test_imports_point_down(path):
    assert not wrong((PACKAGE / path).read_text(), path)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("models/a.py", "from dl_lab.tasks.b import c"),
        ("models/a.py", "def f():\n    import dl_lab.training.trainer"),
        ("types.py", "from dl_lab import run"),
        ("training/trainer.py", "from dl_lab.experiments import fit"),
        ("run.py", "from dl_lab.board import TensorBoard"),
        ("training/trainer.py", "from hydra.utils import instantiate"),
    ],
)
def test_the_rule_can_be_broken(path, source):
    assert wrong(source, path)


def test_models_and_tasks_know_no_configs_and_no_files():
    """A component never sees a config: nothing below the configs imports omegaconf."""
    for path in FILES:
        if row_of(Path(path).parts[0].removesuffix(".py")) >= 2:
            assert not any(name.startswith("omegaconf") for name in imported((PACKAGE / path).read_text(), path)), path


def test_from_scratch_is_numpy_alone():
    for path in sorted((PACKAGE / "from_scratch").glob("*.py")):
        names = {name.split(".")[0] for name in imported(path.read_text(), path.name)}
        assert not names & {"torch", "sklearn", "torchvision", "torchaudio"}, path.name


@pytest.mark.parametrize("arguments", [["--help"], ["runs"], ["list"], ["--version"]])
def test_verbs_that_do_not_train_never_import_torch(arguments, tmp_path):
    code = (
        "import sys\nfrom dl_lab import cli\n"
        f"try:\n    cli.main({arguments!r})\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr[-1000:]
