"""dl-lab -m [overrides], dl-lab sweep [overrides]: plan, check, write, run the jobs of a sweep."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dl_lab import preload
from dl_lab.commands import is_several
from dl_lab.sweeps import lanes
from dl_lab.types import ConfigError

if TYPE_CHECKING:
    from dl_lab.sweeps import plan, remote

# Little is imported above: the server that will run the jobs starts first, and imports torch, which takes longest,
# while this process imports the rest and composes.


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    if is_several():
        raise ConfigError("A sweep starts its jobs itself: torchrun is for one job on several GPUs.")
    machinery = Machinery()
    if not options.dry_run:
        machinery.start_early()
    try:
        from dl_lab.commands import _sweep

        return _sweep.execute(options, argv, machinery)
    finally:
        machinery.close()


class Machinery:
    """Where the jobs run: lanes of this machine, or a cluster; there, this machine only checks them first."""

    def __init__(self) -> None:
        self.engine: remote.Engine | None = None
        self.schedule = lanes.Schedule(lanes.Layout(("",), 1, 1), _prepare, _work)

    def start_early(self) -> None:
        """Without a GPU it is known what is needed: the server imports torch while the jobs are composed."""
        if not lanes.visible_gpus():
            self.schedule.open()

    def settle(self, launcher: Mapping[str, Any], config: Mapping[str, Any], start: bool) -> None:
        """Decide by the settings of the sweep. Raises ConfigError for wrong ones."""
        from dl_lab import config as configs

        self.config = config
        if launcher:
            self.engine = configs.build_checked(launcher, "launcher")
        layout = lanes.plan_layout(
            config["lanes"], (config["procedure"].get("trainer") or {}).get("device", "auto"), config["threads"]
        )
        if self.engine is None:
            self.schedule.layout = layout
        if start:
            self.schedule.open()

    def connect(self, console: Any, sweep: plan.Sweep) -> None:
        """Reach the cluster, and take what an earlier start left there."""
        if self.engine is not None and (said := self.engine.open(sweep.folder, sweep.key)):
            console.print(said)

    def width(self, n_jobs: int) -> int:
        """How many jobs at a time: `lanes=`, on a cluster all that are known."""
        if self.engine is None:
            return self.schedule.layout.slots * len(self.schedule.layout.devices)
        return n_jobs if self.config["lanes"] == "auto" else int(self.config["lanes"])

    def where(self, n_jobs: int) -> str:
        width = self.width(n_jobs)
        if self.engine is None:
            return f"{width} lanes"
        return f"{type(self.engine).__name__}, {'all jobs' if width >= n_jobs else f'{width} jobs'} at a time"

    def runner(self, n_jobs: int) -> lanes.Schedule | remote.Cluster:
        """What runs the jobs, once they are checked."""
        found: lanes.Schedule | remote.Cluster = self.schedule
        if self.engine is not None:
            from dl_lab.commands._jobs import make_folder
            from dl_lab.sweeps import remote

            self.schedule.close()
            found = remote.Cluster(self.engine, self.width(n_jobs), make_folder)
        found.stop_on_failure = self.config["on_failure"] == "stop"
        return found

    def close(self) -> None:
        self.schedule.close()
        if self.engine is not None:
            self.engine.close()


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dl-lab -m", allow_abbrev=False, description=__doc__)
    parser.add_argument("overrides", nargs="*", help="Hydra overrides; a=1,2 is an axis of the grid")
    parser.add_argument("--multirun", "-m", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--config-dir", "-cd", help="a folder of your own configs")
    parser.add_argument("--config-name", "-cn", default="config")
    parser.add_argument("--dry-run", action="store_true", help="show the plan, start nothing")
    parser.add_argument("--retry-failed", action="store_true", help="run failed jobs of this sweep again")
    parser.add_argument("--extend", action="store_true", help="add new jobs to this sweep, leave the others")
    parser.add_argument("--new", action="store_true", help="a new sweep, whatever was run before")
    parser.add_argument("--join", action="store_true", help="work on a search that another process runs too")
    parser.add_argument("--mixed-code", action="store_true", help="go on although the code changed")
    add_grid_flags(parser)
    options, unknown = parser.parse_known_intermixed_args(list(argv))
    flags = [word for word in unknown if word.startswith("-")]
    if flags:
        raise ConfigError(f"There is no flag {flags[0]}. See dl-lab sweep --help.")
    options.overrides += unknown
    return options


def add_grid_flags(parser: argparse.ArgumentParser) -> None:
    """What shapes a grid beside Hydra's a=1,2."""
    parser.add_argument("--zip", action="append", default=[], metavar="'a=1,2 b=3,4'", help="keys that change together")
    parser.add_argument("--list", action="append", default=[], metavar="'a=1 b=3'", help="one more job")
    parser.add_argument("--exclude", action="append", default=[], metavar="'a=1 b=3'", help="without these jobs")
    parser.add_argument("--where", action="append", default=[], metavar="'a=1'", help="only these jobs")


# -- inside the servers ---------------------------------------------------------------------------------------------


def _prepare(orders: Mapping[str, Any]) -> None:
    preload.torch()
    from dl_lab.commands import _jobs

    _jobs.prepare(orders)


def _work(job: int, orders: Mapping[str, Any], send: Any) -> int:
    from dl_lab.commands import _jobs

    return _jobs.work(job, orders, send)
