"""A sweep from its grid to its results: composed, checked, written, run."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console

from dl_lab import config as configs
from dl_lab import targets
from dl_lab.records import flatten
from dl_lab.run import describe_environment, read_json, state_of
from dl_lab.sweeps import families, grid, identity, lanes, plan, remote, view
from dl_lab.types import ConfigError, Interrupted, Pruned

if TYPE_CHECKING:
    from dl_lab.commands.sweep import Machinery

FLAGS = ("zip", "list", "exclude", "where")
DRAWN_WITH = "matplotlib.backends.backend_agg"  # 0.3 s: only for jobs with figures
WITHOUT_FIGURES = (
    "dl_lab.experiments.fit.Fit",
    "dl_lab.training.callbacks.EarlyStopping",
    "dl_lab.training.callbacks.ProgressBar",
    "dl_lab.training.learners.GradientLearner",
    "dl_lab.training.trainer.Trainer",
)


def execute(options: argparse.Namespace, argv: Sequence[str], machinery: Machinery) -> int:
    """Plan, check, write and run; the exit status."""
    composer = configs.Composer(options.config_dir, options.config_name)
    expanded = expand(composer, options)
    if options.join and not expanded.search:
        raise ConfigError("--join is for a search: the jobs of a grid belong to one process.")
    if expanded.search:
        from dl_lab.commands import _search

        return _search.main(composer, options, expanded, argv, machinery)
    keys = expanded.keys()
    console = Console(highlight=False)
    first = composer.compose([*expanded.fixed, *expanded.jobs()[0]])
    machinery.settle(expanded.launcher, first.config, start=not options.dry_run)
    sweep = make_plan(composer, options, expanded, first)
    if not options.dry_run:
        sweep.lock()
        machinery.connect(console, sweep)
    plan.decide(sweep, options.retry_failed)
    todo = [job for job in sweep.jobs if job.action in ("run", "resume", "retry")]
    plan.estimate(sweep.jobs, Path(first.config["paths"]["output_dir"]))
    if options.dry_run:
        view.show_plan(console, sweep, keys)
        console.print(f"Nothing was started. The sweep would be in {sweep.folder}.")
        return 0
    if len(sweep.jobs) <= 40:
        view.show_plan(console, sweep, keys)
    facts = describe_environment(["dl-lab", "-m", *argv])
    with sweep.leaving_nothing():
        check_jobs(machinery, todo, needs([job.config for job in todo]))
    sweep.write()
    runner = machinery.runner(len(todo))
    console.print(f"Sweep folder {sweep.folder}  ({machinery.where(len(todo))})")
    return run(console, runner, sweep, todo, keys, facts)


# -- the plan -----------------------------------------------------------------------------------------------------


def expand(composer: configs.Composer, options: argparse.Namespace) -> grid.Grid:
    """The grid, or the space of a search: of the command line, of `sweep=` and of `hydra.sweeper.params`."""
    overrides = [word for word in options.overrides if not word.startswith("hydra.mode=")]
    flags = {name: getattr(options, name) for name in FLAGS}
    fixed = grid.expand(composer.loader, overrides, {}, None, searching=True).fixed
    try:
        base = composer.load(fixed)
    except ConfigError:  # perhaps a key of what swept experiments choose: the jobs will tell whether it is wrong
        base = composer.load([word for word in fixed if not _is_of_jobs_only(word)])
    params = base.hydra.sweeper.get("params") or {}
    named = {word.partition("=")[0] for word in overrides}
    overrides += [f"{key}={value}" for key, value in params.items() if key not in named]
    spec = configs.plain(base.sweep) if base.get("sweep") else None
    kept = [word for word in overrides if not word.startswith(("sweep=", "hydra.sweep.dir="))]
    expanded = grid.expand(composer.loader, kept, flags, spec, searching=bool(base.get("search")))
    for name in configs.SWEEP_GROUPS:
        setattr(expanded, name, configs.plain(base[name]) if base.get(name) else {})
    if expanded.pruner and not expanded.search:
        raise ConfigError("pruner= is for a search: add search=tpe, or search=grid to prune a grid.")
    return expanded


def _is_of_jobs_only(word: str) -> bool:
    """Whether an override sets a key that says nothing about how a sweep is run: dataset.pad_frames=null."""
    head, dot, _ = word.lstrip("+~").partition("=")[0].partition(".")
    return bool(dot) and head not in ("hydra", "sweep", *configs.SWEEP_GROUPS)


def make_plan(
    composer: configs.Composer, options: argparse.Namespace, expanded: grid.Grid, first: configs.Composed
) -> plan.Sweep:
    """Compose every job and find the sweep it belongs to: a new one, or the one of the same command before.

    first: the first job, composed already.
    """
    combos = expanded.jobs()
    words = [[*expanded.fixed, *job] for job in combos]
    composed = families.compose_all(composer.compose, composer.group_names(), words, first)
    code = identity.code_fingerprint()
    jobs = []
    for number, (overrides, one) in enumerate(zip(combos, composed, strict=True)):
        data = identity.data_fingerprint(one.config)
        jobs.append(plan.Job(number, identity.job_id(one.config, code, data), overrides, one.config, one.choices, data))
    chosen = [word for word in options.overrides if word.startswith("sweep=")]
    key = plan.sweep_key([*expanded.fixed, *chosen], expanded.keys())
    folder, is_there = place(options, key, composed[0].config)
    sweep = plan.Sweep(
        folder, key, " ".join(["dl-lab", "-m", *options.overrides]), code, jobs, plan.of_jobs(expanded.fixed)
    )
    return plan.merge(folder, sweep, options.extend, options.mixed_code) if is_there else sweep


def place(options: argparse.Namespace, key: str, config: Mapping[str, Any]) -> tuple[Path, bool]:
    """The folder of a sweep, and whether it is that of the same command before."""
    explicit = [word.partition("=")[2] for word in options.overrides if word.startswith("hydra.sweep.dir=")]
    root = Path(config["paths"]["output_dir"]) / "sweeps"
    old = Path(explicit[0]) if explicit else plan.find_sweep(root, key)
    is_there = old is not None and (old / "sweep.yaml").exists() and not options.new
    if old is not None and (explicit or is_there):
        return old, is_there
    return root / f"(new)_{key}" if options.dry_run else plan.new_folder(root, key), False


def needs(jobs: Sequence[Mapping[str, Any]], *modules: str) -> dict[str, Any]:
    """What the servers are to import and to load for jobs with these configs."""
    shared = [config for config in jobs if config["job_process"] != "fresh"]
    datasets = {configs.key_of(config["procedure"].get("dataset")): config for config in shared}
    named = sorted({node["_target_"] for config in shared for _, node in targets.targets(config["procedure"])})
    drawing = [name for name in named if name.startswith(("dl_lab.experiments.", "dl_lab.training."))]
    return {
        "targets": named,
        "datasets": [{"procedure": {"dataset": config["procedure"].get("dataset")}} for config in datasets.values()],
        "modules": [*([DRAWN_WITH] if set(drawing) - set(WITHOUT_FIGURES) else []), *modules],
    }


def check_jobs(machinery: Machinery, jobs: Sequence[plan.Job], needed: Mapping[str, Any]) -> None:
    """Check and rehearse the jobs that differ in more than seeds and rates (numbers with a fraction).

    Of those that differ in rates alone it is done for the ones with the least and the greatest of each: a rate that its
    optimizer refuses is one of them. As many processes as there are lanes share the work, while the servers prepare
    what is needed. Raises ConfigError for the first wrong job.
    """
    distinct = {configs.key_of(_seedless(job.config)): job for job in reversed(jobs)}.values()
    kinds: dict[str, list[plan.Job]] = {}
    for job in distinct:
        kinds.setdefault(configs.key_of(_rateless(_seedless(job.config))), []).append(job)
    rehearsed = [[job.number, job.config] for alike in kinds.values() for job in _extremes(alike)]
    n = min(machinery.schedule.layout.slots, len(rehearsed))
    answers = machinery.schedule.ask([{"check": rehearsed[i::n]} for i in range(n)], {} if machinery.engine else needed)
    wrong = [answer for answer in answers if answer["event"] == "wrong"]
    if wrong:
        answer = min(wrong, key=lambda answer: answer["number"])
        job = next(job for job in jobs if job.number == answer["number"])
        name = f"Job {job.number}" if job.id else f"A job with {' '.join(job.overrides)}"  # a search's have no numbers
        raise ConfigError(f"{name}: {answer['message']}")


def _seedless(config: Mapping[str, Any]) -> dict[str, Any]:
    procedure = config["procedure"]
    trainer = procedure.get("trainer")
    without = {**procedure, "trainer": {**trainer, "seed": None}} if isinstance(trainer, Mapping) else procedure
    checked = {name: config.get(name) for name in (*configs.SETTINGS, "logger", "reference") if name != "seed"}
    return {**checked, "procedure": without}


def _rateless(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _rateless(item) for key, item in value.items()}
    return None if isinstance(value, float) else value


def _extremes(jobs: Sequence[plan.Job]) -> list[plan.Job]:
    """Of jobs whose configs have numbers with a fraction in the same places, the least and greatest in each place."""
    rates = [{k: v for k, v in flatten(_seedless(job.config)).items() if isinstance(v, float)} for job in jobs]
    numbers = range(len(jobs))
    varying = [key for key in rates[0] if len({one[key] for one in rates}) > 1]
    kept = {choose(numbers, key=lambda i, k=key: rates[i][k]) for key in varying for choose in (min, max)}
    return [jobs[i] for i in sorted(kept or {0})]


# -- running ------------------------------------------------------------------------------------------------------


def run(
    console: Any,
    schedule: lanes.Schedule | remote.Cluster,
    sweep: plan.Sweep,
    todo: Sequence[plan.Job],
    keys: Sequence[str],
    facts: Mapping[str, Any],
    more: More | None = None,
) -> int:
    """Run the jobs and report; the exit status of the sweep. more: where a search's further jobs come from.

    facts: of `describe_environment`, for env.json.
    """
    todo, facts = list(todo), {**facts, "code": sweep.code}
    for job in todo:
        if job.action == "retry":
            plan.set_aside(sweep.folder / job.name)
    orders = {job.number: _orders(sweep, job, facts, schedule.threads) for job in todo}
    first = more.probe if more else sweep.jobs[0].config
    metric = more.metric if more else (first["procedure"].get("trainer") or {}).get("monitor", "")
    with view.View(console, sweep.jobs, keys, metric) as shown:
        if more:
            shown.total = more.left()
            schedule.next_job = lambda: _next_job(more, shown, sweep, todo, facts, schedule.threads)
        schedule.observe = lambda event: _observe(shown, sweep, event, more)
        statuses = schedule.run([job.number for job in todo], orders)
    results = sweep.write_results()
    failed = [job for job in sweep.jobs if job.action != "leave" and state_of(sweep.folder / job.name) == "failed"]
    failed += [job for job in todo if statuses.get(job.number, 0) not in lanes.NOT_FAILED and job not in failed]
    view.show_failures(console, sweep, failed, keys)
    n_done = sum(state_of(sweep.folder / job.name) == "done" for job in sweep.jobs)
    states = [state_of(sweep.folder / job.name) for job in sweep.jobs if (sweep.folder / job.name).exists()]
    pruned = f", {states.count('pruned')} pruned" if "pruned" in states else ""
    console.print(f"{n_done} of {len(sweep.jobs)} jobs done{pruned}.  Table {results}")
    console.print(f"TensorBoard  tensorboard --logdir {sweep.folder}")
    if n_done > 1:
        console.print(f"Over seeds   dl-lab compare {sweep.key}")
    if any(statuses.get(job.number, 130) == 130 for job in todo) and not failed:
        raise Interrupted("Interrupted: the same command goes on with what is left.")
    return 1 if failed else 0


def _orders(sweep: plan.Sweep, job: plan.Job, facts: Mapping[str, Any], threads: int) -> dict[str, Any]:
    return {
        "threads": threads,
        "files": dict(job.files),
        "folder": str(sweep.folder / job.name),
        "config": job.config,
        "choices": job.choices,
        "overrides": job.overrides,
        "fixed": sweep.fixed,
        "facts": dict(facts),
    }


class More(Protocol):
    """Further jobs, one at a time, from how the earlier ones ended (`_search`)."""

    probe: Mapping[str, Any]  # the config of a job like them

    @property
    def metric(self) -> str:
        """What is shown of a job that ended."""
        ...

    def left(self) -> int:
        """How many jobs are still to be run, those asked for included."""
        ...

    def ask(self, sweep: plan.Sweep) -> plan.Job | None:
        """A new job, noted in the plan; None: there are enough."""
        ...

    def ended(self, job: plan.Job) -> None:
        """Take in how a job ended."""
        ...


def _next_job(
    more: More, shown: view.View, sweep: plan.Sweep, todo: list[plan.Job], facts: Mapping[str, Any], threads: int
) -> tuple[int, dict[str, Any]] | None:
    job = more.ask(sweep)
    if job is None:
        return None
    todo.append(job)
    shown.jobs[job.number] = job
    return job.number, _orders(sweep, job, facts, threads)


def _said(error: Mapping[str, Any]) -> str:
    """An error of a status.json in a line: its message's first, else (a bare assert) what kind it is."""
    return str(error.get("message", "")).partition("\n")[0] or str(error.get("type", ""))


def _observe(shown: view.View, sweep: plan.Sweep, event: Mapping[str, Any], more: More | None = None) -> None:
    error, metrics = "", {}
    if event["event"] == "exit":
        folder = sweep.folder / shown.jobs[event["job"]].name
        status = read_json(folder / "status.json") or {}
        if more:
            more.ended(shown.jobs[event["job"]])
        if event["status"] == Pruned.exit_code:
            error = f"pruned {status.get('reason', '')}"
        elif event["status"] == Interrupted.exit_code:
            error = str(status.get("reason", ""))
        elif event["status"] != 0:
            error = _said(status.get("error", {}))
        else:
            metrics = (read_json(folder / "summary.json") or {}).get("metrics", {})
        sweep.note_result()
    shown.observe(event, error, metrics)
