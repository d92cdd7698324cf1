"""What dl-lab costs beside the work itself: start-up, memory, a scalar for each step, a checkpoint for each epoch.

    python scripts/benchmarks/startup.py [--rounds 5] [--batch 8 64] [--samples 4096] [--json FILE]

Everything is a ratio of two things measured in turn, `rounds` times: the median of the pairwise ratios. Times
are CPU seconds on one thread (neighbours on the machine disturb those least), memory is the process's peak.

- help: `dl-lab --help` to `import hydra`
- first line: wall seconds from the start of a training to its first line on a terminal, to those of `import hydra`
- first step: the dl-lab command from its start to the end of the first update, to `import torch`
- first step, cold (`--cold`, needs root): the same in wall seconds, each time after the kernel has dropped its caches,
  so that every file comes from the disk
- memory: a short run of dl-lab (everything on) to the hand-written loop `tuned` of throughput.py
- log: training with a scalar for each step to training with none (speed: the reciprocal of time)
- checkpoint: training with a checkpoint for each epoch to training with none
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import pty
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import throughput  # the benchmark beside this one
import torch

from dl_lab import configs
from dl_lab.configs.targets import ALLOW_VARIABLE
from dl_lab.datasets.images.labelled import generate_arrays
from dl_lab.jobs.one import execute
from dl_lab.runs.environment import describe_environment

FIRST_STEP = """
import os
from dl_lab import cli, preload
preload.torch()  # as the command does: the next line would import it plainly
from dl_lab.training.learners import GradientLearner
update, calls = GradientLearner.update, []
def watched(self, batch):
    tally = update(self, batch)
    calls.append(1)
    if len(calls) == 2:  # the first is the rehearsal, before anything is written
        os._exit(0)
    return tally
GradientLearner.update = watched
cli.main({arguments!r})
"""
PLAIN_LOOP = """
import time
from typing import Any
import numpy as np
import torch
from torch.nn import functional as F
from dl_lab.datasets.batches import shuffled
from dl_lab.models.oct_cnn import PooledCNN
LR, SEED = 0.01, 0
{source}
with np.load({path!r}) as content:
    x, y = content["train_images"][:, None], content["train_labels"].astype(np.int64)
tuned(torch.from_numpy(x), torch.from_numpy(y), 64, 2)
"""
# row -> of what: the ratio or our seconds; how it must compare with the number
GOALS = {
    "help": ("ratio", "<=", 1.0),
    "first line": ("ours", "<=", 0.3),
    "first step": ("ratio", "<=", 1.25),
    "memory": ("ratio", "<=", 1.15),
    "log": ("ratio", ">=", 0.97),
    "checkpoint": ("ratio", ">=", 0.98),
}


# A small process starts the measured one: maxrss also counts the memory of the process that starts a program.
LAUNCHER = """
import os, sys, time
began = time.perf_counter()
process = os.fork()
if process == 0:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
_, status, usage = os.wait4(process, 0)
print(status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, time.perf_counter() - began)
"""


def child(arguments: Sequence[str], folder: Path) -> tuple[float, float, float]:
    """CPU seconds, peak memory (MiB) and wall seconds of a Python process of its own."""
    words = [sys.executable, "-I", "-S", "-c", LAUNCHER, *arguments]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    status, cpu, peak, wall = map(float, done.stdout.split())
    if status != 0:
        raise SystemExit(f"{' '.join(arguments)[:200]} failed with status {status:.0f}")
    return cpu, peak, wall


def cold_child(arguments: Sequence[str], folder: Path) -> float:
    """Wall seconds of a Python process whose files are not in memory."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")
    return child(arguments, folder)[2]


def processes(rounds: int, folder: Path, data: Path, cold: bool) -> dict[str, dict[str, float]]:
    """The comparisons of whole processes, some of them with cold caches, too."""
    run = ["experiment=octmnist_cnn", "dataset.test_set=all", f"paths.data_dir={data.parent}", "threads=1"]
    run += ["trainer.batch_size=64", "trainer.max_epochs=2"]
    first = FIRST_STEP.format(arguments=["threads=1"])
    plain = PLAIN_LOOP.format(source=source_of("tuned"), path=str(data))
    pairs = {
        "help": (["-m", "dl_lab", "--help"], ["-c", "import hydra"], 0),
        "first step": (["-c", first], ["-c", "import torch, os; os._exit(0)"], 0),
        "memory": (["-m", "dl_lab", *run], ["-c", plain], 1),
    }
    rows = {}
    for name, (ours, theirs, what) in pairs.items():
        measured = [(child(ours, folder)[what], child(theirs, folder)[what]) for _ in range(rounds)]
        rows[name] = row(name, measured)
    hydra = ["-c", "import hydra; print('loaded', flush=True)"]
    lines = [(first_line(["-m", "dl_lab", *run], folder), first_line(hydra, folder)) for _ in range(rounds)]
    rows = {"help": rows.pop("help"), "first line": row("first line", lines), **rows}
    if cold:
        ours, theirs, _ = pairs["first step"]
        measured = [(cold_child(ours, folder), cold_child(theirs, folder)) for _ in range(rounds)]
        rows["first step, cold"] = row("first step, cold", measured)
    return rows


