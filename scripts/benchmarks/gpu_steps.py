"""Steps on a GPU: dl-lab beside the hand-tuned loop, and torch.compile of it. Is the GPU starved?

    python scripts/benchmarks/gpu_steps.py [--batch 64 512] [--family CNN ...] [--json FILE] [--device cpu]

Wall seconds. dl-lab runs its command's own path with everything on; its speed is the one that it records itself for an
epoch after the first (without the validation). The hand-tuned loop of families.py keeps its data on the device. `host`
is the share of a step's time for which the host is busy giving it to the GPU: near 1, the GPU waits for the host.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import families
import family_loops
import torch

from dl_lab import configs
from dl_lab.jobs.one import execute
from dl_lab.runs.environment import describe_devices
from dl_lab.runs.recorder import Run

FAMILIES = ("MLP", "CNN", "ResNet-9", "LSTM", "Transformer")
EPOCHS = 4


def by_dl_lab(words: list[str]) -> float:
    """Samples a second of the best epoch after the first."""
    with tempfile.TemporaryDirectory() as folder:
        composed = configs.Composer().compose([*words, f"trainer.max_epochs={EPOCHS}", f"hydra.run.dir={folder}/run"])
        execute(composed, ["dl-lab", *words], quiet=True)
        speeds = [record["samples_per_second"] for record in Run(Path(folder) / "run", {}).records("timings.jsonl")]
    return max(speeds[1:])


def tuned(family: Any, config: Any, data: Any, device: torch.device, backend: str, n_steps: int) -> tuple[float, float]:
    """Samples a second of the hand-tuned loop, and the share of the time that the host is busy."""
    model = family_loops.model_of(config).to(device)
    if family.images:
        model.to(memory_format=torch.channels_last)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = family_loops.optimizer_of(config, trained, fused=True)
    forward: Any = torch.compile(model, backend=backend) if backend else model
    batches = endless(family.hold(data.train), config["trainer"]["batch_size"], family.images, device)
    samples = 0

    def steps(count: int) -> None:
        nonlocal samples
        for _ in range(count):
            batch = next(batches)
            family.judge(forward, batch)[0].backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            samples += len(batch[0])

    steps(10)
    speeds, shares = [], []
    for _ in range(3):
        wait(device)
        samples = 0
        began = time.perf_counter()
        steps(n_steps)
        given = time.perf_counter() - began
        wait(device)
        seconds = time.perf_counter() - began
        speeds.append(samples / seconds)
        shares.append(given / seconds)
    return statistics.median(speeds), statistics.median(shares)


def endless(held: Any, size: int, images: bool, device: torch.device) -> Iterator[Any]:
    """Batches that are gathered on the device."""
    held.batch(torch.arange(1))  # texts are padded once
    for name, value in vars(held).items():
        if isinstance(value, torch.Tensor) and name != "lengths":
            setattr(held, name, value.to(device))
    if hasattr(held, "columns"):
        held.columns = type(held.columns)(*[column.to(device) for column in held.columns])
    number = 0
    while True:
        for chosen in held.epoch(size, number):
            yield family_loops.laid_out(on(held, chosen, device), images)
        number += 1


def on(held: Any, chosen: torch.Tensor, device: torch.device) -> Any:
    """One batch, its indices moved to the device; the lengths of texts stay on the host."""
    if not isinstance(held, family_loops.Texts):
        return held.batch(chosen.to(device))
    longest = int(held.lengths[chosen].max()) if held.layout.bucketing else held.layout.length
    there = chosen.to(device)
    matrix: Any = held._x
    x, mask = matrix.index_select(0, there), held._mask.index_select(0, there)
    return family_loops.TokenBatch(x[:, :longest], mask[:, :longest], held.labels.index_select(0, there))


def wait(device: torch.device) -> None:
    """Until the device has done everything."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(family: Any, batch: int, samples: int, n_steps: int, device: torch.device, backend: str) -> dict[str, Any]:
    """One row: samples a second of each contestant, the ratios to the tuned loop, and the host's share."""
    words = [*family.overrides(samples), f"trainer.device={device.type}", f"trainer.batch_size={batch}"]
    composed = configs.Composer().compose(words)
    config, data = families.built(composed.config)
    speed, share = tuned(family, config, data, device, backend="", n_steps=n_steps)
    row: dict[str, Any] = {"family": family.name, "batch": batch, "tuned": speed, "host": share}
    contestants: dict[str, Callable[[], float]] = {
        "compiled": lambda: tuned(family, config, data, device, backend=backend, n_steps=n_steps)[0],
        "dl_lab": lambda: by_dl_lab(words),
    }
    for name, work in contestants.items():
        try:
            row[name] = work()
            row[f"{name}_ratio"] = row[name] / speed
        except Exception as error:  # torch.compile may lack a compiler; the other figures stay
            row[f"{name}_failed"] = f"{type(error).__name__}: {error}".splitlines()[0][:120]
    return row


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, nargs="*", default=[64, 512])
    parser.add_argument("--family", nargs="*", default=list(FAMILIES))
    parser.add_argument("--samples", type=int, default=16384)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backend", default="inductor", help="of torch.compile; eager compiles nothing")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no further row after these")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    device = torch.device(options.device)
    began = time.monotonic()
    rows = []
    for batch in options.batch:
        for family in family_loops.FAMILIES.values():
            if not family.name.startswith(tuple(options.family)) or family.plain is not None:
                continue
            if time.monotonic() - began > options.seconds:
                print(f"{family.name}, batch {batch}: no time left.")
                continue
            rows.append(measure(family, batch, options.samples, options.steps, device, options.backend))
            print({name: round(v, 3) if isinstance(v, float) else v for name, v in rows[-1].items()}, flush=True)
            if options.json:
                facts = {"devices": describe_devices(), "date": time.strftime("%Y-%m-%d", time.gmtime())}
                options.json.write_text(json.dumps({**facts, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
