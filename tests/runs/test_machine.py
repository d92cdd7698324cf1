"""What a run says of its machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dl_lab.runs.machine import peak_memory

MOST = 100_000_000  # bytes; a Python process without torch has some 20 million


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux: /proc")
def test_peak_memory_is_this_programs_and_not_that_of_the_one_that_started_it():
    large = bytearray(2 * MOST)
    large[::4096] = b"1" * len(large[::4096])  # every page is used
    assert peak_memory() > 2 * MOST
    program = "from dl_lab.runs.machine import peak_memory; print(peak_memory())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert 1_000_000 < int(done.stdout) < MOST


def test_peak_memory_grows():
    before = peak_memory()
    more = bytearray(before + 50_000_000)
    more[::4096] = b"1" * len(more[::4096])
    assert peak_memory() > before + 40_000_000
