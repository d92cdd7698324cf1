"""Execute a search from its command line to its results: plan, check, run, show the best trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dl_lab import configs
from dl_lab.configs import identity
from dl_lab.configs.parts import trainer_of
from dl_lab.runs.environment import describe_environment
from dl_lab.runs.records import smaller_is_better
from dl_lab.show import tables
from dl_lab.sweeps import checking, continuation, families, grid, plan, planning, search, session, view
from dl_lab.sweeps.machinery import Machinery
from dl_lab.sweeps.options import SweepOptions
from dl_lab.sweeps.plan_file import Plan, read_frozen, read_plan
from dl_lab.sweeps.space import Space, parse_space
from dl_lab.sweeps.trials import Trials
from dl_lab.types import ConfigError, UserError, count

if TYPE_CHECKING:
    from rich.console import Console

AT_A_TIME = 8  # jobs of a search on a cluster with lanes=auto: more would start before the search learns from any
MOST_BEST = 5  # trials in the table at the end


def execute(
    composer: configs.Composer,
    options: SweepOptions,
    expanded: grid.Grid,
    argv: Sequence[str],
    machinery: Machinery,
) -> int:
    """Check and run a search.

    Args:
        composer: Composes the jobs.
        options: What the command line asks for.
        expanded: The settings of the search, and what it varies.
        argv: The words of the command line, without the program.
        machinery: Where the jobs run.

    Returns:
        The exit status: 1 where a job failed, or no trial gave a finite value.

    Raises:
        UserError: The search cannot start.
        Interrupted: The user asked the search to stop.
    """
    console = view.make_console()
    with search.require_optuna():
        space = parse_space(expanded.ranges)
        probes = space.probes()
        composed = families.compose_all(
            composer.compose, composer.group_names(), [[*expanded.fixed, *words] for words in probes]
        )
        planning.refuse_unread(composed)
        first = composed[0].config
        study = make_search(expanded, space, first)
        machinery.settle(expanded.launcher, first, start=not options.dry_run)
        sweep = make_plan(options, expanded, study, first)
        # What the folder holds is read once nobody else can change it. A dry run and --join take no lock.
        if not options.dry_run and not options.join:
            sweep.lock()
        continue_known(sweep, options)
        show(console, expanded, study)
        view.show_remarks(console, expanded.notes)
        if options.dry_run:
            console.print(f"Nothing was started. The search would be in {sweep.folder}.")
            return 0
        machinery.connect(console, sweep)
        facts = describe_environment(["dl-lab", "-m", *argv])
        with sweep.clean_up_after_failure():
            jobs = []
            for i, (words, of_job) in enumerate(zip(probes, composed, strict=True)):
                jobs.append(plan.Job(i, "", list(words), of_job.config, of_job.choices))
            checking.check_jobs(machinery, jobs, [first], "optuna")
        study.open()
        identifier = identity.Identifier(sweep.code)
        trials = Trials(composer, expanded, study, identifier)
        if options.retry_failed:
            study.retry_failed()
        todo = trials.settle(sweep, options.join)
        sweep.write()
        width = min(study.total, AT_A_TIME)
        console.print(f"Sweep folder {sweep.folder}  ({machinery.where(width)})")
        status = session.run(console, machinery.runner(width), sweep, todo, expanded.keys(), facts, trials)
        for reason in dict.fromkeys(trials.refused):
            n_refused = count(trials.refused.count(reason), "trial")
            console.print(f"{n_refused} had values that give no job: {reason}", soft_wrap=True)
        show_best(console, sweep, study)
        if not study.has_values():
            console.print(
                f"No trial gave a finite {study.objective}: this search has learned nothing.",
                soft_wrap=True,
            )
            return 1
        return status


def choose_objective(config: Mapping[str, Any]) -> tuple[str, str]:
    """Choose the metric that a search optimises, or by which a pruner judges.

    Args:
        config: The config of a job.

    Returns:
        The metric, and "min" or "max".

    Raises:
        ConfigError: There is no such metric, or it is not one of the validation split.
    """
    trainer = trainer_of(config)
    objective = config["objective"] or trainer.get("monitor")
    if not objective:
        raise ConfigError("This procedure has no trainer that monitors a metric: name one, objective=val/loss.")
    if trainer and not objective.startswith("val/"):
        raise ConfigError(f"objective={objective} is not a val/ metric: a search must not look at train or test.")
    if objective == trainer.get("monitor") and trainer.get("mode"):
        return objective, trainer["mode"]
    return objective, "min" if smaller_is_better(objective) else "max"


def make_search(expanded: grid.Grid, space: Space, config: Mapping[str, Any]) -> search.Search:
    """Make the search that a command line asks for.

    Args:
        expanded: The settings of the search.
        space: What it varies.
        config: The config of a job.

    Raises:
        ConfigError: A setting is wrong.
    """
    objective, mode = choose_objective(config)
    n_trials = config["n_trials"]
    if n_trials is not None and (not isinstance(n_trials, int) or n_trials < 1):
        raise ConfigError(f"n_trials={n_trials} is not a number of at least 1.")
    sampler = configs.build_checked(expanded.search, "search")
    return search.Search(Path(), space, sampler, n_trials, config["search_seed"], objective, mode)


def make_plan(
    options: SweepOptions, expanded: grid.Grid, study: search.Search, config: Mapping[str, Any]
) -> plan.Sweep:
    """Plan the search, in a new folder or in that of the same command before.

    Args:
        options: What the command line asks for.
        expanded: The settings of the search.
        study: The search. It gets the folder.
        config: The config of a job.

    Raises:
        UserError: --join was given and the search has not started.
    """
    key = plan.sweep_key([*expanded.fixed, *options.sweep_files], expanded.keys())
    place = planning.find_place(options, expanded.folder, key, Path(config["paths"]["output_dir"]))
    if options.join and not place.is_there:
        raise UserError("--join: this search was not started yet. Start it without --join.")
    fixed = plan.of_jobs(expanded.fixed)
    sweep = plan.Sweep(place.folder, key, options.command, identity.code_fingerprint(), [], fixed)
    sweep.held = place.lock
    sweep.search = {
        "space": dict(study.space.words),
        "objective": study.objective,
        "mode": study.mode,
        "seed": study.seed,
        "sampler": expanded.search,
        "pruner": expanded.pruner,
    }
    study.folder = place.folder
    return sweep


def continue_known(sweep: plan.Sweep, options: SweepOptions) -> None:
    """Continue the earlier search in the sweep's folder, where there is one: take over its code and its notes.

    Args:
        sweep: The sweep as it is typed now.
        options: What the command line asks for.

    Raises:
        UserError: The code or the data changed since the search started.
    """
    if not planning.holds_sweep(sweep.folder, options):
        return
    known = read_plan(sweep.folder)
    continuation.refuse_other_code(sweep.folder, known, sweep.code, options.mixed_code)
    _refuse_changes(sweep.folder, known, options.mixed_code)
    sweep.notes = list(known["notes"])
    if options.mixed_code and sweep.code != known["code"]:
        sweep.notes.append(f"continued with other code ({sweep.code})")
    sweep.code = known["code"]


def _refuse_changes(folder: Path, known: Plan, mixed_code: bool) -> None:
    """Refuse to continue where the user's own code or the data of a trial changed."""
    identifier = identity.Identifier()
    frozen = read_frozen(folder)
    for entry in known["jobs"]:
        if entry["number"] in frozen:
            now = identifier.identify(frozen[entry["number"]]["config"])
            continuation.refuse_other_data(folder, entry, now.data, now.facts.get("data_files", {}))
            continuation.refuse_other_own_code(folder, entry, now.own, mixed_code)


