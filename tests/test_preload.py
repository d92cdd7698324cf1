"""A new process: torch imported sooner, its memory kept."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")


def python(code: str) -> list[int]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return [int(word) for word in done.stdout.split()]


def test_torch_is_there_and_collections_go_on():
    code = """
import gc, sys
from dl_lab import preload
preload.torch()
print("torch" in sys.modules, gc.isenabled(), gc.get_freeze_count() > 100_000)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == ["True", "True", "True"]


def test_collections_go_on_after_an_error():
    code = """
import gc
from dl_lab import preload
try:
    with preload.without_collections():
        print(int(gc.isenabled()))
        raise KeyError
except KeyError:
    print(int(gc.isenabled()))
"""
    assert python(code) == [0, 1]


@glibc
def test_memory_that_was_freed_is_taken_again():
    code = """
import resource, torch
from dl_lab import preload

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(12):
        torch.ones(16 << 20)  # 64 MiB: 16,384 pages
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
preload.keep_freed_memory()
faults()  # until there are large enough pieces
print(faults())
"""
    before, after = python(code)
    assert after < before / 10 and before > 1000
