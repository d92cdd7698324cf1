"""Measure what an attention mechanism costs by the length of the sequence: time, peak memory and operations."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from dl_lab.models.attention.mechanisms import MechanismFactory
from dl_lab.procedures.protocol import Procedure
from dl_lab.procedures.steps import steps
from dl_lab.runs.recorder import Run
from dl_lab.show import plots
from dl_lab.training.devices import choose_device
from dl_lab.types import Metrics

Attend = Callable[[], Tensor]
Clock = Literal["wall", "cpu"]


class Cost(TypedDict):
    """A row: what one mechanism costs at one size."""

    dim: int
    length: int
    mechanism: str
    seconds: float
    peak_bytes: int
    flops: int
    flops_formula: int


class Slopes(TypedDict):
    """A row: d log(cost) / d log(length) of one mechanism, for each cost."""

    dim: int
    mechanism: str
    seconds_slope: float
    peak_bytes_slope: float
    flops_slope: float


class Crossover(TypedDict):
    """A row: the length from which one mechanism is faster than a baseline; None if there is none in the range."""

    dim: int
    mechanism: str
    baseline: str
    length: float | None


@dataclass
class AttentionCost(Procedure):
    """Measure one head on one sequence, without gradients, for every dim, length and mechanism.

    Time is the median of torch.utils.benchmark. Memory is the most that is allocated at once beside q, k and v (on the
    CPU every allocation, from torch's profiler; on CUDA the peak of its allocator). A size is left out if the mechanism
    refuses it (low-rank attention refuses to be causal) or the GPU has not enough memory.

    Args:
        lengths: Lengths of the sequence, in positions.
        dims: Widths of the head.
        mechanisms: Builders of the mechanisms, by name.
        baselines: Names of the mechanisms that the others are compared with.
        causal: Whether a query sees only the keys up to its own position.
        seconds: Shortest time of one measurement.
        fit_from: Shortest length that counts for a slope.
        seed: Seed of q, k and v.
        device: The device, or "auto".
        clock: "wall", or "cpu" for the CPU time of all threads, which other programs disturb less.
    """

    imports = plots.IMPORTS

    lengths: Sequence[int]
    dims: Sequence[int]
    mechanisms: Mapping[str, MechanismFactory]
    baselines: Sequence[str]
    causal: bool = False
    seconds: float = 0.2
    fit_from: int = 1024
    seed: int = 0
    device: str = "auto"
    clock: Clock = "wall"

    def __call__(self, run: Run) -> Metrics:
        """Measure every mechanism at every size; return the slopes and the crossovers."""
        device = choose_device(self.device)
        rows: list[Cost] = []
        for dim, length in steps(run, list(product(self.dims, self.lengths)), "attention at each dim and length"):
            measured = [self._measure(name, dim, length, device) for name in self.mechanisms]
            own = [row for row in measured if row is not None]
            rows += own
            self._log(run, own, length)
        slopes = self.fit_slopes(rows)
        crossovers = self.find_crossovers(rows)
        self._draw(run, rows)
        run.table("slopes", slopes)
        run.table("crossovers", crossovers)
        return _collect_metrics(rows, slopes, crossovers)

    def _measure(self, name: str, dim: int, length: int, device: torch.device) -> Cost | None:
        """Measure one mechanism at one size; return None if it refuses the size or the GPU has not enough memory."""
        generator = torch.Generator().manual_seed(self.seed)
        q, k, v = torch.randn(3, 1, 1, length, dim, generator=generator).to(device)
        q = q * dim**-0.25
        k = k * dim**-0.25
        try:
            # A module with a method `flops`, of which nn.Module knows nothing.
            mechanism: Any = self.mechanisms[name](head_dim=dim, length=length, causal=self.causal).to(device)
        except ValueError:
            return None
        try:
            with torch.inference_mode():
                seconds = measure_seconds(lambda: mechanism(q, k, v), self.seconds, self.clock)
                peak = measure_peak_bytes(lambda: mechanism(q, k, v), device)
                flops = count_flops(lambda: mechanism(q, k, v))
        except torch.cuda.OutOfMemoryError:
            return None
        return {
            "dim": dim,
            "length": length,
            "mechanism": name,
            "seconds": seconds,
            "peak_bytes": peak,
            "flops": flops,
            "flops_formula": mechanism.flops(length),
        }

    def _log(self, run: Run, rows: Sequence[Cost], length: int) -> None:
        memory = {f"peak_bytes/dim_{row['dim']}/{row['mechanism']}": float(row["peak_bytes"]) for row in rows}
        times = {f"seconds/dim_{row['dim']}/{row['mechanism']}": row["seconds"] for row in rows}
        run.log(memory, step=length, epoch=0, timings=times)

    def fit_slopes(self, rows: Sequence[Cost]) -> list[Slopes]:
        """Fit the slopes of each mechanism and dim, over the lengths from `fit_from`."""
        found: list[Slopes] = []
        for dim, name in dict.fromkeys((row["dim"], row["mechanism"]) for row in rows):
            own = [r for r in rows if (r["dim"], r["mechanism"]) == (dim, name) and r["length"] >= self.fit_from]
            if len(own) > 1:
                found.append(
                    {
                        "dim": dim,
                        "mechanism": name,
                        "seconds_slope": fit_slope(own, "seconds"),
                        "peak_bytes_slope": fit_slope(own, "peak_bytes"),
                        "flops_slope": fit_slope(own, "flops"),
                    }
                )
        return found

    def find_crossovers(self, rows: Sequence[Cost]) -> list[Crossover]:
        """Find the length from which each mechanism is faster than each baseline."""
        seconds = {(row["dim"], row["mechanism"], row["length"]): row["seconds"] for row in rows}
        found: list[Crossover] = []
        for dim, name in dict.fromkeys((row["dim"], row["mechanism"]) for row in rows):
            for baseline in self.baselines:
                common = [
                    (length, seconds[dim, name, length], seconds[dim, baseline, length])
                    for length in sorted(self.lengths)
                    if (dim, name, length) in seconds and (dim, baseline, length) in seconds
                ]
                if name != baseline and common:
                    found.append(
                        {"dim": dim, "mechanism": name, "baseline": baseline, "length": find_crossover(common)}
                    )
        return found

    def _draw(self, run: Run, rows: Sequence[Cost]) -> None:
        where = "causal" if self.causal else "every key"
        for dim in self.dims:
            own = [row for row in rows if row["dim"] == dim]
            time = plots.log_lines(
                own, "length", "seconds", "mechanism", f"Time of one head, dim {dim}, {where}", ("length", "seconds")
            )
            run.figure(f"attention_time_dim_{dim}", time, own)
            memory = plots.log_lines(
                own, "length", "peak_bytes", "mechanism", f"Peak memory, dim {dim}, {where}", ("length", "bytes")
            )
            run.figure(f"attention_memory_dim_{dim}", memory, own)


def measure_seconds(attend: Attend, seconds: float, clock: Clock = "wall") -> float:
    """Measure the median time of a call over at least `seconds` of calls, with torch's present number of threads."""
    from torch.utils.benchmark import Timer
    from torch.utils.benchmark.utils.timer import timer as wall  # waits for the GPU, if there is one

    timer = time.process_time if clock == "cpu" else wall
    benchmark = Timer("attend()", timer=timer, globals={"attend": attend}, num_threads=torch.get_num_threads())
    return float(benchmark.blocked_autorange(min_run_time=seconds).median)


def measure_peak_bytes(attend: Attend, device: torch.device) -> int:
    """Measure the most bytes that a call allocates at once, beside those allocated before it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        attend()
        return torch.cuda.max_memory_allocated(device) - before
    from torch.profiler import ProfilerActivity, profile

    # With torch 2.14 the profiler's library writes to the terminal at each start and stop, whatever its level but 6.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        attend()
    recorded = profiler.profiler
    assert recorded is not None and recorded.kineto_results is not None  # both exist when the profiler has stopped
    memory: list[Any] = [event for event in recorded.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(memory, key=lambda event: event.start_ns())]
    return int(np.cumsum(changes).max(initial=0))


def count_flops(attend: Attend) -> int:
    """Count the operations of all matrix products of a call with torch's counter."""
    with FlopCounterMode(display=False, custom_mapping=CPU_KERNELS) as counter:
        attend()
    return counter.get_total_flops()


def _count_fused_flops(q: torch.Size, k: torch.Size, v: torch.Size, *_: object, **__: object) -> int:
    return sdpa_flop_count(q, k, v)


# torch's counter knows CUDA's kernels of fused attention, but not the CPU's.
CPU_KERNELS: dict[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _count_fused_flops
}


def fit_slope(rows: Sequence[Mapping[str, Any]], cost: str) -> float:
    """Fit log(cost) on log(length) by least squares, and return the slope.

    Args:
        rows: Rows with a column `length` and the column of the cost.
        cost: Name of the column.
    """
    lengths = [math.log(row["length"]) for row in rows]
    costs = [math.log(row[cost]) for row in rows]
    return float(np.polyfit(lengths, costs, 1)[0])


def find_crossover(times: Sequence[tuple[int, float, float]]) -> float | None:
    """Find the length from which a mechanism is faster than its baseline, interpolated between logarithms.

    Args:
        times: (length, own time, baseline's time), by length.

    Returns:
        The length of the last change from slower to faster; the shortest length if the mechanism is always faster;
        None if it is not faster at the longest length.
    """
    gaps = [math.log(own / baseline) for _, own, baseline in times]
    if gaps[-1] >= 0:
        return None
    slower = [i for i, gap in enumerate(gaps) if gap >= 0]
    if not slower:
        return float(times[0][0])
    i = slower[-1]
    share = gaps[i] / (gaps[i] - gaps[i + 1])
    before = math.log(times[i][0])
    after = math.log(times[i + 1][0])
    return math.exp(before + share * (after - before))


def _collect_metrics(rows: Sequence[Cost], slopes: Sequence[Slopes], crossovers: Sequence[Crossover]) -> Metrics:
    metrics = {"flops_formula_error": float(max(abs(row["flops"] / row["flops_formula"] - 1) for row in rows))}
    for row in slopes:
        key = f"dim_{row['dim']}/{row['mechanism']}"
        metrics |= {f"time_slope/{key}": row["seconds_slope"], f"memory_slope/{key}": row["peak_bytes_slope"]}
    for row in crossovers:
        if row["length"] is not None:
            metrics[f"crossover_{row['baseline']}/dim_{row['dim']}/{row['mechanism']}"] = row["length"]
    return metrics