def _name_class(node: Mapping[str, object]) -> str:
    return str(node["_target_"]).rpartition(".")[2]


def show(console: Console, expanded: grid.Grid, study: search.Search) -> None:
    """Show what varies in which range, and how the search chooses.

    Args:
        console: Where it is shown.
        expanded: The settings of the search.
        study: The search.
    """
    from rich.table import Table

    pruner = f", pruned by {_name_class(expanded.pruner)}" if expanded.pruner else ""
    aim = f"{'highest' if study.mode == 'max' else 'lowest'} {study.objective}"
    table = Table(
        title=f"Search for the {aim} by {_name_class(expanded.search)}{pruner}",
        title_justify="left",
        title_style="bold",
        box=None,
        show_header=False,
    )
    for key, words in study.space.words.items():
        table.add_row(key.lstrip("+"), words)
    console.print(table)


def show_best(console: Console, sweep: plan.Sweep, study: search.Search) -> None:
    """Show the best trials, and the run folder of the first.

    Args:
        console: Where it is shown.
        sweep: The sweep.
        study: The search.
    """
    from rich.table import Table

    best = study.best(MOST_BEST)
    if not best:
        return
    jobs = {job.number: job for job in sweep.jobs}
    table = Table(title=f"Best {study.objective}", title_justify="left", title_style="bold", box=None)
    table.add_column("job", justify="right")
    table.add_column(study.objective, justify="right")
    for key in study.space.words:
        table.add_column(view.short(key, list(study.space.words)), overflow="fold")
    for trial in best:
        values = [view.round_value(str(trial.params.get(key, ""))) for key in study.space.words]
        table.add_row(str(trial.number), tables.cell(trial.value), *values)
    console.print(table)
    console.print(f"The best run: {sweep.folder / jobs[best[0].number].name}")
