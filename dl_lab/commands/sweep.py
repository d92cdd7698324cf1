"""dl-lab -m [overrides], dl-lab sweep [overrides]: plan, check, write, run the jobs of a sweep."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dl_lab import config as configs
from dl_lab.run import Run, describe_devices, describe_environment, read_json, state_of
from dl_lab.sweeps import families, grid, identity, lanes, plan, view
from dl_lab.types import ConfigError, Interrupted, UserError

FLAGS = ("zip", "list", "exclude", "where")
NEEDED_BY_JOBS = (  # imported once by each server, not by every job
    "dl_lab.commands.train",
    "dl_lab.experiments.fit",
    "dl_lab.training.callbacks",
    "matplotlib.backends.backend_agg",
    "safetensors.torch",
    "tensorboard.plugins.hparams.summary_v2",
    "torch.utils.tensorboard",
)


def main(argv: Sequence[str]) -> int:
    from rich.console import Console

    options = parse(argv)
    schedule = lanes.Schedule(lanes.Layout(("",), 1, 1), _prepare, _work)
    if not options.dry_run and not lanes.visible_gpus():
        schedule.open()  # imports torch while the jobs are composed
    try:
        composer = configs.Composer(options.config_dir, options.config_name)
        expanded = expand(composer, options)
        keys = expanded.keys()
        console = Console(highlight=False)
        first = composer.compose([*expanded.fixed, *expanded.jobs()[0]])
        layout = lanes.plan_layout(first.config["lanes"], _device(first.config), first.config["threads"])
        schedule.layout = layout
        if not options.dry_run:
            schedule.open()
        sweep = make_plan(composer, options, expanded)
        if not options.dry_run:
            sweep.lock()
        plan.decide(sweep, options.retry_failed)
        todo = [job for job in sweep.jobs if job.action in ("run", "resume", "retry")]
        plan.estimate(sweep.jobs, Path(first.config["paths"]["output_dir"]))
        if options.dry_run:
            view.show_plan(console, sweep, keys)
            console.print(f"Nothing was started. The sweep would be in {sweep.folder}.")
            return 0
        if len(sweep.jobs) <= 40:
            view.show_plan(console, sweep, keys)
        _check(schedule, todo)
        sweep.write()
        console.print(f"Sweep folder {sweep.folder}  ({layout.slots * len(layout.devices)} lanes)")
        schedule.stop_on_failure = first.config["on_failure"] == "stop"
        return run(console, schedule, sweep, todo, keys, ["dl-lab", "-m", *argv])
    finally:
        schedule.close()


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
    """The grid of the command line, of `sweep=` and of `hydra.sweeper.params`."""
    overrides = [word for word in options.overrides if not word.startswith("hydra.mode=")]
    flags = {name: getattr(options, name) for name in FLAGS}
    found = grid.expand(composer.loader, overrides, flags, None)
    base = composer.load(found.fixed)
    params = base.hydra.sweeper.get("params") or {}
    named = {word.partition("=")[0] for word in overrides}
    overrides += [f"{key}={value}" for key, value in params.items() if key not in named]
    spec = configs.plain(base.sweep) if base.get("sweep") else None
    kept = [word for word in overrides if not word.startswith(("sweep=", "hydra.sweep.dir="))]
    return grid.expand(composer.loader, kept, flags, spec)


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
    explicit = [word.partition("=")[2] for word in options.overrides if word.startswith("hydra.sweep.dir=")]
    root = Path(composed[0].config["paths"]["output_dir"]) / "sweeps"
    old = Path(explicit[0]) if explicit else plan.find_sweep(root, key)
    is_there = old is not None and (old / "sweep.yaml").exists() and not options.new
    folder = old if explicit or is_there else root / f"(new)_{key}" if options.dry_run else plan.new_folder(root, key)
    assert folder is not None
    sweep = plan.Sweep(folder, key, " ".join(["dl-lab", "-m", *options.overrides]), code, jobs, expanded.fixed)
    return plan.merge(folder, sweep, options.extend, options.mixed_code) if is_there else sweep


def _check(schedule: lanes.Schedule, jobs: Sequence[plan.Job]) -> None:
    """Check every job, and rehearse those that differ in more than seeds and rates (numbers with a fraction).

    Raises ConfigError for the first wrong one.
    """
    distinct = {configs.key_of(_seedless(job.config)): job for job in reversed(jobs)}.values()
    kinds = {configs.key_of(_rateless(_seedless(job.config))): job.number for job in distinct}
    answer = schedule.ask({"check": [[j.number, j.config, j.number in kinds.values()] for j in distinct]})
    if answer["event"] == "wrong":
        raise ConfigError(f"Job {answer['number']}: {answer['message']}")


def _seedless(config: Mapping[str, Any]) -> dict[str, Any]:
    procedure = config["procedure"]
    trainer = procedure.get("trainer")
    return {**procedure, "trainer": {**trainer, "seed": None}} if isinstance(trainer, Mapping) else procedure


def _rateless(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _rateless(item) for key, item in value.items()}
    return None if isinstance(value, float) else value


def _device(config: Mapping[str, Any]) -> str:
    return (config["procedure"].get("trainer") or {}).get("device", "auto")


# -- running ------------------------------------------------------------------------------------------------------


def run(
    console: Any,
    schedule: lanes.Schedule,
    sweep: plan.Sweep,
    todo: Sequence[plan.Job],
    keys: Sequence[str],
    command: Sequence[str],
) -> int:
    """Run the jobs and report; the exit status of the sweep."""
    facts = {**describe_environment(command), "code": sweep.code}
    shared = [job.config for job in todo if job.config["job_process"] != "fresh"]
    datasets = {configs.key_of(config["procedure"].get("dataset")): config for config in shared}
    if datasets:
        wanted = [{"procedure": {"dataset": config["procedure"].get("dataset")}} for config in datasets.values()]
        for server in schedule.servers:
            server.prepare({"datasets": wanted})
    for job in todo:
        if job.action == "retry":
            plan.set_aside(sweep.folder / job.name)
    orders = {job.number: _orders(sweep, job, facts, schedule.layout.threads) for job in todo}
    metric = (sweep.jobs[0].config["procedure"].get("trainer") or {}).get("monitor", "")
    with view.View(console, sweep.jobs, keys, metric) as shown:
        schedule.observe = lambda event: _observe(shown, sweep, event)
        statuses = schedule.run([job.number for job in todo], orders)
    results = sweep.write_results()
    failed = [job for job in sweep.jobs if job.action != "leave" and state_of(sweep.folder / job.name) == "failed"]
    failed += [job for job in todo if statuses.get(job.number, 0) not in (0, 130) and job not in failed]
    view.show_failures(console, sweep, failed, keys)
    n_done = sum(state_of(sweep.folder / job.name) == "done" for job in sweep.jobs)
    console.print(f"{n_done} of {len(sweep.jobs)} jobs done.  Table {results}")
    console.print(f"TensorBoard  tensorboard --logdir {sweep.folder}")
    if n_done > 1:
        console.print(f"Over seeds   dl-lab compare {sweep.key}")
    if any(statuses.get(job.number, 130) == 130 for job in todo) and not failed:
        raise Interrupted("Interrupted: the same command goes on with what is left.")
    return 1 if failed else 0


def _orders(sweep: plan.Sweep, job: plan.Job, facts: Mapping[str, Any], threads: int) -> dict[str, Any]:
    return {
        "threads": threads,
        "folder": str(sweep.folder / job.name),
        "config": job.config,
        "choices": job.choices,
        "overrides": job.overrides,
        "fixed": sweep.fixed,
        "facts": dict(facts),
    }


def _observe(shown: view.View, sweep: plan.Sweep, event: Mapping[str, Any]) -> None:
    error, metrics = "", {}
    if event["event"] == "exit":
        folder = sweep.folder / shown.jobs[event["job"]].name
        status = read_json(folder / "status.json") or {}
        if event["status"] != 0:
            error = str(status.get("error", {}).get("message", "")).partition("\n")[0]
        else:
            metrics = (read_json(folder / "summary.json") or {}).get("metrics", {})
        sweep.note_result()
    shown.observe(event, error, metrics)


# -- inside the processes of the sweep ----------------------------------------------------------------------------


def _prepare(orders: Mapping[str, Any]) -> None:
    """In a server: import everything a job needs, load the data; run no torch operation on several threads."""
    import gc

    import torch

    torch.set_num_threads(1)
    if not orders:
        for name in NEEDED_BY_JOBS:
            importlib.import_module(name)
        from dl_lab.training.checkpoints import seed_everything

        seed_everything(0)  # numpy loads its generators at the first use, Hydra its policies
        configs.build({"logger": {"_target_": "dl_lab.run.NoBoard"}}, "logger")
    for config in orders.get("datasets", []):
        try:
            configs.load_dataset(config)
        except (UserError, ValueError, OSError):
            continue  # the job that needs it says what is wrong
    gc.collect()
    gc.freeze()


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


def make_run(orders: Mapping[str, Any]) -> Run:
    """The job's run: reopened where it has a checkpoint, else a new folder. Its output goes to job.log."""
    from dl_lab.commands.train import run_files

    folder, config = Path(orders["folder"]), orders["config"]
    board = configs.build(config, "logger")
    if any(folder.glob("checkpoints/*.pt")):
        run = Run.reopen(folder, config, board)
    else:
        if folder.exists():
            plan.set_aside(folder)
        facts = {**orders["facts"], "choices": orders["choices"]}
        run = Run.create(folder, run_files(config, [*orders["fixed"], *orders["overrides"]]), config, board, facts)
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
    except Interrupted:
        return 130
    except UserError as error:
        print(error, file=sys.stderr)
        if "OutOfMemory" in str(error):
            return lanes.Schedule.OUT_OF_MEMORY
        return 1
    except BaseException:  # the last thing a child can do is to say why
        traceback.print_exc()
        return 1