def first_line(arguments: Sequence[str], folder: Path) -> float:
    """Wall seconds until a Python process on a terminal writes something. Then it is killed."""
    terminal, end = pty.openpty()
    began = time.perf_counter()
    with subprocess.Popen([sys.executable, *arguments], cwd=folder, stdout=end, stderr=end) as process:
        os.read(terminal, 1)
        seconds = time.perf_counter() - began
        process.kill()
    os.close(terminal)
    os.close(end)
    return seconds


def source_of(name: str) -> str:
    """The text of a function of throughput.py: a plain loop's process must not import what that file imports."""
    text = Path(throughput.__file__).read_text()
    function = next(node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef) and node.name == name)
    return ast.get_source_segment(text, function) or ""


def row(name: str, measured: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Return the medians of pairs of measurements, and of their ratios."""
    ours, theirs = (statistics.median(column) for column in zip(*measured, strict=True))
    return {"ours": ours, "theirs": theirs, "ratio": statistics.median(a / b for a, b in measured)}


EPOCHS = 4


def epoch_seconds(batch: int, folder: Path, data: Path, *overrides: str) -> float:
    """CPU seconds of the last two epochs of a run in this process."""
    words = ["experiment=octmnist_cnn", "dataset.test_set=all", f"paths.data_dir={data.parent}", "threads=1"]
    words += [f"trainer.batch_size={batch}", f"trainer.max_epochs={EPOCHS}", "trainer.device=cpu"]
    words += ["+callbacks.clock._target_=throughput.Clock", f"hydra.run.dir={folder / os.urandom(4).hex()}"]
    composed = configs.Composer().compose([*words, *overrides])
    execute(composed, ["dl-lab", *words], quiet=True)
    return sum(throughput.Clock.seconds[-2:])


def recording(batch: int, samples: int, rounds: int, folder: Path, data: Path) -> dict[str, dict[str, float]]:
    """The cost of a scalar for each step, and of a checkpoint for each epoch."""
    nothing = ("trainer.log_steps=0", "trainer.checkpoint_seconds=1e9")
    logged = ("trainer.log_steps=1", "trainer.checkpoint_seconds=1e9")
    saved = ("trainer.log_steps=0", "trainer.checkpoint_seconds=1e9", f"trainer.checkpoint_steps={samples // batch}")
    times = [[epoch_seconds(batch, folder, data, *words) for words in (nothing, logged, saved)] for _ in range(rounds)]
    rows = {
        f"log, batch {batch}": [(1 / log, 1 / none) for none, log, _ in times],
        f"checkpoint, batch {batch}": [(1 / save, 1 / none) for none, _, save in times],
    }
    return {name: row(name, measured) for name, measured in rows.items()}


def report(name: str, result: dict[str, float]) -> str:
    """Return a line of the table, with the goal."""
    what, sign, goal = GOALS[name.partition(",")[0]]
    reached = result[what] <= goal if sign == "<=" else result[what] >= goal
    unit = "MiB" if name == "memory" else "s" if sign == "<=" else "runs/s"
    values = " | ".join(f"{result[key]:.3g} {unit}" for key in ("ours", "theirs"))
    shown = f"{sign} {goal:g}{' s' if what == 'ours' else ''}"
    return f"| {name} | {values} | {result['ratio']:.2f} | {shown} | {'yes' if reached else 'NO'} |"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, nargs="*", default=[8, 64])
    parser.add_argument("--samples", type=int, default=4096)
    parser.add_argument("--cold", action="store_true", help="measure with cold caches, too (needs root)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ[ALLOW_VARIABLE] = "throughput"
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # modules are compiled once, as Python does by default
    results: dict[str, dict[str, float]] = {}
    print("| | dl-lab | compared with | ratio | goal | reached |\n|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data, arrays = folder / "octmnist.npz", {}
        for split, (images, labels) in generate_arrays(options.samples, (1, 28, 28), 4).items():
            few = slice(None) if split == "train" else slice(64)
            arrays |= {f"{split}_images": images[few, 0], f"{split}_labels": labels[few]}
        np.savez(data, **arrays)
        parts = [lambda: processes(options.rounds, folder, data, options.cold)]
        parts += [
            lambda batch=batch: recording(batch, options.samples, options.rounds, folder, data)
            for batch in options.batch
        ]
        for part in parts:
            found = part()
            results |= found
            print("\n".join(report(name, result) for name, result in found.items()), flush=True)
    if options.json:
        known = describe_environment([])
        facts = {"torch": torch.__version__, **{key: known[key] for key in ("time", "cpu", "cores", "python")}}
        options.json.write_text(json.dumps({**facts, "rows": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
