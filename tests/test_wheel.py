"""The wheel, installed into an empty environment outside the checkout, runs the command with all its configs."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(*command: object, folder: Path, **options) -> subprocess.CompletedProcess:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "DL_LAB"))}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy of the sources, without network."""
    if int(importlib.metadata.version("setuptools").split(".")[0]) < 77:
        pytest.skip("building the wheel needs setuptools >= 77 (a development dependency)")
    source = tmp_path_factory.mktemp("source")
    for name in ("dl_lab", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    code = "import setuptools.build_meta as backend; backend.build_wheel('dist')"
    run(sys.executable, "-c", code, folder=source)
    (built,) = (source / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The bin folder of an environment that holds the wheel; what it depends on is borrowed from this one."""
    home = tmp_path_factory.mktemp("environment") / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", home, folder=home.parent)
    python = home / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel, folder=home)
    (packages,) = home.glob("lib/python*/site-packages")
    borrowed = [path for path in sys.path if path.endswith("site-packages")]  # their own .pth files are not read
    (packages / "borrowed.pth").write_text("\n".join(borrowed))
    where = run(python, "-c", "import dl_lab; print(dl_lab.__file__)", folder=home.parent).stdout
    assert where.startswith(str(packages)), "the checkout must not be found"
    return home / "bin"


def test_every_config_is_inside_and_no_test(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {f"dl_lab/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    shipped = {name for name in shipped if not name.startswith("dl_lab/conf/local/")}
    assert shipped <= names, sorted(shipped - names)
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "dl_lab").rglob("*.py")}
    assert modules <= names, sorted(modules - names)
    assert not [name for name in names if name.startswith(("tests", "scripts", "conf/", "outputs"))]


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["experiment=octmnist_cnn", "profile=smoke"]])
def test_the_installed_command_works_in_any_folder(installed, tmp_path, arguments):
    done = run(installed / "dl-lab", *arguments, folder=tmp_path)
    if "=" in arguments[0]:
        (summary,) = (tmp_path / "outputs").rglob("summary.json")
        assert "test/accuracy" in summary.read_text() and "generated" in done.stdout
    else:
        assert "octmnist_cnn" in done.stdout
