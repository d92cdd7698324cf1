"""How far is a step of the best hand-written loop from what the CPU allows? One thread, every family of torch.

    python scripts/benchmarks/roofline.py [--family CNN ...] [--seconds 4] [--json FILE]

A step is an update of the tuned loop of families.py: make a batch, forward, backward, optimizer. Its time is the median
of all updates of some seconds. Four figures say what it needs at least:

- products: the operations of its matrix products and convolutions (torch's FlopCounterMode, and the layers of recurrent
  nets), at the speed of a product of two 1,024 x 1,024 matrices;
- exponentials: those of attention, once forward and once backward, at the speed of torch.exp in the cache;
- movement: the bytes that its other operations read and write, at the speed of an addition in the cache;
- calls: its calls of torch's operations, at the time of an addition of one number.

A profile of some updates (torch.profiler) gives the operations in which most of a step's CPU time is spent.

The limit is the greater one of calculation (products and exponentials) and movement: the roofline model (Williams,
Waterman and Patterson, 2009). The calls are no limit, since one fused operation could do the work of many. They say why
a step of small operations is far from its limit.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

import torch
from families import job
from family_loops import FAMILIES, Family, laid_out, model_of, optimizer_of
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

SIDE = 1024
CACHED = 1 << 16  # numbers: 256 KiB, in the cache of a core
LONGEST_EPOCH = 64  # updates that are counted
LOOKUPS = ("aten::embedding", "aten::index_select", "aten::gather", "aten::index")
ATTENTION = (64, 2, 200, 16)  # items, heads, positions, numbers of a head
PROFILED = 16  # updates
MOST_SHOWN = 3  # operations
PRODUCTS = ("mm", "conv", "attention", "rnn_layer")


# -- the machine ------------------------------------------------------------------------------------------------------


def best(work: Callable[[], object], n_times: int) -> float:
    """The least seconds of a call of work."""
    least = float("inf")
    for _ in range(n_times):
        began = time.perf_counter()
        work()
        least = min(least, time.perf_counter() - began)
    return least


def machine() -> dict[str, float]:
    """Operations and bytes of a second, and the seconds of a call."""
    a, b = torch.rand(SIDE, SIDE), torch.rand(SIDE, SIDE)
    x, y, z = torch.rand(CACHED), torch.rand(CACHED), torch.rand(CACHED)
    one = torch.zeros(1)

    def exponentials() -> None:
        for _ in range(100):
            torch.exp(x, out=z)

    def additions() -> None:
        for _ in range(100):
            torch.add(x, y, out=z)

    def calls() -> None:
        for _ in range(1000):
            one.add_(1)

    return {
        "flops": 2 * SIDE**3 / best(lambda: a @ b, 20),
        "bytes": 100 * 3 * 4 * CACHED / best(additions, 20),
        "exponentials": 100 * CACHED / best(exponentials, 20),
        "call": best(calls, 20) / 1000,
    }


# -- a step -----------------------------------------------------------------------------------------------------------


def size(values: Any) -> int:
    """Bytes of all tensors in it."""
    return sum(leaf.numel() * leaf.element_size() for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor))


class Traffic(TorchDispatchMode):
    """Counts the calls, and the bytes that operations read and write, products left out."""

    def __init__(self) -> None:
        super().__init__()
        self.n_calls = 0
        self.n_bytes = 0
        self.n_exponentials = 0
        self.products: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        name = func._schema.name
        self.n_calls += 1
        if any(word in name for word in PRODUCTS):
            self.products.add(name)
            if "attention" in name:  # forward (query, key, ...), backward (gradient, query, key, ...)
                query, key = args[1:3] if "backward" in name else args[:2]
                self.n_exponentials += query.shape[:-1].numel() * key.shape[-2]
        elif not func.is_view:
            written = [arg for arg, of in zip(args, func._schema.arguments, strict=False) if is_written(of)]
            fresh = 0 if written or any(is_written(of) for of in func._schema.arguments) else size(made)
            read = fresh + size(args[1:]) if name in LOOKUPS else size((args, kwargs))
            self.n_bytes += read + size(written) + fresh
        return made


def is_written(argument: Any) -> bool:
    """Whether an operation changes this argument in place."""
    return argument.alias_info is not None and argument.alias_info.is_write


def recurrent_layer(x: Sequence[int], w_input: Sequence[int], w_hidden: Sequence[int], *_: Any, **__: Any) -> int:
    """Operations of oneDNN's recurrent layer: two products at each position."""
    n_rows = x[0] * x[1]
    return 2 * n_rows * (w_input[0] * w_input[1] + w_hidden[0] * w_hidden[1])


def recurrent_layer_backward(*shapes: Any, **named: Any) -> int:
    """Twice the forward pass."""
    return 2 * recurrent_layer(*shapes, **named)


LAYERS = {
    torch.ops.aten.mkldnn_rnn_layer: recurrent_layer,
    torch.ops.aten.mkldnn_rnn_layer_backward: recurrent_layer_backward,
}


class Loop:
    """The tuned loop of a family, an update at a time."""

    def __init__(self, family: Family) -> None:
        self.family = family
        config, data = job(family, family.lengths[0], 1)
        self.model = model_of(config)
        if family.images:
            self.model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.optimizer = optimizer_of(config, trained, fused=True)
        self.train = family.hold(data.train)
        self.size = config["trainer"]["batch_size"]
        self.model.train()

    def epoch(self, number: int) -> Sequence[torch.Tensor]:
        """The batches of an epoch, as numbers of items."""
        return self.train.epoch(self.size, number)

    def update(self, chosen: torch.Tensor) -> None:
        """Learn from a batch."""
        loss, _ = self.family.judge(self.model, laid_out(self.train.batch(chosen), self.family.images))
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def seconds(self, at_least: float) -> float:
        """The median of the updates of whole epochs, after one that is not counted."""
        for chosen in self.epoch(0):
            self.update(chosen)
        times: list[float] = []
        number = 1
        while sum(times) < at_least:
            for chosen in self.epoch(number):
                began = time.perf_counter()
                self.update(chosen)
                times.append(time.perf_counter() - began)
            number += 1
        return statistics.median(times)


def largest(loop: Loop) -> dict[str, float]:
    """The operations that take most of the CPU time of some updates, and their shares."""
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        for chosen in list(loop.epoch(0))[:PROFILED]:
            loop.update(chosen)
    times = {event.key: event.self_cpu_time_total for event in recorded.key_averages()}
    names = sorted(times, key=lambda name: -times[name])[:MOST_SHOWN]
    return {name.removeprefix("aten::"): times[name] / sum(times.values()) for name in names}


def attention_kernels(rounds: int = 15) -> dict[str, float]:
    """Milliseconds, forward and backward, of torch's two kernels at the size of the encoder-decoder's attention."""
    q, k, v = (torch.randn(*ATTENTION, requires_grad=True) for _ in range(3))
    times: dict[str, list[float]] = {"FLASH_ATTENTION": [], "MATH": []}
    for _ in range(rounds):
        for name, found in times.items():
            began = time.perf_counter()
            with sdpa_kernel(getattr(SDPBackend, name)):
                F.scaled_dot_product_attention(q, k, v).sum().backward()
            found.append(1000 * (time.perf_counter() - began))
    ratio = statistics.median(b / a for a, b in zip(*times.values(), strict=True))
    return {**{name: statistics.median(found) for name, found in times.items()}, "ratio": ratio}


def measure(family: Family, at_least: float, speed: dict[str, float]) -> dict[str, Any]:
    """A step's milliseconds, and what it needs at least."""
    loop = Loop(family)
    step = loop.seconds(at_least)
    counted = list(loop.epoch(0))[:LONGEST_EPOCH]
    with FlopCounterMode(display=False, custom_mapping=LAYERS) as flops, Traffic() as traffic:
        for chosen in counted:
            loop.update(chosen)
    n = len(counted)
    needs = {
        "products": flops.get_total_flops() / n / speed["flops"],
        "exponentials": traffic.n_exponentials / n / speed["exponentials"],
        "movement": traffic.n_bytes / n / speed["bytes"],
        "calls": traffic.n_calls / n * speed["call"],
    }
    return {
        "batch": loop.size,
        "step": 1000 * step,
        **{name: 1000 * seconds for name, seconds in needs.items()},
        "n_calls": round(traffic.n_calls / n),
        "gflops": flops.get_total_flops() / n / step / 1e9,
        "share": max(needs["products"] + needs["exponentials"], needs["movement"]) / step,
        "counted": sorted(traffic.products),
        "largest": largest(loop),
    }


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--family", nargs="*", default=[], help="only families whose name begins so")
    parser.add_argument("--seconds", type=float, default=4.0, help="how long a family's updates are timed")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    options = parser.parse_args()
    torch.set_num_threads(1)
    from dl_lab.runs.environment import describe_environment

    speed = machine()
    print(f"{speed['flops'] / 1e9:.0f} GFLOP/s, {speed['bytes'] / 1e9:.0f} GB/s, {speed['call'] * 1e6:.2f} us a call")
    rows: dict[str, Any] = {}
    for family in FAMILIES.values():
        wanted = not options.family or any(family.name.startswith(word) for word in options.family)
        if family.plain is None and wanted:
            row = rows[family.name] = measure(family, options.seconds, speed)
            print(f"{family.name:44} {row['step']:8.2f} ms, limit / step {row['share']:4.0%}", flush=True)
    report = {
        "command": f"python scripts/benchmarks/roofline.py --seconds {options.seconds:g}",
        "hardware": describe_environment([])["cpu"],
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": speed,
        "attention": attention_kernels(),
        "families": rows,
    }
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
