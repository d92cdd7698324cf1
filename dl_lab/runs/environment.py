"""The environment of a run: its command, code, packages, devices and machine."""

from __future__ import annotations

import functools
import os
import platform
import shlex
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dl_lab.runs.files import now
from dl_lab.runs.machine import cpu_name
from dl_lab.version import __version__

DIFF_LIMIT = 1_000_000  # characters of diff.patch
SECRET_FILES = (  # diff.patch leaves these files out
    ":(exclude)*.env",
    ":(exclude)*.pem",
    ":(exclude)*.key",
    ":(exclude)*secret*",
    ":(exclude)*credential*",
)


def describe_environment(command: Sequence[str]) -> dict[str, Any]:
    """Describe what a result depends on beside its config: the command, the code, the packages and the machine."""
    return {
        "dl_lab": __version__,
        "command": shlex.join(command),
        "folder": str(Path.cwd()),
        "time": now(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "packages": _packages(),
        **_git_state(),
    }


def describe_devices() -> dict[str, object]:
    """Describe torch, CUDA and the GPUs. This imports torch."""
    import torch

    return {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "gpus": _gpus(),
        "tf32": _tf32(),
        "threads": torch.get_num_threads(),
    }


@functools.cache  # the driver takes milliseconds to answer
def _gpus() -> list[str]:
    import torch

    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]


def _tf32() -> str:
    """Name the float32 operations that a GPU may round to TF32 (10 bits of mantissa), by torch and the driver."""
    import torch

    if os.environ.get("NVIDIA_TF32_OVERRIDE") == "0":
        return "off (NVIDIA_TF32_OVERRIDE=0)"
    precisions = {
        "matrix products": torch.backends.cuda.matmul.fp32_precision,
        # torch adds `conv` at run time, where the type checker does not see it.
        "convolutions": torch.backends.cudnn.conv.fp32_precision,  # pyright: ignore[reportAttributeAccessIssue]
    }
    return ", ".join(name for name, precision in precisions.items() if precision == "tf32") or "off"


def _packages() -> dict[str, str]:
    """Map installed packages to their versions, by the names of their metadata folders: reading metadata is slow."""
    versions = []
    for entry in filter(None, sys.path):
        for folder in Path(entry).glob("*.dist-info"):
            name, _, version = folder.name.removesuffix(".dist-info").rpartition("-")
            versions.append((name, version))
    return dict(sorted(versions))


def _git_state() -> dict[str, Any]:
    """Return the SHA and the uncommitted changes of the repository in which the command was typed, if it is one."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=20, check=False)
        return done.stdout if done.returncode == 0 else ""

    try:
        sha = git("rev-parse", "HEAD").strip()
        if not sha:
            return {"git": None}
        diff = git("diff", "HEAD", "--", ".", *SECRET_FILES)
    except (OSError, subprocess.TimeoutExpired):
        return {"git": None}
    if len(diff) > DIFF_LIMIT:
        diff = diff[:DIFF_LIMIT] + f"\n# cut after {DIFF_LIMIT} of {len(diff)} characters\n"
    return {"git": {"sha": sha, "dirty": bool(diff)}, "diff": diff}
