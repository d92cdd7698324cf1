"""What an attention mechanism costs by the length of the sequence: time, peak memory and operations, measured."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from dl_lab import plots
from dl_lab.models.attention.mechanisms import MechanismFactory
from dl_lab.run import Run
from dl_lab.training.trainer import choose_device
from dl_lab.types import Metrics

Row = dict[str, Any]
Attend = Callable[[], Tensor]


@dataclass
class AttentionCost:
    """One head, one sequence, no gradient, for every dim, length and mechanism.

    Time is the median of torch.utils.benchmark over at least `seconds` each, by the wall clock or in CPU time of all
    threads (which neighbours on the machine disturb less). Memory is the most that was allocated at once beside
    q, k, v (CPU: every allocation, from torch's profiler; CUDA: its allocator's peak). Slopes are fitted on log-log
    axes over the lengths from `fit_from`. baselines: the mechanisms whose crossover is sought. What a mechanism
    refuses (a causal low-rank one), or what does not fit on the GPU, is left out.
    """

    lengths: Sequence[int]
    dims: Sequence[int]
    mechanisms: Mapping[str, MechanismFactory]
    baselines: Sequence[str]
    causal: bool = False
    seconds: float = 0.2
    fit_from: int = 1024
    seed: int = 0
    device: str = "auto"
    clock: Literal["wall", "cpu"] = "wall"

    def __call__(self, run: Run) -> Metrics:
        device = choose_device(self.device)
        rows: list[Row] = []
        for dim in self.dims:
            for length in self.lengths:
                measured = [self._measure(name, dim, length, device) for name in self.mechanisms]
                rows += [row for row in measured if row]
                self._log(run, [row for row in measured if row], length)
        slopes, crossovers = self.slopes(rows), self.crossovers(rows)
        self._draw(run, rows)
        run.table("slopes", slopes)
        run.table("crossovers", crossovers)
        return _metrics(rows, slopes, crossovers)

    def _measure(self, name: str, dim: int, length: int, device: torch.device) -> Row:
        """A row, or {} where the mechanism refuses or the GPU's memory does not suffice."""
        generator = torch.Generator().manual_seed(self.seed)
        q, k, v = torch.randn(3, 1, 1, length, dim, generator=generator).to(device)
        q, k = q * dim**-0.25, k * dim**-0.25
        try:
            mechanism: Any = self.mechanisms[name](head_dim=dim, length=length, causal=self.causal).to(device)
        except ValueError:
            return {}
        try:
            with torch.inference_mode():
                seconds = median_seconds(lambda: mechanism(q, k, v), self.seconds, self.clock)
                peak = peak_bytes(lambda: mechanism(q, k, v), device)
                counted = counted_flops(lambda: mechanism(q, k, v))
        except torch.cuda.OutOfMemoryError:
            return {}
        return {
            "dim": dim,
            "length": length,
            "mechanism": name,
            "seconds": seconds,
            "peak_bytes": peak,
            "flops": counted,
            "flops_formula": mechanism.flops(length),
        }

    def _log(self, run: Run, rows: Sequence[Row], length: int) -> None:
        memory = {f"peak_bytes/dim_{row['dim']}/{row['mechanism']}": float(row["peak_bytes"]) for row in rows}
        times = {f"seconds/dim_{row['dim']}/{row['mechanism']}": row["seconds"] for row in rows}
        run.log(memory, step=length, epoch=0, timings=times)

    def slopes(self, rows: Sequence[Row]) -> list[Row]:
        """d log(cost) / d log(length) of each mechanism and dim, over the lengths from `fit_from`."""
        found = []
        for dim, name in dict.fromkeys((row["dim"], row["mechanism"]) for row in rows):
            own = [r for r in rows if (r["dim"], r["mechanism"]) == (dim, name) and r["length"] >= self.fit_from]
            if len(own) > 1:
                costs = {f"{cost}_slope": slope(own, cost) for cost in ("seconds", "peak_bytes", "flops")}
                found.append({"dim": dim, "mechanism": name, **costs})
        return found

    def crossovers(self, rows: Sequence[Row]) -> list[Row]:
        """From which length on each mechanism is faster than each baseline; None: not within what was measured."""
        seconds = {(row["dim"], row["mechanism"], row["length"]): row["seconds"] for row in rows}
        found = []
        for dim, name in dict.fromkeys((row["dim"], row["mechanism"]) for row in rows):
            for baseline in self.baselines:
                common = [
                    (length, seconds[dim, name, length], seconds[dim, baseline, length])
                    for length in sorted(self.lengths)
                    if (dim, name, length) in seconds and (dim, baseline, length) in seconds
                ]
                if name != baseline and common:
                    found.append({"dim": dim, "mechanism": name, "baseline": baseline, "length": crossover(common)})
        return found

    def _draw(self, run: Run, rows: Sequence[Row]) -> None:
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


