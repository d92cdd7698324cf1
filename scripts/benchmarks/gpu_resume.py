"""Exact resume on a device: does a training that was cut and resumed have the bits of one that was not?

    python scripts/benchmarks/gpu_resume.py [--device cuda] [--samples 4096]

Both trainings are deterministic (`deterministic=true`). One runs through; the other is interrupted, as Ctrl-C would do
it, in the middle of its second epoch and then resumed by `dl-lab resume`. Exit status 0: metrics and weights are equal.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from dl_lab import cli, configs
from dl_lab.configs.targets import ALLOW_VARIABLE
from dl_lab.jobs.one import execute
from dl_lab.training.session import Callback
from dl_lab.types import Interrupted

EPOCHS = 4


class Cut(Callback):
    """Interrupts the process once, in the middle of the second epoch."""

    def update_end(self, session: Any) -> None:
        """Interrupt the run in the middle of its second epoch."""
        if session.step == session.n_batches + session.n_batches // 2:
            os.kill(os.getpid(), signal.SIGINT)


def main() -> int:
    """Compare an interrupted and resumed run with an uninterrupted one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--samples", type=int, default=4096)
    options = parser.parse_args()
    sys.modules["gpu_resume"] = sys.modules[__name__]
    Cut.__module__ = "gpu_resume"
    os.environ[ALLOW_VARIABLE] = "gpu_resume"
    job = [
        "experiment=octmnist_cnn",
        "dataset.source=generated",
        f"dataset.n_generated={options.samples}",
        "trainer.batch_size=16",
        f"trainer.max_epochs={EPOCHS}",
        f"trainer.device={options.device}",
        "deterministic=true",
    ]
    with tempfile.TemporaryDirectory() as folder:
        whole, cut = Path(folder) / "whole", Path(folder) / "cut"
        execute(configs.Composer().compose([*job, f"hydra.run.dir={whole}"]), ["dl-lab", *job], quiet=True)
        words = [*job, f"hydra.run.dir={cut}", "+callbacks.cut._target_=gpu_resume.Cut"]
        try:
            execute(configs.Composer().compose(words), ["dl-lab", *words], quiet=True)
            print("The training was not interrupted: there is nothing to compare.")
            return 1
        except Interrupted:
            print("Interrupted; now resumed.")
        if status := cli.main(["resume", str(cut)]):
            return status
        names = ("metrics.jsonl", "checkpoints/last.safetensors", "checkpoints/best.safetensors")
        different = [name for name in names if (whole / name).read_bytes() != (cut / name).read_bytes()]
    print(f"{options.device}: {'different: ' + ', '.join(different) if different else 'metrics and weights are equal'}")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
