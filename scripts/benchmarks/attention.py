"""Speed and memory of attention at L = 8,192, D = 16 per head, in one run: is the order-3 linear attention worth it?

    python scripts/benchmarks/attention.py [--length 8192] [--dim 16] [--rounds 7] [--json FILE]

Contestants take turns, one call each, `rounds` times, on one thread and in CPU seconds (neighbours on the machine
disturb those least); the first round warms up. Ratios are medians of the ratios within a round. Before anything is
timed, results are compared: fused with softmax, linear attention with its truncated series.

Memory: the most bytes allocated at once (torch's profiler) by causal linear attention for growing lengths with the
fitted slope; and, as a check by other means, the resident-set peak (/proc) of a fresh process for each contestant.

From 32 MB on glibc gives memory back to the system after every call, and softmax pays for new pages each time. How
much of the ratio that is shows a run that keeps the memory:
GLIBC_TUNABLES=glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=10000000000 python scripts/benchmarks/attention.py

The goals: linear at least 20 times as fast as softmax written out, faster than scaled_dot_product_attention; slope 1.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor

from dl_lab.models.attention.exact import fused_attention, softmax_attention
from dl_lab.models.attention.linear import mclaurin_attention, series_attention
from dl_lab.procedures.attention_cost import fit_slope, measure_peak_bytes
from dl_lab.runs.environment import describe_environment

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def causal_linear(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal linear attention, as the benchmark times it."""
    return mclaurin_attention(q, k, v, causal=True)


CONTESTANTS: dict[str, Attend] = {
    "softmax": softmax_attention,
    "fused": fused_attention,
    "linear": mclaurin_attention,
    "causal linear": causal_linear,
}


def draw(length: int, dim: int) -> list[Tensor]:
    """Draw queries, keys and values (1, 1, length, dim)."""
    q, k, v = torch.randn(3, 1, 1, length, dim, generator=torch.Generator().manual_seed(0))
    return [q * dim**-0.25, k * dim**-0.25, v]


def agree(dim: int) -> None:
    """The contestants compute what they should."""
    q, k, v = draw(700, dim)
    torch.testing.assert_close(fused_attention(q, k, v), softmax_attention(q, k, v), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mclaurin_attention(q, k, v), series_attention(q, k, v), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(causal_linear(q, k, v), series_attention(q, k, v, causal=True), rtol=1e-3, atol=1e-4)


def times(length: int, dim: int, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each call, contestants in turn."""
    inputs = draw(length, dim)
    seconds: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for _ in range(rounds + 1):
        for name, attend in CONTESTANTS.items():
            start = time.process_time()
            attend(*inputs)
            seconds[name].append(time.process_time() - start)
    return {name: values[1:] for name, values in seconds.items()}


def resident_peak(name: str, length: int, dim: int) -> int:
    """Bytes by which one call raises the resident-set peak of a fresh process (Linux)."""
    program = (
        "import torch\n"
        "from scripts.benchmarks.attention import CONTESTANTS, draw\n"
        "from dl_lab.runs.machine import peak_memory\n"
        f"torch.set_num_threads(1)\nattend = CONTESTANTS[{name!r}]\n"
        f"with torch.inference_mode():\n    attend(*draw(64, {dim}))\n"
        f"    x = draw({length}, {dim})\n    before = peak_memory()\n"
        "    attend(*x)\n    print(peak_memory() - before)\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    return int(done.stdout)


def causal_memory(dim: int, lengths: list[int]) -> list[dict[str, int]]:
    """Measure the peak memory of causal linear attention at each length."""
    rows = []
    for length in lengths:
        inputs = draw(length, dim)
        peak = measure_peak_bytes(partial(causal_linear, *inputs), torch.device("cpu"))
        rows.append({"length": length, "bytes": peak})
    return rows


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=8192)
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with torch.inference_mode():
        agree(options.dim)
        seconds = times(options.length, options.dim, options.rounds)
        memory = causal_memory(options.dim, [options.length // 8 * 2**i for i in range(5)])
    rows = {}
    print(f"{'':14} {'ms':>9} {'x slower than linear':>21} {'resident peak MB':>17}")
    for name in CONTESTANTS:
        ratio = statistics.median(a / b for a, b in zip(seconds[name], seconds["linear"], strict=True))
        resident = resident_peak(name, options.length, options.dim)
        rows[name] = {"seconds": statistics.median(seconds[name]), "ratio": ratio, "resident_bytes": resident}
        print(f"{name:14} {rows[name]['seconds'] * 1e3:9.2f} {ratio:21.2f} {resident / 1e6:17.1f}")
    growth = fit_slope(memory, "bytes")
    print("causal linear: " + ", ".join(f"{row['length']}: {row['bytes'] / 1e6:.1f} MB" for row in memory))
    print(f"slope of causal memory {growth:.3f}")
    goals = {
        "at least 20 times as fast as softmax": rows["softmax"]["ratio"] >= 20,
        "faster than scaled_dot_product_attention": rows["fused"]["ratio"] > 1,
        "causal memory grows linearly": abs(growth - 1) < 0.05,
    }
    for goal, met in goals.items():
        print(f"{'met    ' if met else 'NOT met'}  {goal}")
    if options.json:
        results = {"length": options.length, "dim": options.dim, "rows": rows, "causal_memory": memory, "slope": growth}
        machine = {"cpu": describe_environment([])["cpu"], "torch": torch.__version__}
        machine["allocator"] = os.environ.get("GLIBC_TUNABLES", "")
        options.json.write_text(json.dumps({**results, **machine, "goals": goals}, indent=1) + "\n")


if __name__ == "__main__":
    main()
