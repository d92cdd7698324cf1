"""dl-lab -m [overrides], dl-lab sweep [overrides]: plan, check, write, run the jobs of a sweep."""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from dl_lab import config as configs
from dl_lab import preload, targets
from dl_lab.commands.train import is_several
from dl_lab.records import flatten
from dl_lab.run import NoBoard, Run, describe_devices, describe_environment, read_json, state_of
from dl_lab.sweeps import families, grid, identity, lanes, plan, remote, search, view
from dl_lab.types import ConfigError, Interrupted, Pruned, UserError

FLAGS = ("zip", "list", "exclude", "where")
NEEDED_BY_JOBS = (  # imported once by each server, not by every job
    "dl_lab.commands.train",
    "dl_lab.experiments.fit",
    "dl_lab.training.callbacks",
    "safetensors.torch",
    "tensorboard.plugins.hparams.summary_v2",
    "torch.utils.tensorboard",
)
DRAWN_WITH = "matplotlib.backends.backend_agg"  # 0.3 s: only for jobs with figures
WITHOUT_FIGURES = (
    "dl_lab.experiments.fit.Fit",
    "dl_lab.training.callbacks.EarlyStopping",
    "dl_lab.training.callbacks.ProgressBar",
    "dl_lab.training.learners.GradientLearner",
    "dl_lab.training.trainer.Trainer",
)


def main(argv: Sequence[str]) -> int:
    from rich.console import Console

    options = parse(argv)
    if is_several():
        raise ConfigError("A sweep starts its jobs itself: torchrun is for one job on several GPUs.")
    machinery = Machinery()
    if not options.dry_run:
        machinery.start_early()
    try:
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
        sweep = make_plan(composer, options, expanded)
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
        check_jobs(machinery.schedule, todo)
        sweep.write()
        runner = machinery.runner(len(todo))
        console.print(f"Sweep folder {sweep.folder}  ({machinery.where(len(todo))})")
        return run(console, runner, sweep, todo, keys, ["dl-lab", "-m", *argv])
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
        self.config = config
        if launcher:
            self.engine = configs.build_checked(launcher, "launcher")
        layout = lanes.plan_layout(config["lanes"], _device(config), config["threads"])
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


def make_plan(composer: configs.Composer, options: argparse.Namespace, expanded: grid.Grid) -> plan.Sweep:
    """Compose every job and find the sweep it belongs to: a new one, or the one of the same command before."""
    combos = expanded.jobs()
    composed = families.compose_all(composer.compose, composer.groups(), [[*expanded.fixed, *job] for job in combos])
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


def check_jobs(schedule: lanes.Schedule, jobs: Sequence[plan.Job]) -> None:
    """Check every job, and rehearse those that differ in more than seeds and rates (numbers with a fraction).

    Of the jobs that differ in rates alone those with the least and the greatest of each are rehearsed: a rate that its
    optimizer refuses is one of them. Raises ConfigError for the first wrong one.
    """
    distinct = {configs.key_of(_seedless(job.config)): job for job in reversed(jobs)}.values()
    kinds: dict[str, list[plan.Job]] = {}
    for job in distinct:
        kinds.setdefault(configs.key_of(_rateless(_seedless(job.config))), []).append(job)
    rehearsed = {job.number for alike in kinds.values() for job in _extremes(alike)}
    answer = schedule.ask({"check": [[j.number, j.config, j.number in rehearsed] for j in distinct]})
    if answer["event"] == "wrong":
        job = next(job for job in jobs if job.number == answer["number"])
        name = f"Job {job.number}" if job.id else f"A job with {' '.join(job.overrides)}"  # a search's have no numbers
        raise ConfigError(f"{name}: {answer['message']}")


def _seedless(config: Mapping[str, Any]) -> dict[str, Any]:
    procedure = config["procedure"]
    trainer = procedure.get("trainer")
    return {**procedure, "trainer": {**trainer, "seed": None}} if isinstance(trainer, Mapping) else procedure


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


def _device(config: Mapping[str, Any]) -> str:
    return (config["procedure"].get("trainer") or {}).get("device", "auto")


# -- running ------------------------------------------------------------------------------------------------------


def run(
    console: Any,
    schedule: lanes.Schedule | remote.Cluster,
    sweep: plan.Sweep,
    todo: Sequence[plan.Job],
    keys: Sequence[str],
    command: Sequence[str],
    more: More | None = None,
) -> int:
    """Run the jobs and report; the exit status of the sweep. more: where a search's further jobs come from."""
    todo, facts = list(todo), {**describe_environment(command), "code": sweep.code}
    known = [more.probe] if more else [job.config for job in todo]
    shared = [config for config in known if config["job_process"] != "fresh"]
    datasets = {configs.key_of(config["procedure"].get("dataset")): config for config in shared}
    if shared:
        wanted = [{"procedure": {"dataset": config["procedure"].get("dataset")}} for config in datasets.values()]
        named = sorted({node["_target_"] for config in shared for _, node in targets.targets(config["procedure"])})
        drawing = [n for n in named if n.startswith(("dl_lab.experiments.", "dl_lab.training."))]
        modules = [DRAWN_WITH] if set(drawing) - set(WITHOUT_FIGURES) else []
        for server in schedule.servers:
            server.prepare({"targets": named, "datasets": wanted, "modules": [*modules, *(["optuna"] if more else [])]})
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


