"""The list of long tests: `scripts/test.sh --quick` leaves them out, and the longest begin first.

`scripts/test.sh --record-long-tests` measures and writes the list. A line has the seconds and the name of a test
function (of its longest case), or of a fixture: `tests/runs/test_x.py::@name`. A test that uses a long fixture is long
too, and one worker runs all tests of a file that share one. A new test is not in the list, so the quick tests have it.
"""

from __future__ import annotations

import functools
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

IS_LONG = 0.3  # seconds of a test with its fixtures, while another test runs on the machine's other core
HEAD = "# Seconds of the tests that take longest. `bash scripts/test.sh --record-long-tests` writes this list.\n"


def name_of_function(node: str) -> str:
    """Return a test's name without its case, and without the group that pytest-xdist adds."""
    return re.sub(r"(\[.*\])?(@[^@\]]*)?$", "", node, flags=re.DOTALL)


@functools.cache
def _places_of_fixtures(file: str) -> tuple[str, ...]:
    """The file of a test and the folders above it: where its fixtures may be."""
    return (file, *map(str, Path(file).parents))


class LongTests:
    """The list.

    Args:
        path: Its file. The names in it are relative to the folder above its own.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            if not line.startswith("#"):
                number, name = line.split(maxsplit=1)
                self.seconds[name] = float(number)

    def find(self, node: str, fixtures: list[str]) -> float:
        """Return the seconds of a test that is long, or uses a long fixture; 0 for the others."""
        longest = self.seconds.get(name_of_function(node), 0.0)
        for where in _places_of_fixtures(node.partition("::")[0]):
            for fixture in fixtures:
                longest = max(longest, self.seconds.get(f"{where}::@{fixture}", 0.0))
        return longest

    def find_shared(self, item: pytest.Item) -> str:
        """Name the longest fixture that a test shares with others of its file; "" where none is long."""
        known: Mapping[str, Sequence[pytest.FixtureDef]] = vars(item)["_fixtureinfo"].name2fixturedefs
        shared = [f"{last.baseid}::@{name}" for name, (*_, last) in known.items() if last.scope == "module"]
        return max(filter(self.seconds.get, shared), key=self.seconds.__getitem__, default="").replace("::@", " ")

    def update(self, measured: dict[str, float]) -> None:
        """Write what was measured, by name. What was not measured stays in the list if its file does."""
        for name, seconds in self.seconds.items():
            if (self.path.parent.parent / name.partition("::")[0]).exists():
                measured.setdefault(name, seconds)
        lines = [f"{seconds:.1f} {name}\n" for name, seconds in sorted(measured.items()) if seconds > IS_LONG]
        self.path.write_text(HEAD + "".join(lines), encoding="utf-8")


class FixtureClock:
    """Measures fixtures in the process that builds them; each report of a test carries its fixtures' seconds."""

    def __init__(self) -> None:
        self._seconds: list[tuple[str, float]] = []

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef) -> Iterator[None]:
        began = time.perf_counter()
        try:
            return (yield)
        finally:
            self._seconds.append((f"{fixturedef.baseid}::@{fixturedef.argname}", time.perf_counter() - began))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Iterator[None]:
        try:
            return (yield)
        finally:
            item.user_properties += self._seconds
            self._seconds = []


class Stopwatch:
    """Adds up what the reports say of tests and fixtures, and updates the list at the end."""

    def __init__(self, tests: LongTests) -> None:
        self.tests = tests
        self._tests: dict[str, float] = defaultdict(float)  # setup, call and teardown
        self._fixtures: dict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._tests[report.nodeid] += report.duration
        for name, seconds in report.user_properties:
            if "::@" in name and isinstance(seconds, float):
                self._fixtures[name] = max(self._fixtures[name], seconds)

    def pytest_sessionfinish(self) -> None:
        measured = dict(self._fixtures)
        for node, seconds in self._tests.items():
            name = name_of_function(node)
            measured[name] = max(measured.get(name, 0.0), seconds)
        self.tests.update(measured)
