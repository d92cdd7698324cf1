"""One of the processes that torchrun started: rank 0 has the run folder, the others leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dl_lab import config as configs
from dl_lab.commands import train
from dl_lab.run import NoBoard, Run, find_runs, read_json
from dl_lab.types import Interrupted

if TYPE_CHECKING:
    from dl_lab.training.distributed import World


def execute(composed: configs.Composed, command: Sequence[str]) -> None:
    """As `train.execute`; after a restart by torchrun (--max-restarts) the run that it began goes on."""
    from dl_lab.training import distributed

    _refuse(composed.config)
    with _processes() as (world, scratch):
        begun = world.share(None if world.rank else _begun(Path(composed.config["paths"]["output_dir"])))
        if begun is not None:
            _go_on(world, scratch, Path(begun), composed.config, composed.choices)
            return
        run = train.prepare(composed, command, dict(distributed.describe()), scratch if world.rank else None)
        _perform(world, run, composed.choices)


def resume(folder: Path, config: dict[str, Any], choices: Mapping[str, str]) -> None:
    """Go on with an interrupted run."""
    _refuse(config)
    with _processes() as (world, scratch):
        _go_on(world, scratch, folder, config, choices)


def _refuse(config: Mapping[str, Any]) -> None:
    """Raises ConfigError for what is wrong, or cannot be divided among processes, before they are connected."""
    configs.check(config)
    if "trainer" not in config["procedure"]:
        raise configs.ConfigError("This procedure does not train: start it without torchrun.")


@contextlib.contextmanager
def _processes() -> Iterator[tuple[World, Path]]:
    """Connected to the other processes; and a folder that goes away."""
    from dl_lab.training import distributed

    world = distributed.world()
    try:
        with tempfile.TemporaryDirectory(prefix="dl-lab-rank-") as scratch:
            yield world, Path(scratch)
    finally:
        distributed.leave()


def _go_on(world: World, scratch: Path, folder: Path, config: dict[str, Any], choices: Mapping[str, str]) -> None:
    if world.rank:
        run = Run(scratch, config, NoBoard(), resuming=True)
    else:
        run = Run.reopen(folder, config, configs.build(config, "logger"))
    _perform(world, run, choices)


def _perform(world: World, run: Run, choices: Mapping[str, str]) -> None:
    folder = world.share(str(run.folder))  # and nobody goes on before rank 0 has it
    try:
        train.perform(run, choices, quiet=world.rank > 0)
    except Interrupted as stop:
        what = str(stop).partition(" Go on with")[0]
        raise Interrupted(f"{what} Go on with:  {_torchrun(world)} resume {folder}") from None


def _torchrun(world: World) -> str:
    """How these processes are started again."""
    n_local = int(os.environ.get("LOCAL_WORLD_SIZE", world.size))
    where = "--standalone" if n_local == world.size else f"--nnodes {world.size // n_local} ..."
    return f"torchrun {where} --nproc-per-node {n_local} -m dl_lab"


def _begun(outputs: Path) -> str | None:
    """The run that torchrun began before it restarted its processes, if this is such a restart."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    if os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0" or name == "none":
        return None
    runs = [run for run in find_runs(outputs) if (read_json(run / "env.json") or {}).get("torchrun") == name]
    return str(runs[-1]) if runs else None