# -- inside the processes of the sweep ----------------------------------------------------------------------------


def _prepare(orders: Mapping[str, Any]) -> None:
    """In a server: import everything a job needs, load the data; run no torch operation on several threads."""
    preload.torch()
    import torch

    torch.set_num_threads(1)
    with preload.without_collections():
        for name in orders.get("modules", []) if orders else NEEDED_BY_JOBS:
            importlib.import_module(name)
    if not orders:
        from dl_lab.training.checkpoints import seed_everything

        seed_everything(0)  # numpy loads its generators at the first use
    for target in orders.get("targets", []):  # now: a file that is edited while the sweep runs changes no job of it
        with contextlib.suppress(UserError):
            targets.locate("", target)
    for config in orders.get("datasets", []):
        try:
            configs.load_dataset(config)
        except (UserError, ValueError, OSError):
            continue  # the job that needs it says what is wrong
    gc.freeze()  # what the jobs share is not looked through, and so not copied, in each of them


def _work(job: int, orders: Mapping[str, Any], send: Any) -> int:
    """In a child: check jobs, or run one, here or (job_process=fresh) in a new interpreter."""
    if "check" in orders:
        return _check_here(orders["check"], send)
    lanes.set_threads(orders["threads"])
    if orders["config"]["job_process"] == "fresh":
        return guarded(lambda: _become(orders))
    import torch

    torch.set_num_threads(orders["threads"])
    return guarded(lambda: perform(make_run(orders), job, orders, send))


def _become(orders: Mapping[str, Any]) -> int:
    """Make the run's folder, then turn this process into an interpreter that runs what is in it."""
    folder, solo = make_run(orders).folder, str(int(orders["solo"]))
    os.execv(sys.executable, [sys.executable, "-m", "dl_lab.commands._start", str(folder), solo])


def _check_here(numbered: Sequence[tuple[int, Mapping[str, Any], bool]], send: Any) -> int:
    for number, config, rehearsed in numbered:
        try:
            configs.check(config)
            if rehearsed:
                configs.rehearse(config)
        except UserError as error:
            send({"event": "wrong", "number": number, "message": str(error)})
            return 2
    send({"event": "checked"})
    return 0


def make_folder(orders: Mapping[str, Any], **facts: Any) -> Path:
    """The job's run folder: the old one where it has a checkpoint, else a new one with everything it needs.

    facts: more for env.json.
    """
    from dl_lab.commands.train import run_files

    folder, config = Path(orders["folder"]), orders["config"]
    if not any(folder.glob("checkpoints/*.pt")):
        if folder.exists():
            plan.set_aside(folder)
        facts = {**orders["facts"], **facts, "choices": orders["choices"]}
        files = {**run_files(config, [*orders["fixed"], *orders["overrides"]]), **orders["files"]}
        Run.create(folder, files, config, NoBoard(), facts)
    return folder


def make_run(orders: Mapping[str, Any]) -> Run:
    """The job's run: reopened where it has a checkpoint, else a new folder. Its output goes to job.log."""
    folder, config = make_folder(orders, devices=describe_devices()), orders["config"]
    board = configs.build(config, "logger")
    resuming = any(folder.glob("checkpoints/*.pt"))
    run = Run.reopen(folder, config, board) if resuming else Run(folder, config, board)
    log = os.open(folder / "job.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    return run


def perform(run: Run, job: int, orders: Mapping[str, Any], send: Any) -> int:
    from dl_lab.commands import train

    signal.signal(signal.SIGTERM, _interrupt)
    memory_sent = False

    def progress(event: dict[str, Any]) -> None:
        nonlocal memory_sent
        send({"event": "progress", "job": job, **event})
        if not memory_sent and event.get("epoch", 0) > 1:
            memory_sent = _send_memory(send)

    run.on_progress = progress
    run.on_epoch = search.reporter(run.folder, lambda node: configs.build_checked(node, "pruner")) or run.on_epoch
    run.add_facts(devices=describe_devices())
    train.perform(run, orders["choices"], quiet=True, beside_others=not orders["solo"])
    return 0


def _interrupt(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _send_memory(send: Any) -> bool:
    """The peak of the device's memory, once an epoch was seen."""
    import torch

    if not torch.cuda.is_initialized():
        return True
    free, total = torch.cuda.mem_get_info()
    context = total - free - torch.cuda.memory_reserved()
    send(
        {
            "event": "memory",
            "peak_bytes": torch.cuda.max_memory_reserved() + max(context, 0),
            "total_bytes": total,
        }
    )
    return True


def guarded(work: Any) -> int:
    """The exit status of a job, its errors printed into its log."""
    import traceback

    try:
        return work()
    except (Interrupted, Pruned) as stop:
        return stop.exit_code
    except UserError as error:
        print(error, file=sys.stderr)
        if "OutOfMemory" in str(error):
            return lanes.Schedule.OUT_OF_MEMORY
        return 1
    except BaseException:  # the last thing a child can do is to say why
        traceback.print_exc()
        return 1
