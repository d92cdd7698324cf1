"""Read the command line of a sweep."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dl_lab.show.options import Parser
from dl_lab.types import ConfigError

GRID_FLAGS = ("zip", "list", "exclude", "where")
DESCRIPTION = "dl-lab -m [overrides], dl-lab sweep [overrides]: plan, check, write and run the jobs of a sweep."


@dataclass(frozen=True)
class SweepOptions:
    """What a command line asks for.

    Attributes:
        overrides: Hydra's overrides; a=1,2 is an axis of the grid.
        grid_flags: The values of --zip, --list, --exclude and --where, by name.
        config_dir: A folder of the user's own configs.
        config_name: The main config.
        dry_run: Show the plan and start nothing.
        retry_failed: Run failed jobs of this sweep again.
        extend: Add new jobs to this sweep and leave the others as they are.
        new: Start a new sweep, whatever was run before.
        join: Work on a search that another process runs too.
        mixed_code: Continue although the code changed.
    """

    overrides: Sequence[str]
    grid_flags: Mapping[str, Sequence[str]]
    config_dir: str | None = None
    config_name: str = "config"
    dry_run: bool = False
    retry_failed: bool = False
    extend: bool = False
    new: bool = False
    join: bool = False
    mixed_code: bool = False

    @property
    def command(self) -> str:
        """The command as it was typed, without its flags."""
        return " ".join(["dl-lab", "-m", *self.overrides])

    @property
    def sweep_files(self) -> list[str]:
        """The words that choose a sweep file, `sweep=oct_lr`."""
        return [word for word in self.overrides if word.startswith("sweep=")]


def parse(argv: Sequence[str]) -> SweepOptions:
    """Read the command line of a sweep.

    Args:
        argv: Its words, without the program.

    Raises:
        ConfigError: A flag does not exist.
    """
    parser = Parser(prog="dl-lab -m", description=DESCRIPTION)
    parser.add_argument("overrides", nargs="*", help="Hydra overrides; a=1,2 is an axis of the grid")
    parser.add_argument("--multirun", "-m", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--config-dir", "-cd", help="a folder of your own configs")
    parser.add_argument("--config-name", "-cn", default="config", help="your own main config")
    parser.add_argument("--dry-run", action="store_true", help="show the plan, start nothing")
    parser.add_argument("--retry-failed", action="store_true", help="run failed jobs of this sweep again")
    parser.add_argument("--extend", action="store_true", help="add new jobs to this sweep, leave the others")
    parser.add_argument("--new", action="store_true", help="start a new sweep, whatever was run before")
    parser.add_argument("--join", action="store_true", help="work on a search that another process runs too")
    parser.add_argument("--mixed-code", action="store_true", help="continue although the code changed")
    add_grid_flags(parser)
    found, unknown = parser.parse_known_intermixed_args(list(argv))
    flags = [word for word in unknown if word.startswith("-")]
    if flags:
        raise ConfigError(f"There is no flag {flags[0]}. See dl-lab sweep --help.")
    return SweepOptions(
        overrides=[*found.overrides, *unknown],
        grid_flags=grid_flags(found),
        config_dir=found.config_dir,
        config_name=found.config_name,
        dry_run=found.dry_run,
        retry_failed=found.retry_failed,
        extend=found.extend,
        new=found.new,
        join=found.join,
        mixed_code=found.mixed_code,
    )


def add_grid_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that shape a grid, besides Hydra's a=1,2."""
    parser.add_argument("--zip", action="append", default=[], metavar="'a=1,2 b=3,4'", help="keys that change together")
    parser.add_argument("--list", action="append", default=[], metavar="'a=1 b=3'", help="one more job")
    parser.add_argument("--exclude", action="append", default=[], metavar="'a=1 b=3'", help="without these jobs")
    parser.add_argument("--where", action="append", default=[], metavar="'a=1'", help="only these jobs")


def grid_flags(found: argparse.Namespace) -> dict[str, list[str]]:
    """Return the values of the flags that `add_grid_flags` adds, by name."""
    return {name: getattr(found, name) for name in GRID_FLAGS}
