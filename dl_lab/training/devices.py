"""Which device a training uses."""

from __future__ import annotations

import os

import torch

from dl_lab.runs.machine import is_several
from dl_lab.types import UserError


def choose_device(name: str) -> torch.device:
    """Return the device that a setting names.

    Args:
        name: "auto" (cuda, else mps, else cpu), or a device of torch like "cuda:1". Under torchrun "auto" and "cuda"
            give each process a GPU of its own.

    Raises:
        UserError: This machine has no such device.
    """
    if name in ("auto", "cuda") and is_several() and torch.cuda.is_available():
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    if name == "auto":
        name = _choose_best()
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
        if device.index is not None and device.type == "cuda":
            torch.cuda.set_device(device)
    except (RuntimeError, AssertionError) as error:
        devices = f"{torch.cuda.device_count()} CUDA devices" if torch.cuda.is_available() else "no CUDA device"
        raise UserError(f"trainer.device={name} cannot be used: this machine has {devices}.") from error
    return device


def check_device_name(name: str) -> None:
    """Check that torch knows a kind of device by this name, whether this machine has the device or not.

    Raises:
        ValueError: Torch knows no such device.
    """
    if name == "auto":
        return
    try:
        torch.device(name)
    except RuntimeError:
        raise ValueError(f"device {name!r} is no device: use auto, cpu, cuda, cuda:1 or mps") from None


def _choose_best() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
