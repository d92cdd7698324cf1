"""A sweep with search=: its jobs come one by one from a searcher (see dl_lab.sweeps.search)."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dl_lab import config as configs
from dl_lab.commands import _sweep as sweeps
from dl_lab.commands import sweep
from dl_lab.records import smaller_is_better
from dl_lab.run import describe_environment, read_records, to_json
from dl_lab.sweeps import families, grid, identity, plan, search, view
from dl_lab.types import ConfigError, UserError

AT_A_TIME = 8  # jobs of a search on a cluster, where lanes=auto: more would be asked for before any has ended


def main(
    composer: configs.Composer,
    options: argparse.Namespace,
    expanded: grid.Grid,
    argv: Sequence[str],
    machinery: sweep.Machinery,
) -> int:
    from rich.console import Console

    console = Console(highlight=False)
    with search.needed():
        space = search.parse_space(expanded.ranges)
        probes = [[*expanded.fixed, *words] for words in space.probes()]
        composed = families.compose_all(composer.compose, composer.group_names(), probes)
        study = make_search(expanded, space, composed[0].config)
        machinery.settle(expanded.launcher, composed[0].config, start=not options.dry_run)
        one = make_plan(options, expanded, study, composed[0].config)
        show(console, expanded, study)
        if options.dry_run:
            console.print(f"Nothing was started. The search would be in {one.folder}.")
            return 0
        if not options.join:
            one.lock()
        machinery.connect(console, one)
        words = [list(words) for words in space.probes()]
        facts = describe_environment(["dl-lab", "-m", *argv])
        with one.leaving_nothing():
            sweeps.check_jobs(
                machinery,
                [plan.Job(i, "", words[i], part.config, part.choices) for i, part in enumerate(composed)],
                sweeps.needs([composed[0].config], "optuna"),
            )
        study.open()
        trials = Trials(composer, expanded, study, composed[0].config, one.code)
        if options.retry_failed:
            study.retry_failed()
        todo = trials.settle(one, options.join)
        one.write()
        width = min(study.total, AT_A_TIME)
        console.print(f"Sweep folder {one.folder}  ({machinery.where(width)})")
        status = sweeps.run(console, machinery.runner(width), one, todo, expanded.keys(), facts, trials)
        show_best(console, one, study)
        return status


def make_search(expanded: grid.Grid, space: search.Space, config: Mapping[str, Any]) -> search.Search:
    """What is searched, by what and for what. Raises ConfigError."""
    trainer = config["procedure"].get("trainer") or {}
    objective = config["objective"] or trainer.get("monitor")
    if not objective:
        raise ConfigError("This procedure has no trainer that monitors a metric: name one, objective=val/loss.")
    if trainer and not objective.startswith("val/"):
        raise ConfigError(f"objective={objective} is not a val/ metric: a search must not look at train or test.")
    mode = trainer.get("mode") if objective == trainer.get("monitor") else None
    mode = mode or ("min" if smaller_is_better(objective) else "max")
    n_trials = config["n_trials"]
    if n_trials is not None and (not isinstance(n_trials, int) or n_trials < 1):
        raise ConfigError(f"n_trials={n_trials} is not a number of at least 1.")
    sampler = configs.build_checked(expanded.search, "search")
    return search.Search(Path(), space, sampler, n_trials, config["search_seed"], objective, mode)


def make_plan(
    options: argparse.Namespace, expanded: grid.Grid, study: search.Search, config: Mapping[str, Any]
) -> plan.Sweep:
    """The search that was typed before, or a new one. Raises UserError where the code changed since."""
    chosen = [word for word in options.overrides if word.startswith("sweep=")]
    key = plan.sweep_key([*expanded.fixed, *chosen], expanded.keys())
    folder, is_there = sweeps.place(options, key, config)
    if options.join and not is_there:
        raise UserError("--join: this search was not started yet. Start it without --join.")
    code = identity.code_fingerprint()
    one = plan.Sweep(
        folder, key, " ".join(["dl-lab", "-m", *options.overrides]), code, [], plan.of_jobs(expanded.fixed)
    )
    one.search = {
        "space": dict(study.space.words),
        "objective": study.objective,
        "mode": study.mode,
        "seed": study.seed,
        "sampler": expanded.search,
        "pruner": expanded.pruner,
    }
    if is_there:
        known = plan.read_plan(folder)
        plan.refuse_other_code(folder, known, code, options.mixed_code)
        one.code, one.notes = known["code"], known.get("notes", [])
        if options.mixed_code and code != known["code"]:
            one.notes = [*one.notes, f"goes on with other code ({code})"]
    study.folder = folder
    return one


def show(console: Any, expanded: grid.Grid, study: search.Search) -> None:
    """What varies in which range, and by what it is searched."""
    from rich.table import Table

    def name(node: Mapping[str, Any]) -> str:
        return str(node["_target_"]).rpartition(".")[2]

    pruner = f", pruned by {name(expanded.pruner)}" if expanded.pruner else ""
    aim = f"{'highest' if study.mode == 'max' else 'lowest'} {study.objective}"
    table = Table(
        title=f"Search for the {aim} by {name(expanded.search)}{pruner}",
        title_justify="left",
        title_style="bold",
        box=None,
        show_header=False,
    )
    for key, words in study.space.words.items():
        table.add_row(key.lstrip("+"), words)
    console.print(table)


@dataclass
class Trials:
    """The jobs of a search (`sweep.More`)."""

    composer: configs.Composer
    expanded: grid.Grid
    study: search.Search
    probe: Mapping[str, Any]
    code: str

    @property
    def metric(self) -> str:
        return self.study.objective

    def left(self) -> int:
        ended = len(self.study.trials("COMPLETE", "PRUNED", "FAIL"))
        return max(self.study.total - ended, 0)

    def ask(self, sweep: plan.Sweep) -> plan.Job | None:
        made: list[plan.Job] = []

        def describe(number: int, words: list[str]) -> dict[str, Any]:
            made.append(self._job(number, words))
            return {"id": made[0].id, "data": made[0].data}

        if self.study.ask(describe) is None:
            return None
        for job in self._others(sweep, made[0].number):  # of a process that has joined
            sweep.add(job)
        sweep.add(made[0])
        return made[0]

    def ended(self, job: plan.Job) -> None:
        self.study.tell(job.number, self.study.folder / job.name)

    def settle(self, sweep: plan.Sweep, joining: bool) -> list[plan.Job]:
        """Record what ended while nobody looked; the jobs that were left behind, to go on with."""
        frozen = {entry["number"]: entry for entry in read_records(sweep.folder / "configs.jsonl")}
        sweep.jobs = self._others(sweep, -1, frozen)
        by_number = {job.number: job for job in sweep.jobs}
        left = [
            by_number[trial.number]
            for trial in self.study.trials("RUNNING")
            if trial.number in by_number
            and self.study.is_ours(trial, sweep.folder / by_number[trial.number].name, joining)
        ]
        for job in left:
            self.study.tell(job.number, sweep.folder / job.name)
        plan.decide(sweep, retry_failed=False)
        for job in sweep.jobs:
            if job not in left and job.action != "skip":
                job.action = "leave"  # another process works on it
        return [job for job in left if job.action != "skip"]

    def _others(
        self, sweep: plan.Sweep, without: int, frozen: Mapping[int, Mapping[str, Any]] | None = None
    ) -> list[plan.Job]:
        """The trials that are not among the sweep's jobs yet."""
        known = {job.number for job in sweep.jobs} | {without}
        trials = self.study.trials("RUNNING", "COMPLETE", "PRUNED", "FAIL")
        return [
            self._job(trial.number, trial.user_attrs["overrides"], (frozen or {}).get(trial.number), trial.user_attrs)
            for trial in trials
            if trial.number not in known and "id" in trial.user_attrs
        ]

    def _job(
        self,
        number: int,
        words: list[str],
        frozen: Mapping[str, Any] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> plan.Job:
        """A trial as a job; what earlier starts have written down stays as it is."""
        if frozen is None:
            composed = self.composer.compose([*self.expanded.fixed, *words])
            frozen = {"config": composed.config, "choices": composed.choices}
        config = frozen["config"]
        data = facts["data"] if facts else identity.data_fingerprint(config)
        id = facts["id"] if facts else identity.job_id(config, self.code, data)
        report = to_json(self.study.report_file(number, self.expanded.pruner))
        return plan.Job(
            number, id, list(words), config, dict(frozen["choices"]), data, files={search.REPORT_FILE: report}
        )


def show_best(console: Any, one: plan.Sweep, study: search.Search) -> None:
    """The five best trials, and how to take the first."""
    from rich.table import Table

    best = study.best(5)
    if not best:
        return
    names = {job.number: job for job in one.jobs}
    table = Table(title=f"Best {study.objective}", title_justify="left", title_style="bold", box=None)
    table.add_column("job", justify="right")
    table.add_column(study.objective, justify="right")
    for key in study.space.words:
        table.add_column(view.short(key, list(study.space.words)), overflow="fold")
    for trial in best:
        values = [view.rounded(str(trial.params.get(key, ""))) for key in study.space.words]
        table.add_row(str(trial.number), f"{trial.value:.4f}", *values)
    console.print(table)
    console.print(f"The best run: {one.folder / names[best[0].number].name}")
