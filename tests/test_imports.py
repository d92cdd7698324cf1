"""Imports point down only, and no file imports itself through others (docs/design.md draws the rows)."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import networkx
import pytest

import dl_lab

PACKAGE = Path(dl_lab.__file__).parent
ROWS = (
    {"__main__"},
    {"cli"},
    {"commands"},
    {"sweeps"},
    {"jobs"},
    {"procedures"},
    {"training"},
    {"show"},
    {"configs"},
    {"datasets", "models", "from_scratch", "tasks"},
    {"runs"},
    {"project"},
    {"keys", "preload", "starters", "stopping", "types", "version"},
)
HYDRA = {"configs", "sweeps", "commands"}  # the commands: Hydra's own views of a config


def row_of(part: str) -> int:
    return next(i for i, row in enumerate(ROWS) if part in row)


def imported(source: str, module: str, types_too: bool = False) -> Iterator[str]:
    """Every module that a source imports, wherever the statement stands. types_too: also under TYPE_CHECKING."""
    tree = ast.parse(source)
    for node in ast.walk(tree) if not types_too else ():
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body.clear()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            assert node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


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
        if theirs <= mine:
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
        ("types.py", "from dl_lab.runs import recorder"),
        ("training/trainer.py", "from dl_lab.procedures import fit"),
        ("runs/recorder.py", "from dl_lab.configs import build"),
        ("training/trainer.py", "from hydra.utils import instantiate"),
    ],
)
def test_the_rule_can_be_broken(path, source):
    assert wrong(source, path)


def nearest(name: str, modules: Collection[str]) -> str | None:
    """The module that an import of `name` runs: itself, or the one that defines it; packages run with their parts."""
    if name in modules:
        return name
    parent = name.rpartition(".")[0]
    return parent if parent in modules else None


def circles(sources: dict[str, str]) -> list[set[str]]:
    """The groups of modules that import each other, type-only imports included. sources: module -> its text."""
    edges = {
        module: {nearest(name, sources) for name in imported(text, module, types_too=True)} - {None, module}
        for module, text in sources.items()
    }
    graph = networkx.DiGraph([(module, name) for module, names in edges.items() for name in names])
    return [found for found in networkx.strongly_connected_components(graph) if len(found) > 1]


def module_of(path: Path) -> str:
    name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    return name.removesuffix(".__init__")


def test_no_file_imports_itself_through_others():
    assert not circles({module_of(path): path.read_text() for path in PACKAGE.rglob("*.py")})


def test_a_circle_is_found_also_where_one_side_is_for_types_only():
    sources = {
        "dl_lab.a": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from dl_lab.b import B",
        "dl_lab.b": "def f():\n    from dl_lab import a",
        "dl_lab.c": "from dl_lab.b import B",
    }
    assert circles(sources) == [{"dl_lab.a", "dl_lab.b"}]


def test_no_verb_imports_a_verb():
    verbs = sorted((PACKAGE / "commands").glob("*.py"))
    assert not [path.name for path in verbs if path.name.startswith("_") and path.name != "__init__.py"]
    for path in verbs:
        names = set(imported(path.read_text(), path.name))
        assert not names & {f"dl_lab.commands.{verb.stem}" for verb in verbs}, path.name


LONG = 350


def test_long_files_say_why():
    for path in PACKAGE.rglob("*.py"):
        lines = path.read_text().splitlines()
        assert len(lines) <= LONG or "Long because" in "\n".join(lines[:30]), f"{path.name} has {len(lines)} lines"


def test_models_and_tasks_know_no_configs_and_no_files():
    """A component never sees a config: nothing below the configs imports omegaconf."""
    for path in FILES:
        if row_of(Path(path).parts[0].removesuffix(".py")) > row_of("configs"):
            assert not any(name.startswith("omegaconf") for name in imported((PACKAGE / path).read_text(), path)), path


def test_from_scratch_is_numpy_alone():
    for path in sorted((PACKAGE / "from_scratch").glob("*.py")):
        names = {name.split(".")[0] for name in imported(path.read_text(), path.name)}
        assert not names & {"torch", "sklearn", "torchvision", "torchaudio"}, path.name


@pytest.mark.parametrize("arguments", [["--help"], ["runs"], ["list"], ["--version"]])
def test_verbs_that_do_not_train_never_import_torch(arguments, tmp_path):
    code = (
        "import sys\nfrom dl_lab import cli\n"
        f"assert cli.main({arguments!r}) == 0\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr[-1000:]
