"""What the doctor's instruments cost: a whole fit with `callbacks.doctor`, and the same fit without it.

    python scripts/benchmarks/doctor.py [--rounds 5] [--json FILE]

One thread, CPU seconds of `Trainer.fit`: training, validation, records, checkpoint and test. The two take turns. The
ratio is the median of the pairwise ratios, with the least and the greatest. Both end with the same weights (checked).
Whole fits differ by some percent by chance, so two more fits have a clock around every call of the doctor and its
hooks: `inside` is their CPU seconds as a share of the fit's others, the median of the rounds. What the clock itself
takes is subtracted. The doctor examines the data once for all fits of a process: `inside` is a fit whose data are
examined already, as in a sweep, and `first` is the fit that examines them.

The last row is a whole command, with Python's start, the imports, the examination of the data and the doctor's findings
at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import inspect
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import nn

from dl_lab import cli
from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.images.labelled import generate_arrays, labelled_images
from dl_lab.models.mlp import MLP
from dl_lab.models.oct_cnn import PooledCNN
from dl_lab.models.resnet import resnet18
from dl_lab.runs.board import NoBoard
from dl_lab.runs.environment import describe_environment
from dl_lab.runs.recorder import Run
from dl_lab.show import reporting
from dl_lab.tasks.classification import Classification
from dl_lab.training.layer_watch import LayerWatch
from dl_lab.training.learners import GradientLearner
from dl_lab.training.trainer import Trainer
from dl_lab.training.vitals import Vitals

Build = Callable[[], nn.Module]
# name -> how to build the net, image shape, batch size, training images, epochs
FITS: dict[str, tuple[Build, tuple[int, int, int], int, int, int]] = {
    "MLP 64-64-10, batch 64 (100 updates)": (lambda: MLP((1, 8, 8), 10, [64, 64]), (1, 8, 8), 64, 1600, 4),
    "MLP 64-64-10, batch 64 (200 updates)": (lambda: MLP((1, 8, 8), 10, [64, 64]), (1, 8, 8), 64, 1600, 8),
    "MLP 64-64-10, batch 64 (300 updates)": (lambda: MLP((1, 8, 8), 10, [64, 64]), (1, 8, 8), 64, 1600, 12),
    "MLP 784-256-256-10, batch 64 (1,000 updates)": (
        lambda: MLP((1, 28, 28), 10, [256, 256]),
        (1, 28, 28),
        64,
        6400,
        10,
    ),
    "CNN of OCTMNIST, batch 8 (1,024 updates)": (lambda: PooledCNN((1, 28, 28), 4), (1, 28, 28), 8, 2048, 4),
    "CNN of OCTMNIST, batch 64 (256 updates)": (lambda: PooledCNN((1, 28, 28), 4), (1, 28, 28), 64, 4096, 4),
    "ResNet-18, 32x32, batch 8 (100 updates)": (lambda: resnet18((3, 32, 32), 4, "7x7"), (3, 32, 32), 8, 800, 1),
}
CALIBRATION = 2000  # calls
COMMAND = ["dataset=digits", "model=mlp", "model.hidden=[64,64]", "trainer.max_epochs=10", "threads=1"]


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--command", metavar="FOLDER", help=argparse.SUPPRESS)  # see `measure_command`
    options = parser.parse_args()
    if options.command:
        run_command(options.command)
        return
    torch.set_num_threads(1)
    rows = [measure(name, options.rounds) for name in FITS]
    command = measure_command(options.rounds)
    print("| fit | without, s | with / without | least to greatest | inside | first |\n|---|---|---|---|---|---|")
    for row in rows:
        ratio = f"{row['ratio']:.3f} | {row['least']:.3f} to {row['most']:.3f}"
        print(f"| {row['fit']} | {row['seconds']:.2f} | {ratio} | {row['inside']:.2%} | {row['first']:.2%} |")
    print(f"| dl-lab {' '.join(COMMAND)} | {command['seconds']:.2f} | | | | {command['inside']:.2%} |")
    if options.json:
        facts = {key: describe_environment([])[key] for key in ("time", "cpu", "cores", "python")}
        options.json.write_text(
            json.dumps({"torch": torch.__version__, **facts, "rows": rows, "command": command}, indent=1) + "\n"
        )


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Time a fit with and without the doctor, in turns, and check that it changes no weight."""
    build, shape, batch_size, n_images, n_epochs = FITS[name]
    n_classes = 10 if shape[0] == 1 and shape[1] == 8 else 4
    arrays = generate_arrays(n_images, shape, n_classes)
    dataset = labelled_images("noise", arrays, "generated", input_shape=shape, n_classes=n_classes, divisor=255)
    ratios = []
    seconds = []
    shares: dict[bool, list[float]] = {True: [], False: []}  # whether it is the first fit with these data
    for _ in range(rounds):
        without, weights = fit(build, dataset, batch_size, n_epochs, {})
        watched, same = fit(build, dataset, batch_size, n_epochs, {"doctor": Vitals()})
        assert all(torch.equal(weights[key], same[key]) for key in weights), "the doctor changed a weight"
        ratios.append(watched / without)
        seconds.append(without)
        for is_first, found in shares.items():
            if is_first:
                dataset.examined.clear()
            with clocked() as clock:
                took, _ = fit(build, dataset, batch_size, n_epochs, {"doctor": Vitals()})
            found.append(clock.seconds / (took - clock.seconds - clock.own))
    return {
        "fit": name,
        "seconds": statistics.median(seconds),
        "ratio": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
        "inside": statistics.median(shares[False]),
        "first": statistics.median(shares[True]),
    }


