"""Augmentation of whole batches against torchvision's transforms image by image, in one run.

    python scripts/benchmarks/augmentation.py [--batch 512] [--rounds 7] [--json FILE]

The same kinds of change on the same uint8 images, to float in [0, 1]: ours for the batch, torchvision.transforms.v2 on
tensors one image after the other, as a DataLoader's worker does. In turn, `rounds` times after one to warm up; one
thread, CPU seconds (neighbours on the machine disturb those least).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from dl_lab.datasets.batches import uniform
from dl_lab.datasets.images import augmentation as ours
from dl_lab.runs.environment import describe_environment

SIDE = 32
PAIRS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "crop, flip": (
        {"crop": ours.RandomCrop(4), "flip": ours.RandomHorizontalFlip()},
        [v2.RandomCrop(SIDE, padding=4), v2.RandomHorizontalFlip()],
    ),
    "flip, rotation": (
        {"flip": ours.RandomHorizontalFlip(), "rotation": ours.RandomRotation(15)},
        [v2.RandomHorizontalFlip(), v2.RandomRotation([-15, 15], InterpolationMode.BILINEAR)],
    ),
    "resized crop": (
        {"resized": ours.RandomResizedCrop((0.8, 1))},
        [v2.RandomResizedCrop(SIDE, (0.8, 1), antialias=False)],
    ),
    "colour": ({"colour": ours.ColorJitter(0.2, 0.2, 0.2, 0.02)}, [v2.ColorJitter(0.2, 0.2, 0.2, 0.02)]),
}


def whole_batch(steps: dict[str, Any], images: Tensor) -> Callable[[], Any]:
    """Return dl-lab's augmentation of a whole batch, to be timed."""
    augment = ours.Augmentation(steps)
    return lambda: augment(images.float().div_(255), uniform(len(images), augment.n_draws, 0, 0))


def one_by_one(steps: list[Any], images: Tensor) -> Callable[[], Any]:
    """Return torchvision's augmentation of one image after the other, to be timed."""
    transform = v2.Compose([v2.ToDtype(torch.float32, scale=True), *steps])
    return lambda: torch.stack([transform(image) for image in images])


def measure(batch: int, rounds: int) -> dict[str, dict[str, float]]:
    """Median CPU milliseconds of one batch, and the ratio of the medians."""
    images = torch.randint(0, 256, (batch, 3, SIDE, SIDE), dtype=torch.uint8)
    results = {}
    for name, (own, theirs) in PAIRS.items():
        parts = {"ours": whole_batch(own, images), "torchvision": one_by_one(theirs, images)}
        seconds: dict[str, list[float]] = {part: [] for part in parts}
        for _ in range(rounds + 1):
            for part, act in parts.items():
                start = time.process_time()
                act()
                seconds[part].append(time.process_time() - start)
        row = {part: 1e3 * statistics.median(values[1:]) for part, values in seconds.items()}
        results[name] = {**row, "ratio": row["ours"] / row["torchvision"]}
    return results


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = measure(options.batch, options.rounds)
    for name, row in results.items():
        print(f"{name:16} {row['ours']:8.1f} ms   torchvision {row['torchvision']:8.1f} ms   ratio {row['ratio']:.3f}")
    if options.json:
        machine = {"cpu": describe_environment([])["cpu"], "torch": torch.__version__}
        options.json.write_text(json.dumps({"batch": options.batch, "ms": results, **machine}, indent=1) + "\n")


if __name__ == "__main__":
    main()
