"""The list of long tests: names as pytest makes them, what is measured, and what stays."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from long_tests import LongTests, Stopwatch, name_of_function


@pytest.fixture
def tests(tmp_path):
    """A list in a folder with two test files."""
    (tmp_path / "tests").mkdir()
    for name in ("test_a", "test_b"):
        (tmp_path / "tests" / f"{name}.py").touch()
    path = tmp_path / "tests" / "long_tests.txt"
    path.write_text(
        "# Seconds\n2.0 tests/test_a.py::test_x\n1.0 tests/test_b.py::test_y\n9.0 tests/test_gone.py::test_z\n"
    )
    return LongTests(path)


def measure(tests: LongTests, *reports: tuple[str, float, list]) -> dict[str, float]:
    stopwatch = Stopwatch(tests)
    for node, seconds, fixtures in reports:
        report = SimpleNamespace(nodeid=f"tests/test_a.py::{node}", duration=seconds, user_properties=fixtures)
        stopwatch.pytest_runtest_logreport(report)  # pyright: ignore[reportArgumentType]
    stopwatch.pytest_sessionfinish()
    return LongTests(tests.path).seconds


@pytest.mark.parametrize("node", ["test_x", "test_x[a-1]", "test_x[a::b[0]@c]", "test_x@sweep", "test_x[a]@sweep"])
def test_a_name_has_neither_case_nor_group(node):
    assert name_of_function(f"tests/test_a.py::{node}") == "tests/test_a.py::test_x"


def test_the_list_has_the_longest_case_and_keeps_what_did_not_run(tests):
    found = measure(
        tests,
        ("test_x[1]", 0.2, []),
        ("test_x[2]@group", 0.5, []),  # its setup
        ("test_x[2]@group", 0.4, []),  # its call
        ("test_short", 0.1, []),
    )
    assert found == {"tests/test_a.py::test_x": 0.9, "tests/test_b.py::test_y": 1.0}


def test_a_test_that_became_short_leaves_the_list(tests):
    assert measure(tests, ("test_x", 0.1, [])) == {"tests/test_b.py::test_y": 1.0}


def test_a_test_is_long_if_its_fixture_is(tests):
    measure(tests, ("test_x", 0.1, [("tests::@trained", 3.0), ("tests/test_a.py::@small", 0.1)]))
    known = LongTests(tests.path)
    assert known.find("tests/test_a.py::test_new[1]", ["tmp_path", "trained"]) == 3.0
    assert known.find("tests/test_a.py::test_new[1]", ["small"]) == 0.0
    assert known.find("other/test_a.py::test_new", ["trained"]) == 0.0


def test_tests_that_share_a_long_fixture_are_named_after_it(tests):
    def test_that_uses(**scopes: str) -> pytest.Item:
        known = {name: [SimpleNamespace(baseid="tests/test_a.py", scope=scope)] for name, scope in scopes.items()}
        return SimpleNamespace(_fixtureinfo=SimpleNamespace(name2fixturedefs=known))  # pyright: ignore[reportReturnType]

    fixtures = [("tests/test_a.py::@trained", 3.0), ("tests/test_a.py::@sick", 0.9), ("tests/test_a.py::@small", 0.1)]
    measure(tests, ("test_x", 0.1, fixtures))
    known = LongTests(tests.path)
    assert (
        known.find_shared(test_that_uses(trained="module", sick="module", small="module")) == "tests/test_a.py trained"
    )
    assert known.find_shared(test_that_uses(trained="function", small="module")) == ""
    assert name_of_function("tests/test_a.py::test_x@tests/test_a.py trained") == "tests/test_a.py::test_x"
