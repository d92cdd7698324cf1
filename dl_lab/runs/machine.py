"""The CPU cores and the processes of a run. This module imports no torch."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from pathlib import Path


def cpu_name() -> str:
    """Return the name of the processor."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def peak_memory() -> int:
    """Return the most memory that this program has had so far, in bytes.

    On Linux it is VmHWM of /proc/self/status. There, getrusage also counts the memory of the process that started this
    program, such as a notebook with its data.
    """
    import resource

    with contextlib.suppress(OSError, IndexError), open("/proc/self/status", "rb", buffering=0) as status:
        return 1024 * int(status.read().partition(b"VmHWM:")[2].split(maxsplit=1)[0])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def is_several() -> bool:
    """Whether torchrun started this process together with others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ
