"""The folder of a sweep that several terminals start at the same instant."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dl_lab import configs
from dl_lab.sweeps import execute_search, plan, planning
from dl_lab.sweeps.expand import expand
from dl_lab.sweeps.options import SweepOptions, parse
from dl_lab.sweeps.space import parse_space
from dl_lab.types import UserError

RATE = "optimizer.lr=tag(log,interval(1e-4,1e-1))"
COMMANDS = {
    "grid": ["seed=0,1"],
    "random search": ["search=random", RATE],
    "TPE": ["search=tpe", RATE],
}


@pytest.fixture(scope="module")
def composer() -> configs.Composer:
    return configs.Composer()


def make_plan(composer: configs.Composer, words: list[str], folder: Path) -> plan.Sweep:
    """Plan as far as the folder of the sweep, as a terminal does that types these words."""
    options = parse(["dataset.source=generated", f"paths.output_dir={folder}", *words])
    expanded = expand(composer, options.overrides, options.grid_flags)
    if not expanded.search:
        return planning.make_plan(composer, options, expanded, planning.make_request(composer, expanded)).sweep
    space = parse_space(expanded.ranges)
    config = composer.compose([*expanded.fixed, *space.probes()[0]]).config
    return execute_search.make_plan(options, expanded, execute_search.make_search(expanded, space, config), config)


@pytest.mark.parametrize("kind", COMMANDS)
def test_a_new_sweep_has_one_folder_though_two_terminals_start_it(composer, tmp_path, kind):
    first = make_plan(composer, COMMANDS[kind], tmp_path)
    second = make_plan(composer, COMMANDS[kind], tmp_path)
    assert second.folder == first.folder
    assert [path.name for path in tmp_path.glob("sweeps/*/*")] == [first.folder.name]
    with pytest.raises(UserError, match="Another process is running this sweep now"):
        second.lock()
    first.lock()
    first.write()
    assert (first.folder / "sweep.yaml").exists()


def test_a_start_that_failed_leaves_the_next_one_a_new_folder(composer, tmp_path):
    first = make_plan(composer, COMMANDS["grid"], tmp_path)
    with pytest.raises(RuntimeError), first.clean_up_after_failure():
        raise RuntimeError("a job is wrong")
    assert not first.folder.exists()
    second = make_plan(composer, COMMANDS["grid"], tmp_path)
    second.lock()


def test_many_that_look_at_the_same_instant_find_one_folder(tmp_path):
    barrier = threading.Barrier(8)

    def look(_: int) -> planning.Place:
        barrier.wait()
        return planning.find_place(SweepOptions([], {}), None, "0123abcd", tmp_path)

    with ThreadPoolExecutor(8) as pool:
        places = list(pool.map(look, range(8)))
    assert len({place.folder for place in places}) == 1
    assert sum(place.lock is not None for place in places) == 1


def test_a_new_sweep_on_request_shares_no_folder(tmp_path):
    options = SweepOptions([], {}, new=True)
    one = planning.find_place(options, None, "0123abcd", tmp_path)
    other = planning.find_place(options, None, "0123abcd", tmp_path)
    assert one.folder != other.folder
    assert one.lock is not None and other.lock is not None
