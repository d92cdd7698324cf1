"""Decide how many jobs run at the same time, and on which devices."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import subprocess
from dataclasses import dataclass

from dl_lab.runs.machine import cores
from dl_lab.types import UserError

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
MOST_LANES_PER_GPU = 8


@dataclass(frozen=True)
class Layout:
    """How many lanes there are, and on which devices. Each device has one server.

    Attributes:
        devices: What CUDA_VISIBLE_DEVICES is for each server; "" for the CPU.
        slots: How many jobs each server runs at a time.
        threads: CPU threads of each job.
        may_grow: A GPU takes more jobs once the memory of its first one is known.
    """

    devices: tuple[str, ...]
    slots: int
    threads: int
    may_grow: bool = False


def plan_layout(lanes: str | int, device: str, threads: int | None) -> Layout:
    """Plan the lanes of this machine.

    Args:
        lanes: How many jobs run at a time. "auto" is one for each GPU, and more once its memory is measured; without
            a GPU it is one for each core.
        device: The trainer's device: "cpu" leaves the GPUs alone.
        threads: CPU threads of each job; None divides the cores among the lanes.

    Raises:
        UserError: `lanes` is neither "auto" nor a number of at least 1.
    """
    gpus = [] if device == "cpu" else visible_gpus()
    n_cores = cores()
    if lanes != "auto" and (not str(lanes).isdigit() or int(lanes) < 1):
        raise UserError(f"lanes={lanes} is neither auto nor a number of at least 1.")
    n_lanes = (len(gpus) or n_cores) if lanes == "auto" else int(lanes)
    threads = threads or max(1, n_cores // n_lanes)
    if not gpus:
        return Layout(("",), n_lanes, threads)
    slots = max(1, math.ceil(n_lanes / len(gpus)))
    return Layout(tuple(gpus[:n_lanes]), slots, threads, may_grow=lanes == "auto")


def visible_gpus() -> list[str]:
    """Return the names of the GPUs: those of CUDA_VISIBLE_DEVICES, else those that nvidia-smi lists.

    It does not import torch, which takes seconds.
    """
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
        return [str(i) for i, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU")]
    return []


def set_threads(n: int) -> None:
    """Set the number of CPU threads that torch and its libraries read when they load.

    Afterwards only `torch.set_num_threads` changes it.

    Args:
        n: The number of threads.
    """
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(n)))
