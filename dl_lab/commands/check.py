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

from dl_lab import configs
from dl_lab.configs import catalogue
from dl_lab.configs.words import did_you_mean
from dl_lab.jobs.rehearsal import rehearse
from dl_lab.show.options import Parser
from dl_lab.sweeps.expand import expand
from dl_lab.sweeps.families import compose_all
from dl_lab.sweeps.options import add_grid_flags, grid_flags
from dl_lab.types import ConfigError, UserError


@dataclass(frozen=True)
class Job:
    """One line of the answer: its name, and the overrides that make it."""

    name: str
    overrides: Sequence[str]


def main(argv: Sequence[str]) -> int:
    """Run `dl-lab check` and return the exit status."""
    options = parse(argv)
    composer = configs.Composer(options.config_dir, options.config_name)
    jobs = plan(composer, options)
    composed = compose_together(composer, jobs) if options.multirun else [None] * len(jobs)
    size = max(len(job.name) for job in jobs)
    known: dict[str, str] = {}
    problems = 0
    for job, together in zip(jobs, composed, strict=True):
        problem = examine(composer, job, known, options.gpu, together)
        problems += bool(problem)
        first, *more = (problem or "ok").splitlines()
        print("\n".join([f"{job.name:<{size}}  {first}", *more]), flush=True)
    if len(jobs) > 1:
        print(f"\n{len(jobs) - problems} of {len(jobs)} are fine." if problems else f"\nAll {len(jobs)} are fine.")
    return ConfigError.exit_code if problems else 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    summary, _, more = (__doc__ or "").partition("\n\n")
    parser = Parser(prog="dl-lab check", description=summary, epilog=more)
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="override",
        help="names of experiments, or one job as when training; none: all",
    )
    parser.add_argument("--multirun", "-m", action="store_true", help="a sweep: check every job of it")
    parser.add_argument("--config-dir", "-cd", metavar="DIR", help="a folder with configs of your own")
    parser.add_argument("--config-name", "-cn", default="config", metavar="NAME", help="another main config")
    parser.add_argument(
        "--gpu", action="store_true", help="also try a step on a pretended GPU: mixed devices, waiting for the host"
    )
    add_grid_flags(parser)
    return parser.parse_intermixed_args(list(argv))


def plan(composer: configs.Composer, options: argparse.Namespace) -> list[Job]:
    """List the jobs to check.

    Raises:
        ConfigError: A word names no experiment, or the sweep cannot be planned.
    """
    if options.multirun:
        grid = expand(composer, options.overrides, grid_flags(options))
        return [Job(" ".join(job) or "(one job)", [*grid.fixed, *job]) for job in grid.jobs()]
    named = [word for word in options.overrides if "=" not in word and not word.startswith(("~", "+"))]
    if named:
        overrides = [word for word in options.overrides if word not in named]
        known = [experiment.name for experiment in catalogue.experiments(options.config_dir)]
        for name in named:
            if name not in known:
                raise ConfigError(f"There is no experiment {name!r}.{did_you_mean(name, known)}")
        return [Job(" ".join([name, *overrides]), [f"experiment={name}", *overrides]) for name in named]
    if options.overrides:
        return [Job(" ".join(options.overrides), options.overrides)]
    names = [experiment.name for experiment in catalogue.experiments(options.config_dir)]
    return [Job(name, [f"experiment={name}"]) for name in names]


def compose_together(composer: configs.Composer, jobs: Sequence[Job]) -> list[configs.Composed] | list[None]:
    """Compose the jobs of a sweep at the cost of a few. None for each job if one is wrong: each then says its own."""
    try:
        return compose_all(composer.compose, composer.group_names(), [job.overrides for job in jobs])
    except UserError:
        return [None] * len(jobs)


def examine(
    composer: configs.Composer,
    job: Job,
    known: dict[str, str],
    on_gpu: bool = False,
    composed: configs.Composed | None = None,
) -> str:
    """Return what is wrong with a job; "" where it is fine.

    Args:
        composer: Composes the job.
        job: The job.
        known: The answers so far, by config. Jobs that differ only in their seed share one.
        on_gpu: Also try a step on a pretended GPU.
        composed: The job, where it is composed already.
    """
    try:
        composed = composed or composer.compose(job.overrides)
        configs.refuse_unread(composed.unread)
    except UserError as error:
        return str(error)
    config = composed.config
    key = configs.key_of(seedless(config, config["seed"]))
    if key not in known:
        known[key] = problem_of(config, on_gpu)
    return known[key]


def problem_of(config: Mapping[str, Any], on_gpu: bool = False) -> str:
    """Return what is wrong with a composed config; "" where it is fine. With on_gpu, also try a pretended GPU."""
    try:
        configs.check(config)
        rehearse(config)
        if on_gpu:
            from dl_lab.jobs.pretended_gpu import find_device_fault

            return find_device_fault(config)
    except UserError as error:
        return str(error)
    return ""


def seedless(value: object, seed: object) -> object:
    """Return nested values with null in the place of the seed."""
    if not isinstance(value, dict):
        return value
    found = {}
    for name, item in value.items():
        is_seed = name == "seed" and item == seed
        found[name] = None if is_seed else seedless(item, seed)
    return found
