"""Inside the processes of a sweep: what a server prepares, what its children do with a job."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dl_lab import config as configs
from dl_lab import preload, targets
from dl_lab.run import NoBoard, Run, describe_devices
from dl_lab.sweeps import lanes, plan, search
from dl_lab.types import Interrupted, Pruned, UserError

NEEDED_BY_JOBS = (  # imported once by each server, not by every job
    "dl_lab.commands.train",
    "dl_lab.experiments.fit",
    "dl_lab.training.callbacks",
    "safetensors.torch",
    "tensorboard.compat.proto.event_pb2",
    "tensorboard.plugins.hparams.plugin_data_pb2",
    "tensorboard.plugins.text.metadata",
)

PROGRESS_SECONDS = 0.2  # between two reports of a job: an epoch may take a few milliseconds


def prepare(orders: Mapping[str, Any]) -> None:
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


def work(job: int, orders: Mapping[str, Any], send: Any) -> int:
    """In a child: check jobs, or run one, here or (job_process=fresh) in a new interpreter."""
    if "check" in orders:
        return _check_here(job, orders["check"], send)
    signal.signal(signal.SIGTERM, _interrupt)
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


def _check_here(job: int, numbered: Sequence[tuple[int, Mapping[str, Any]]], send: Any) -> int:
    for number, config in numbered:
        try:
            configs.check(config)
            configs.rehearse(config)
        except UserError as error:
            send({"event": "wrong", "job": job, "number": number, "message": str(error)})
            return 2
    send({"event": "checked", "job": job})
    return 0


def make_folder(orders: Mapping[str, Any], queued: bool = True, **facts: Any) -> Path:
    """The job's run folder: the old one where it has a checkpoint, else a new one with everything it needs.

    queued: see `Run.create`. facts: more for env.json.
    """
    from dl_lab.commands.train import run_files

    folder, config = Path(orders["folder"]), orders["config"]
    if not any(folder.glob("checkpoints/*.pt")):
        if folder.exists():
            plan.set_aside(folder)
        facts = {**orders["facts"], **facts, "choices": orders["choices"]}
        files = {**run_files(config, [*orders["fixed"], *orders["overrides"]]), **orders["files"]}
        Run.create(folder, files, config, NoBoard(), facts, queued)
    return folder


def make_run(orders: Mapping[str, Any]) -> Run:
    """The job's run: reopened where it has a checkpoint, else a new folder. Its output goes to job.log."""
    folder, config = make_folder(orders, queued=False, devices=describe_devices()), orders["config"]
    board = configs.build(config, "logger")
    resuming = any(folder.glob("checkpoints/*.pt"))
    run = Run.reopen(folder, config, board) if resuming else Run(folder, config, board)
    if resuming:  # perhaps elsewhere than before
        run.add_facts(devices=describe_devices())
    log = os.open(folder / "job.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    return run


def perform(run: Run, job: int, orders: Mapping[str, Any], send: Any) -> int:
    from dl_lab.commands import train

    signal.signal(signal.SIGTERM, _interrupt)
    memory_sent, told = False, time.monotonic()

    def progress(event: dict[str, Any]) -> None:
        nonlocal memory_sent, told
        if time.monotonic() - told >= PROGRESS_SECONDS:
            told = time.monotonic()
            send({"event": "progress", "job": job, **event})
        if not memory_sent and event.get("epoch", 0) > 1:
            memory_sent = _send_memory(send)

    run.on_progress = progress
    run.on_epoch = search.reporter(run.folder, lambda node: configs.build_checked(node, "pruner")) or run.on_epoch
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
    except KeyboardInterrupt:  # before its run records
        return Interrupted.exit_code
    except UserError as error:
        print(error, file=sys.stderr)
        if "OutOfMemory" in str(error):
            return lanes.Schedule.OUT_OF_MEMORY
        return 1
    except BaseException:  # the last thing a child can do is to say why
        traceback.print_exc()
        return 1
