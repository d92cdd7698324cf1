"""The versions in pyproject.toml and in the two constraints files agree."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RUNTIME_EXTRAS = ("search", "slurm", "onnx")  # what the tests with the oldest versions install beside dl-lab


def read_pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text().splitlines()
    pins = [re.fullmatch(r"([\w.-]+)==(\S+)", line) for line in lines if line and not line.startswith("#")]
    assert all(pins), "every line pins one package"
    return {canonicalize_name(pin[1]): pin[2] for pin in pins if pin}


def read_requirements(*extras: str) -> list[Requirement]:
    lines = list(PROJECT["dependencies"])
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    requirements = [Requirement(line) for line in lines]
    return [requirement for requirement in requirements if canonicalize_name(requirement.name) != "dl-lab"]


@pytest.mark.parametrize("requirement", read_requirements(*PROJECT["optional-dependencies"]), ids=str)
def test_the_pinned_version_is_allowed(requirement):
    pins = read_pins("constraints.txt")
    assert canonicalize_name(requirement.name) in pins
    assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("requirement", read_requirements(*RUNTIME_EXTRAS), ids=str)
def test_the_oldest_version_is_the_lower_bound(requirement):
    """A pin may name the last digit that the lower bound leaves out: >=2.11 and 2.11.0."""
    lower = [part.version for part in requirement.specifier if part.operator == ">="]
    pin = read_pins("constraints-oldest.txt")[canonicalize_name(requirement.name)]
    assert [Version(version) for version in lower] == [Version(pin)]


def test_torch_and_its_libraries_are_pinned_in_step():
    """torchvision is built for one minor version of torch: 0.N goes with 2.(N - 15)."""
    for name in ("constraints.txt", "constraints-oldest.txt"):
        pins = read_pins(name)
        torch, vision = Version(pins["torch"]), Version(pins["torchvision"])
        assert torch.minor == vision.minor - 15


@pytest.mark.xdist_group("probe")
@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="only several workers have groups of tests")
def test_tests_of_a_group_stay_on_one_worker(request):
    assert request.node.nodeid.endswith("@probe"), "pytest-xdist ignores groups with this version of pytest"