def measure_command(rounds: int) -> dict[str, Any]:
    """Run the command `rounds` times, each in a process of its own, and return the medians."""
    found: list[dict[str, float]] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            words = [sys.executable, __file__, "--command", f"{folder}/run"]
            found.append(json.loads(subprocess.run(words, capture_output=True, check=True).stdout.splitlines()[-1]))
    seconds = [one["seconds"] - one["doctor"] for one in found]
    shares = [one["doctor"] / (one["seconds"] - one["doctor"]) for one in found]
    words = " ".join(["dl-lab", *COMMAND])
    return {"command": words, "seconds": statistics.median(seconds), "inside": statistics.median(shares)}


def run_command(folder: str) -> None:
    """Be the command, with the clock. Print the CPU seconds of this process and those of the doctor."""
    with clocked() as clock:
        status = cli.main([*COMMAND, f"hydra.run.dir={folder}"])
    print(json.dumps({"seconds": time.process_time(), "doctor": clock.seconds}))
    sys.exit(status)


class Clock:
    """Adds up the CPU seconds of calls. A call within another one is part of it."""

    def __init__(self) -> None:
        self._counted = 0.0
        self._n = 0
        self._is_running = False
        empty = self.wrap(lambda: None)
        began = time.process_time()
        for _ in range(CALIBRATION):
            empty()
        self._whole = (time.process_time() - began) / CALIBRATION  # of one call
        self._inner = self._counted / CALIBRATION  # the part of it that the clock sees
        self._counted = 0.0
        self._n = 0

    @property
    def seconds(self) -> float:
        """The CPU seconds of the calls, without those of the clock."""
        return self._counted - self._n * self._inner

    @property
    def own(self) -> float:
        """The CPU seconds that the clock itself took."""
        return self._n * self._whole

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function with this clock around each call; the hooks that it returns have the clock too."""

        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            if self._is_running:
                answer = function(*arguments, **named)
            else:
                self._is_running = True
                began = time.process_time()
                try:
                    answer = function(*arguments, **named)
                finally:
                    self._counted += time.process_time() - began
                    self._n += 1
                    self._is_running = False
            return self.wrap(answer) if inspect.isfunction(answer) else answer

        return call


@contextlib.contextmanager
def clocked() -> Iterator[Clock]:
    """Put a clock around every method of the doctor that a fit calls, its hooks, and the search for findings."""
    clock = Clock()
    methods: list[tuple[Any, str, Any]] = [(reporting, "diagnose", reporting.diagnose)]
    for owner in (Vitals, LayerWatch):
        methods += [(owner, name, method) for name, method in vars(owner).items() if is_called_by_others(name, method)]
    for owner, name, method in methods:
        setattr(owner, name, clock.wrap(method))
    try:
        yield clock
    finally:
        for owner, name, method in methods:
            setattr(owner, name, method)


def is_called_by_others(name: str, member: object) -> bool:
    """Whether a member of the doctor's classes is a hook, of a fit or of a layer. Other methods are called by these."""
    return inspect.isfunction(member) and (not name.startswith("_") or name.startswith(("_see_", "__init__")))


def fit(
    build: Build, dataset: Dataset, batch_size: int, n_epochs: int, callbacks: dict[str, Any]
) -> tuple[float, dict[str, torch.Tensor]]:
    """Train once. Return the CPU seconds and the weights."""
    torch.manual_seed(0)
    learner = GradientLearner(build(), Classification(), lambda weights: torch.optim.SGD(weights, lr=0.01))
    trainer = Trainer(n_epochs, batch_size, device="cpu", callbacks=callbacks)
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", {}, {}, NoBoard(), {})
        began = time.process_time()
        trainer.fit(learner, dataset, run)
        took = time.process_time() - began
    return took, {name: weight.clone() for name, weight in learner.weights().items()}


if __name__ == "__main__":
    main()
