"""Execute a sweep from its command line to its results: plan, check, write, run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from dl_lab import configs
from dl_lab.runs.environment import describe_environment
from dl_lab.sweeps import actions, plan, planning, view
from dl_lab.sweeps.checking import check_here, check_jobs
from dl_lab.sweeps.expand import expand
from dl_lab.sweeps.growing_grid import GrowingGrid
from dl_lab.sweeps.known import estimate, take_finished
from dl_lab.sweeps.session import run
from dl_lab.types import ConfigError

if TYPE_CHECKING:
    from dl_lab.sweeps.grid import Grid
    from dl_lab.sweeps.machinery import Machinery
    from dl_lab.sweeps.options import SweepOptions
    from dl_lab.sweeps.pruned_grid import PrunedGrid

MOST_SHOWN = 40  # jobs of a plan that is shown although nobody asked for it


def execute(options: SweepOptions, argv: Sequence[str], machinery: Machinery) -> int:
    """Plan, check, write and run a sweep.

    Args:
        options: What the command line asks for.
        argv: The words of the command line, without the program.
        machinery: Where the jobs run.

    Returns:
        The exit status: 1 where a job failed.

    Raises:
        UserError: The sweep cannot start.
        Interrupted: The user asked the sweep to stop.
    """
    composer = configs.Composer(options.config_dir, options.config_name)
    expanded = expand(composer, options.overrides, options.grid_flags)
    if options.join and not expanded.search:
        raise ConfigError("--join is for a search: the jobs of a grid belong to one process.")
    if expanded.search:
        from dl_lab.sweeps import execute_search

        return execute_search.execute(composer, options, expanded, argv, machinery)
    keys = expanded.keys()
    console = view.make_console()
    asked = planning.make_request(composer, expanded)
    outputs = Path(asked.first.config["paths"]["output_dir"])
    machinery.settle(expanded.launcher, asked.first.config, start=not options.dry_run)
    planned = planning.make_plan(composer, options, expanded, asked)
    if not options.dry_run:
        if not _lock(console, composer, options, planned, machinery, outputs):
            return 0
        # From here on no other process changes the folder: what it holds is matched with the jobs asked for.
        planned = planned.look_again(options)
        machinery.connect(console, planned.sweep)
    sweep = planned.sweep
    if planned.is_there:
        sweep = planning.merge_known(composer, planned, options.extend, options.mixed_code)
    actions.decide(sweep, options.retry_failed)
    if not options.new:
        take_finished(sweep.jobs, outputs, sweep.code)
    todo = [job for job in sweep.jobs if job.action in plan.RUNS]
    estimate(sweep.jobs, outputs)
    if len(sweep.jobs) <= MOST_SHOWN or options.dry_run:
        view.show_plan(console, sweep, keys)
    view.show_remarks(console, sweep.remarks)
    taken = [job for job in sweep.jobs if job.action == "take"]
    checked = [*todo, *taken, *sweep.respelt]
    if options.dry_run:
        check_here(checked)
        hint = f"Nothing was started. The sweep would be in {sweep.folder}."
        console.print(hint, soft_wrap=True, style="dim")
        return 0
    facts = describe_environment(["dl-lab", "-m", *argv])
    optional = ["optuna"] if expanded.pruner else []
    with sweep.clean_up_after_failure():
        check_jobs(machinery, checked, [job.config for job in todo], *optional)
    sweep.write()
    plan.link_taken(sweep.folder, sweep.jobs)
    pruned = _prune(expanded, sweep, todo) if expanded.pruner else None
    runner = machinery.runner(len(todo))
    console.print(f"Sweep folder {sweep.folder}  ({machinery.where(len(todo))})")
    return run(console, runner, sweep, todo, keys, facts, GrowingGrid(sweep, todo, pruned))


def _prune(expanded: Grid, sweep: plan.Sweep, todo: Sequence[plan.Job]) -> PrunedGrid:
    """Make the study to which the jobs of a grid with `pruner=` report.

    Raises:
        UserError: Optuna is not installed.
    """
    from dl_lab.sweeps import search
    from dl_lab.sweeps.execute_search import choose_objective
    from dl_lab.sweeps.pruned_grid import PrunedGrid

    with search.require_optuna():
        objective, mode = choose_objective(sweep.jobs[0].config)
        pruned = PrunedGrid(sweep.folder, expanded.pruner, objective, mode)
        for job in todo:
            pruned.enter(job)
        return pruned


def _lock(
    console: Console,
    composer: configs.Composer,
    options: SweepOptions,
    planned: planning.Planned,
    machinery: Machinery,
    outputs: Path,
) -> bool:
    """Lock the sweep's folder.

    Returns:
        False where another process runs the sweep and took the new jobs.

    Raises:
        UserError: Another process runs the sweep and takes no jobs.
    """
    if planned.is_there and options.extend:
        if planned.sweep.try_lock():
            return True
        from dl_lab.sweeps.adding import add_to_running

        return not add_to_running(console, composer, options, planned, machinery, outputs)
    planned.sweep.lock(" --extend adds jobs to it while it runs.")
    return True
