"""Train as one of the processes that torchrun started.

Rank 0 has the run folder. The other ranks work in temporary folders, which are deleted when the run ends.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dl_lab import configs
from dl_lab.configs.parts import procedure_of
from dl_lab.jobs.one import make_scratch_run, perform, prepare
from dl_lab.runs.files import read_json
from dl_lab.runs.find import find_runs, started_of
from dl_lab.runs.recorder import Run
from dl_lab.types import Interrupted

if TYPE_CHECKING:
    from dl_lab.training.distributed import World


def execute(composed: configs.Composed, command: Sequence[str]) -> None:
    """Train as `one.execute` does. After a restart by torchrun (--max-restarts), the run that it began continues.

    Args:
        composed: The config.
        command: What the user typed.

    Raises:
        UserError: The config is wrong, its procedure cannot be divided among processes, or the run fails.
        Interrupted: The user asked the run to stop.
    """
    from dl_lab.training import distributed

    _check(composed.config)
    with _connect() as (world, scratch):
        # Rank 0 alone looks for the run: the others would see a folder that it has made meanwhile.
        begun = world.share(None if world.rank else _find_begun_run(Path(composed.config["paths"]["output_dir"])))
        if begun is not None:
            _continue(world, scratch, Path(begun), composed.config, composed.choices)
            return
        run = prepare(composed, command, dict(distributed.describe()), scratch if world.rank else None)
        _perform(world, run, composed.choices)


def resume(folder: Path, config: dict[str, Any], choices: Mapping[str, str]) -> None:
    """Continue an interrupted run.

    Args:
        folder: The run's folder.
        config: Its resolved config.
        choices: The chosen option of each config group.

    Raises:
        UserError: The config is wrong, its procedure cannot be divided among processes, or the run fails.
        Interrupted: The user asked the run to stop.
    """
    _check(config)
    with _connect() as (world, scratch):
        _continue(world, scratch, folder, config, choices)


def _check(config: Mapping[str, object]) -> None:
    """Check the config before the processes are connected.

    Raises:
        ConfigError: The config is wrong, or its procedure cannot be divided among processes.
    """
    configs.check(config)
    if "trainer" not in procedure_of(config):
        raise configs.ConfigError("This procedure does not train: start it without torchrun.")


@contextlib.contextmanager
def _connect() -> Iterator[tuple[World, Path]]:
    """Connect to the other processes, and make a temporary folder that is deleted at the end."""
    from dl_lab.training import distributed

    world = distributed.world()
    try:
        with tempfile.TemporaryDirectory(prefix="dl-lab-rank-") as scratch:
            yield world, Path(scratch)
    finally:
        distributed.leave()


def _continue(world: World, scratch: Path, folder: Path, config: dict[str, Any], choices: Mapping[str, str]) -> None:
    """Continue a run from its last checkpoint."""
    if world.rank:
        run = make_scratch_run(scratch, config, resuming=True)
    else:
        run = Run.reopen(folder, config, configs.build_logger(config))
    _perform(world, run, choices)


def _perform(world: World, run: Run, choices: Mapping[str, str]) -> None:
    """Run this rank's part, and name the command that continues an interrupted run in all processes."""
    folder = world.share(str(run.folder))  # every rank waits here until rank 0 has made its folder
    try:
        perform(run, choices, quiet=world.rank > 0)
    except Interrupted as stop:
        reason = str(stop).partition(" Continue with")[0]
        raise Interrupted(f"{reason} Continue with:  {_command(world)} resume {folder}") from None


def _command(world: World) -> str:
    """Return the command that starts these processes again."""
    n_local = int(os.environ.get("LOCAL_WORLD_SIZE", world.size))
    where = "--standalone" if n_local == world.size else f"--nnodes {world.size // n_local} ..."
    return f"torchrun {where} --nproc-per-node {n_local} -m dl_lab"


def _find_begun_run(outputs: Path) -> str | None:
    """Find the run that torchrun began before it restarted its processes; None where this is no restart."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0" or name == "none":
        return None
    begun = []
    for folder in find_runs(outputs):
        environment = read_json(folder / "env.json") or {}
        if environment.get("torchrun") == name:
            begun.append(folder)
    return str(max(begun, key=started_of)) if begun else None
