"""Torch sooner in a new process, and memory that torch frees kept for what it allocates next.

`import torch` is most of the time to a run's first step. Its shared libraries load in a thread (`begin`) while the
config is composed; its modules are then executed without the garbage collector, which would look through their
hundreds of thousands of objects again and again and find nothing (`without_collections`).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
MOST_MAPPED, MOST_KEPT = 1 << 30, (1 << 31) - 1  # bytes

_loading: list[threading.Thread] = []  # at most one


def begin() -> None:
    """Load torch's libraries in a thread; `torch` waits for it.

    While they load, another library has to wait: it gains nothing beside imports of modules in C.
    """
    if "torch" not in sys.modules and not _loading:
        _loading.append(threading.Thread(target=_load_libraries, daemon=True))
        _loading[0].start()


def _load_libraries() -> None:
    found = importlib.util.find_spec("torch")
    library = Path(found.origin).parent / "lib" / "libtorch_python.so" if found and found.origin else None
    if library is not None and library.exists():
        with contextlib.suppress(AttributeError, OSError, TypeError):
            # Not ctypes.CDLL(library): that holds Python's lock. What goes wrong, import torch will find again and say.
            ctypes.CDLL(None).dlopen(os.fsencode(library), os.RTLD_LAZY | os.RTLD_LOCAL)


def torch() -> None:
    """Import torch, and let this process keep what its tensors free."""
    if "torch" in sys.modules:
        return
    for thread in _loading:
        thread.join()
    with without_collections():
        importlib.import_module("torch")
    keep_freed_memory()


@contextlib.contextmanager
def without_collections() -> Iterator[None]:
    """For imports only: what the block makes is never collected, nor looked through again."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def keep_freed_memory() -> None:
    """Let malloc (glibc's) keep up to 2 GiB that was freed, instead of giving it back to the kernel at once.

    A training step frees all of its activations and allocates them again; given back, every page of them is zeroed
    and mapped anew. For a net whose activations are over 32 MB each that was 40 to 50 % of a step on the CPU (three
    convolutions, batch 256 of CIFAR-10, 0.31 s to 0.19 s), for 5 % more memory at the peak.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        malloc_option = ctypes.CDLL(None).mallopt
        malloc_option(M_MMAP_THRESHOLD, MOST_MAPPED)
        malloc_option(M_TRIM_THRESHOLD, MOST_KEPT)
