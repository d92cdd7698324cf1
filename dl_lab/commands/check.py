"""dl-lab check: find what is wrong in experiments, or in all jobs of a sweep, without data, GPU or output.

Composes each job, checks every class and argument, and runs one step on generated data.
Exit status: 0 all fit, 2 something is wrong.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from dl_lab import catalogue
from dl_lab import config as configs
from dl_lab.commands import sweep
from dl_lab.types import UserError


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    composer = configs.Composer(options.config_dir)
    jobs = plan(composer, options)
    problems = 0
    size = max(len(name) for name, _ in jobs)
    for name, overrides in jobs:
        try:
            problem = ""
            examine(composer, overrides)
        except UserError as error:
            problem = str(error)
            problems += 1
        first, *more = (problem or "ok").splitlines()
        print("\n".join([f"{name:<{size}}  {first}", *(f"  {line}" for line in more)]), flush=True)
    if len(jobs) > 1 or problems:
        print(f"\n{len(jobs) - problems} of {len(jobs)} are fine." if problems else f"\nAll {len(jobs)} are fine.")
    return 2 if problems else 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    summary, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="dl-lab check", description=summary, epilog=more, allow_abbrev=False)
    parser.add_argument(
        "overrides", nargs="*", metavar="override", help="one job, as when training; none: every experiment"
    )
    parser.add_argument("--multirun", "-m", action="store_true", help="a sweep: check every job of it")
    parser.add_argument("--config-dir", "-cd", metavar="DIR", help="a folder with configs of your own")
    sweep.add_grid_flags(parser)
    return parser.parse_intermixed_args(list(argv))


def plan(composer: configs.Composer, options: argparse.Namespace) -> list[tuple[str, list[str]]]:
    """(name, overrides) of each job to check."""
    if options.multirun:
        grid = sweep.expand(composer, options)
        return [(" ".join(job), [*grid.fixed, *job]) for job in grid.jobs()]
    if options.overrides:
        return [(" ".join(options.overrides), options.overrides)]
    names = [experiment.name for experiment in catalogue.experiments(options.config_dir)]
    return [(name, [f"experiment={name}"]) for name in names]


def examine(composer: configs.Composer, overrides: Sequence[str]) -> None:
    """Raises UserError, in the user's words, for the first thing that is wrong."""
    config = composer.compose(overrides).config
    configs.check(config)
    configs.rehearse(config)
