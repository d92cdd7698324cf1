"""Import torch sooner in a new process, and keep the memory that it frees for its next allocations.

`import torch` takes most of the time to a run's first step. Its modules are executed without the garbage collector
(`without_collections`), which would look through their hundreds of thousands of objects again and again and find
nothing to free.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import logging
import sys
from collections.abc import Iterator

M_TRIM_THRESHOLD = -1  # the options of mallopt(3)
M_MMAP_THRESHOLD = -3
MOST_MAPPED = 1 << 30  # bytes
MOST_KEPT = (1 << 31) - 1


def torch() -> None:
    """Import torch, and let this process keep the memory that its tensors free."""
    if "torch" in sys.modules:
        return
    with without_collections():
        importlib.import_module("torch")
    keep_freed_memory()
    logging.getLogger("torch.utils.cpp_extension").addFilter(_says_more_than_that_no_gpu_is_here)


def _says_more_than_that_no_gpu_is_here(record: logging.LogRecord) -> bool:
    """Return False for torch's warning that a machine with `nvcc` has no GPU. A run's first lines name the device."""
    return not str(record.msg).startswith("No CUDA runtime is found")


@contextlib.contextmanager
def without_collections() -> Iterator[None]:
    """Stop the garbage collector for a block of imports. It never looks at the objects of the block again."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def keep_freed_memory() -> None:
    """Let glibc's malloc keep up to 2 GiB of freed memory instead of giving it back to the kernel at once.

    A training step frees all of its activations, and the next step allocates them again. The kernel zeroes and maps
    every page that was given back. For a net whose activations are over 32 MB each, that is nearly half of a step on
    the CPU. The price is about 5 % more memory at the peak.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        malloc_option = ctypes.CDLL(None).mallopt
        malloc_option(M_MMAP_THRESHOLD, MOST_MAPPED)
        malloc_option(M_TRIM_THRESHOLD, MOST_KEPT)
