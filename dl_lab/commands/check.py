"""dl-lab check: find what is wrong in experiments or the jobs of a sweep.

Composes each job, checks every class and argument, and runs one step on generated data; needs no data and no GPU,
and writes nothing.
Exit status: 0 all fit, 2 something is wrong.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dl_lab import catalogue
from dl_lab import config as configs
from dl_lab.commands import _sweep, sweep
from dl_lab.types import ConfigError, UserError


@dataclass(frozen=True)
class Job:
    """One line of the answer: its name, and the overrides that make it."""

    name: str
    overrides: Sequence[str]


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    composer = configs.Composer(options.config_dir, options.config_name)
    jobs = plan(composer, options)
    size = max(len(job.name) for job in jobs)
    known: dict[str, str] = {}
    problems = 0
    for job in jobs:
        problem = examine(composer, job, known)
        problems += bool(problem)
        first, *more = (problem or "ok").splitlines()
        print("\n".join([f"{job.name:<{size}}  {first}", *more]), flush=True)
    if len(jobs) > 1:
        print(f"\n{len(jobs) - problems} of {len(jobs)} are fine." if problems else f"\nAll {len(jobs)} are fine.")
    return ConfigError.exit_code if problems else 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    summary, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(prog="dl-lab check", description=summary, epilog=more, allow_abbrev=False)
    parser.add_argument(
        "overrides", nargs="*", metavar="override", help="one job, as when training; none: every experiment"
    )
    parser.add_argument("--multirun", "-m", action="store_true", help="a sweep: check every job of it")
    parser.add_argument("--config-dir", "-cd", metavar="DIR", help="a folder with configs of your own")
    parser.add_argument("--config-name", "-cn", default="config", metavar="NAME", help="another main config")
    sweep.add_grid_flags(parser)
    return parser.parse_intermixed_args(list(argv))


def plan(composer: configs.Composer, options: argparse.Namespace) -> list[Job]:
    """The jobs to check. Raises ConfigError where they cannot even be listed."""
    if options.multirun:
        grid = _sweep.expand(composer, options)
        return [Job(" ".join(job) or "(one job)", [*grid.fixed, *job]) for job in grid.jobs()]
    if options.overrides:
        return [Job(" ".join(options.overrides), options.overrides)]
    names = [experiment.name for experiment in catalogue.experiments(options.config_dir)]
    return [Job(name, [f"experiment={name}"]) for name in names]


def examine(composer: configs.Composer, job: Job, known: dict[str, str]) -> str:
    """What is wrong with a job, "" for nothing. known: answers by config, for jobs that differ in their seed only."""
    try:
        config = composer.compose(job.overrides).config
    except UserError as error:
        return str(error)
    key = configs.key_of(seedless(config, config["seed"]))
    if key not in known:
        known[key] = problem_of(config)
    return known[key]


def problem_of(config: Mapping[str, Any]) -> str:
    """What is wrong with a composed config, "" for nothing."""
    try:
        configs.check(config)
        configs.rehearse(config)
    except UserError as error:
        return str(error)
    return ""


def seedless(value: object, seed: object) -> object:
    """The same nested values without what `seed` put into them."""
    if isinstance(value, dict):
        return {name: None if name == "seed" and item == seed else seedless(item, seed) for name, item in value.items()}
    return value
