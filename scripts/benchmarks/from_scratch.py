"""One epoch of the NumPy models over 97,477 generated samples of 784 pixels, beside the same formulas written plainly.

    python scripts/benchmarks/from_scratch.py [--samples 97477] [--rounds 3] [--to FILE.csv]

The kept table is docs/results/benchmarks/from_scratch.csv. 97,477 is the size of OCTMNIST's training split. The labels
are drawn at random: with nothing to learn nearly every sample costs the perceptron an update, as on the real images;
the other models' cost does not depend on it. One core, CPU seconds, in turn, the least of `rounds` (neighbours only
ever add time). Per model and round:

- plain: the coursework's loop over float64 rows, every formula as it stands (np.outer, new arrays)
- model: `update` of dl_lab.from_scratch on the same rows in the same order
- runner: the epoch as `dl-lab experiment=octmnist_...` does it: order, uint8 batches, division, tallies

"same digits" compares the parameters afterwards bit by bit (model against plain, runner against model).
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np

from dl_lab.datasets.batches import TensorSplit, in_order
from dl_lab.datasets.images.labelled import Scaled, generate_arrays
from dl_lab.from_scratch.logistic_regression import LogisticRegression
from dl_lab.from_scratch.mlp import MLP
from dl_lab.from_scratch.perceptron import Perceptron
from dl_lab.runs.environment import describe_environment
from dl_lab.training.scratch import ScratchLearner
from dl_lab.types import LabelledBatch

LIMITS = {"perceptron": 3.0, "logistic_regression": None, "mlp": 40.0}  # CPU seconds an epoch, the targets
MODELS: dict[str, Callable[[], Any]] = {
    "perceptron": lambda: Perceptron(784, 4),
    "logistic_regression": lambda: LogisticRegression(784, 4, lr=0.001),
    "mlp": lambda: MLP(784, 4, hidden=200, lr=0.001, seed=42),
}


def plain_perceptron(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """The perceptron of the course's solution, as plain NumPy."""
    W = np.zeros((4, 785))
    for x_i, y_i in zip(np.hstack([x, np.ones((len(x), 1))]), y, strict=True):
        predicted = np.argmax(W.dot(x_i))
        if predicted != y_i:
            W[y_i] += x_i
            W[predicted] -= x_i
    return {"W": W}


def plain_logistic_regression(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Logistic regression of the course's solution, as plain NumPy."""
    W = np.zeros((4, 785))
    for x_i, y_i in zip(np.hstack([x, np.ones((len(x), 1))]), y, strict=True):
        z = W.dot(x_i)
        p = np.exp(z - z.max())
        p = p / p.sum()
        p[y_i] -= 1
        W = W - 0.001 * np.outer(p, x_i)
    return {"W": W}


def plain_mlp(x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """The multilayer perceptron of the course's solution, as plain NumPy."""
    random = np.random.RandomState(42)
    W1, b1 = random.normal(0.1, 0.1, (200, 784)), np.zeros(200)
    W2, b2 = random.normal(0.1, 0.1, (4, 200)), np.zeros(4)
    for x_i, y_i in zip(x, y, strict=True):
        h = np.maximum(W1.dot(x_i) + b1, 0)
        z = W2.dot(h) + b2
        p = np.exp(z - z.max())
        d2 = p / p.sum()
        d2[y_i] -= 1
        d1 = W2.T.dot(d2) * (h > 0)
        W2 = W2 - 0.001 * np.outer(d2, h)
        b2 = b2 - 0.001 * d2
        W1 = W1 - 0.001 * np.outer(d1, x_i)
        b1 = b1 - 0.001 * d1
    return {"W1": W1, "b1": b1, "W2": W2, "b2": b2}


PLAIN = {"perceptron": plain_perceptron, "logistic_regression": plain_logistic_regression, "mlp": plain_mlp}


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Call a function. Return its CPU seconds and its result."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def through_runner(model: Any, split: TensorSplit) -> dict[str, np.ndarray]:
    """Train a model for one epoch through dl-lab's learner. Return its weights."""
    learner = ScratchLearner(model)
    for batch in split.epoch(8192, seed=42, epoch=0):
        learner.update(batch)
    return model.state_dict()


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    """Whether all arrays have the same bits."""
    return all(np.array_equal(a[name], b[name]) for name in a)


def measure(name: str, split: TensorSplit, rounds: int) -> dict[str, Any]:
    """Time the plain loop, the model and the model in dl-lab's learner."""
    x = split.columns.x.flatten(1).numpy() / 256
    y = split.columns.y.numpy()
    seconds: dict[str, list[float]] = {"plain": [], "model": [], "runner": []}
    results: dict[str, Any] = {}
    for _ in range(rounds):
        model, learned = MODELS[name](), MODELS[name]()
        work = {
            "plain": lambda: PLAIN[name](x, y),
            "model": lambda model=model: (model.update(x, y), model.state_dict())[1],
            "runner": lambda model=learned: through_runner(model, split),
        }
        for who, job in work.items():
            spent, results[who] = timed(job)
            seconds[who].append(spent)
    return {
        "model": name,
        "samples": len(y),
        **{f"{who}_seconds": round(min(values), 2) for who, values in seconds.items()},
        "target_seconds": LIMITS[name] or "",
        "target_met": "" if LIMITS[name] is None else min(seconds["runner"]) <= LIMITS[name],
        "same_digits_as_plain": same(results["model"], results["plain"]),
        "same_digits_in_runner": same(results["runner"], results["model"]),
        "rounds": rounds,
        "hardware": f"1 thread of {describe_environment([])['cpu']}",
        "numpy": np.__version__,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=97_477)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--to", type=Path)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    images, labels = generate_arrays(options.samples, (1, 28, 28), 4)["train"]
    labels = np.random.default_rng(1).permutation(labels)
    columns = LabelledBatch(torch.from_numpy(images), torch.from_numpy(labels))
    split = TensorSplit(columns, Scaled((1, 28, 28), 256), in_order)
    rows = [measure(name, split, options.rounds) for name in MODELS]
    for row in rows:
        print({key: row[key] for key in list(row)[:9]}, flush=True)
    if options.to:
        options.to.parent.mkdir(parents=True, exist_ok=True)
        with options.to.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
