"""What it costs to watch gradient norms: a training step with `callbacks=gradient_norms`, without it, and by hand.

    python scripts/benchmarks/gradient_norms.py [--epochs 3] [--rounds 5] [--json FILE]

The same nets, weights and batches of generated images, one thread, CPU seconds of the training loop alone; the
contestants take turns, `rounds` times, and the ratios are medians of the pairwise ratios to `without`.

- without: dl-lab's trainer, no gradient norms
- weight: callbacks=gradient_norms as it is, every 50 updates
- both: the same with of=[weight, output]
- by hand: as notebooks do, a plain loop that takes `.grad.norm().item()` of every weight after every step
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import nn
from torch.nn import functional as F

from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.images.labelled import generate_arrays, labelled_images
from dl_lab.models.mlp import MLP
from dl_lab.models.oct_cnn import PooledCNN
from dl_lab.models.resnet import resnet18
from dl_lab.runs.board import NoBoard
from dl_lab.runs.environment import describe_environment
from dl_lab.runs.recorder import Run
from dl_lab.tasks.classification import Classification
from dl_lab.training.gradient_norms import GradientNorms
from dl_lab.training.learners import GradientLearner
from dl_lab.training.trainer import Callback, Trainer

Build = Callable[[], nn.Module]
# name -> how to build it, image shape, batch size, training images
NETS: dict[str, tuple[Build, tuple[int, int, int], int, int]] = {
    "mlp, batch 16": (lambda: MLP((1, 28, 28), 10, [256, 256]), (1, 28, 28), 16, 6400),
    "IST2-CNN, batch 8": (lambda: PooledCNN((1, 28, 28), 4), (1, 28, 28), 8, 3200),
    "IST2-CNN, batch 64": (lambda: PooledCNN((1, 28, 28), 4), (1, 28, 28), 64, 6400),
    "ResNet-18, batch 4": (lambda: resnet18((3, 32, 32), 4, "7x7"), (3, 32, 32), 4, 200),
}


class Clock(Callback):
    """CPU seconds from each epoch's first update to its end (validation is on a few images), figures left out."""

    def __init__(self) -> None:
        self.seconds, self.begun = 0.0, 0.0

    def update_start(self, session: Any) -> None:
        """Start the clock at the first batch of an epoch."""
        if session.batch == 0:
            self.begun = time.process_time()

    def epoch_end(self, session: Any, metrics: Any) -> None:
        """Stop the clock."""
        self.seconds += time.process_time() - self.begun


def fitted(build: Build, dataset: Dataset, batch: int, epochs: int, norms: GradientNorms | None) -> float:
    """Train once with dl-lab. Return the CPU seconds of its epochs."""
    torch.manual_seed(0)
    learner = GradientLearner(build(), Classification(), lambda p: torch.optim.SGD(p, lr=0.01, fused=True))
    clock = Clock()  # comes last at the end of an epoch: what the norms cost there is counted
    trainer = Trainer(epochs, batch, device="cpu", checkpoint_seconds=1e9, callbacks={"norms": norms, "clock": clock})
    with tempfile.TemporaryDirectory() as folder:
        trainer.fit(learner, dataset, Run.create(Path(folder) / "run", {}, {}, NoBoard(), {}))
    return clock.seconds


def by_hand(build: Build, dataset: Dataset, batch: int, epochs: int) -> float:
    """Train once with a plain loop that keeps the gradient norms. Return its CPU seconds."""
    torch.manual_seed(0)
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, fused=True)
    started = time.process_time()
    for epoch in range(epochs):
        norms: dict[str, list[float]] = {}
        for x, y in dataset.train.epoch(batch, seed=0, epoch=epoch):
            F.cross_entropy(model(x), y).backward()
            for name, parameter in model.named_parameters():
                if parameter.dim() >= 2 and parameter.grad is not None:
                    norms.setdefault(name, []).append(parameter.grad.norm().item())
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return time.process_time() - started


def measure(name: str, epochs: int, rounds: int) -> dict[str, float]:
    """Milliseconds of a step without norms, and the ratios to it."""
    build, shape, batch, n = NETS[name]
    n_classes = build()(torch.zeros(2, *shape)).shape[1]
    arrays = generate_arrays(n, shape, n_classes)
    for split in ("val", "test"):
        images, labels = arrays[split]
        arrays[split] = (images[:8], labels[:8])
    dataset = labelled_images("noise", arrays, "generated", input_shape=shape, n_classes=n_classes, divisor=255)
    contestants: dict[str, Callable[[], float]] = {
        "without": lambda: fitted(build, dataset, batch, epochs, None),
        "weight": lambda: fitted(build, dataset, batch, epochs, GradientNorms()),
        "both": lambda: fitted(build, dataset, batch, epochs, GradientNorms(of=["weight", "output"])),
        "by hand": lambda: by_hand(build, dataset, batch, epochs),
    }
    seconds: dict[str, list[float]] = {key: [] for key in contestants}
    for _ in range(rounds + 1):
        for key, run in contestants.items():
            seconds[key].append(run())
    steps = epochs * dataset.train.n_batches(batch)
    ratios = {
        key: statistics.median(a / b for a, b in zip(values[1:], seconds["without"][1:], strict=True))
        for key, values in seconds.items()
    }
    return {"steps": steps, "ms_per_step": 1e3 * statistics.median(seconds["without"][1:]) / steps, **ratios}


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    for name in NETS:
        results[name] = found = measure(name, options.epochs, options.rounds)
        shown = "  ".join(f"{key} {found[key]:.3f}" for key in ("weight", "both", "by hand"))
        print(f"{name:20} {found['ms_per_step']:7.2f} ms a step   {shown}", flush=True)
    if options.json:
        machine = {"cpu": describe_environment([])["cpu"], "torch": torch.__version__, "every": 50}
        options.json.write_text(json.dumps({"results": results, **machine}, indent=1) + "\n")


if __name__ == "__main__":
    main()
