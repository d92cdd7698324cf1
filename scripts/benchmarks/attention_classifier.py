"""Training speed of the AG News Transformer with each attention mechanism, in one run.

    python scripts/benchmarks/attention_classifier.py [--length 64 512] [--rounds 5] [--json FILE]

The experiment's own learner (`experiment=ag_news_attention`) updates on the same generated batch, mechanisms in turn,
`rounds` times after one to warm up; one thread, CPU seconds (neighbours on the machine disturb those least).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from dl_lab import configs
from dl_lab.runs.environment import describe_environment


def mechanisms() -> list[str]:
    """List the attention mechanisms of the configs."""
    return sorted(configs.Composer().loader.get_group_options("model/attention"))


def learner_and_batch(mechanism: str, length: int, batch: int) -> tuple[Any, Any]:
    """Build the classifier with a mechanism, and one generated batch."""
    torch.manual_seed(0)
    overrides = [f"model/attention={mechanism}", f"dataset.length={length}"]
    generated = ["dataset.source=generated", f"+dataset.n_generated={batch}"]
    composed = configs.Composer().compose(["experiment=ag_news_attention", *overrides, *generated])
    dataset = configs.build(composed.config, "dataset")
    return configs.build(composed.config, "learner"), next(iter(dataset.train.batches(batch)))


def milliseconds(length: int, batch: int, rounds: int) -> dict[str, float]:
    """Median CPU milliseconds of one update."""
    parts = {name: learner_and_batch(name, length, batch) for name in mechanisms()}
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(rounds + 1):
        for name, (learner, columns) in parts.items():
            start = time.process_time()
            learner.update(columns)
            seconds[name].append(time.process_time() - start)
    return {name: 1e3 * statistics.median(values[1:]) for name, values in seconds.items()}


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, nargs="*", default=[64, 512])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {str(length): milliseconds(length, options.batch, options.rounds) for length in options.length}
    for length, row in results.items():
        for name, value in sorted(row.items(), key=lambda item: item[1]):
            print(f"L = {length:>5}  {name:16} {value:8.1f} ms for {options.batch} texts")
    if options.json:
        machine = {"cpu": describe_environment([])["cpu"], "torch": torch.__version__}
        options.json.write_text(json.dumps({"batch": options.batch, "ms": results, **machine}, indent=1) + "\n")


if __name__ == "__main__":
    main()