def median_seconds(attend: Attend, seconds: float, clock: Literal["wall", "cpu"] = "wall") -> float:
    """Median time of a call over at least `seconds` of calls, with the threads torch uses now."""
    from torch.utils.benchmark import Timer
    from torch.utils.benchmark.utils.timer import timer as wall  # waits for the GPU, where there is one

    timer = time.process_time if clock == "cpu" else wall
    benchmark = Timer("attend()", timer=timer, globals={"attend": attend}, num_threads=torch.get_num_threads())
    return float(benchmark.blocked_autorange(min_run_time=seconds).median)


def peak_bytes(attend: Attend, device: torch.device) -> int:
    """The most bytes allocated at once during a call, beside what was held before it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        attend()
        return torch.cuda.max_memory_allocated(device) - before
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
        attend()
    recorded = profiler.profiler.kineto_results.events()  # pyright: ignore[reportOptionalMemberAccess]
    memory: list[Any] = [event for event in recorded if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(memory, key=lambda event: event.start_ns())]
    return int(np.cumsum(changes).max(initial=0))


def counted_flops(attend: Attend) -> int:
    """Operations of all matrix products of a call, by torch's counter."""
    with FlopCounterMode(display=False, custom_mapping=CPU_KERNELS) as counter:
        attend()
    return counter.get_total_flops()


def _fused_flops(q: Any, k: Any, v: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(q, k, v)


# torch's counter knows the fused attention kernels of CUDA, not that of the CPU
CPU_KERNELS: dict[Any, Any] = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _fused_flops}


def slope(rows: Sequence[Row], cost: str) -> float:
    """Least squares of log(cost) on log(length)."""
    lengths, costs = ([math.log(row[column]) for row in rows] for column in ("length", cost))
    return float(np.polyfit(lengths, costs, 1)[0])


def crossover(times: Sequence[tuple[int, float, float]]) -> float | None:
    """From (length, own time, baseline's time) by length: where the last change to "faster" lies, interpolated in logs.

    The shortest length where it is faster throughout; None where it is not faster at the longest.
    """
    gaps = [math.log(own / baseline) for _, own, baseline in times]
    if gaps[-1] >= 0:
        return None
    slower = [i for i, gap in enumerate(gaps) if gap >= 0]
    if not slower:
        return float(times[0][0])
    i = slower[-1]
    share = gaps[i] / (gaps[i] - gaps[i + 1])
    before, after = math.log(times[i][0]), math.log(times[i + 1][0])
    return math.exp(before + share * (after - before))


def _metrics(rows: Sequence[Row], slopes: Sequence[Row], crossovers: Sequence[Row]) -> Metrics:
    metrics = {"flops_formula_error": float(max(abs(row["flops"] / row["flops_formula"] - 1) for row in rows))}
    for row in slopes:
        key = f"dim_{row['dim']}/{row['mechanism']}"
        metrics |= {f"time_slope/{key}": row["seconds_slope"], f"memory_slope/{key}": row["peak_bytes_slope"]}
    for row in crossovers:
        if row["length"] is not None:
            metrics[f"crossover_{row['baseline']}/dim_{row['dim']}/{row['mechanism']}"] = row["length"]
    return metrics
