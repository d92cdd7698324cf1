"""What `dl-lab tune` finds on this machine for three jobs. One entry for each machine is kept.

    python scripts/benchmarks/tuning.py [--seconds 90] [--json docs/results/benchmarks/tuning.json]

The machine must have nothing else to do. Nothing is written for later trainings (--dry-run).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TABLE = Path(__file__).resolve().parents[2] / "docs" / "results" / "benchmarks" / "tuning.json"
JOBS = (
    "dataset=digits model=mlp",
    "experiment=octmnist_cnn dataset.source=generated",
    "experiment=imdb_lstm dataset.source=generated",
)
COLUMNS = "110"  # a page of the documentation is as wide


def tune(job: str, seconds: float) -> str:
    """Return the output of `dl-lab tune` for a job.

    Raises:
        RuntimeError: The command failed; the message is its own.
    """
    words = [sys.executable, "-m", "dl_lab", "tune", *job.split(), "--dry-run", "--seconds", str(seconds)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": COLUMNS})
    if done.returncode:
        raise RuntimeError(done.stderr)
    return "\n".join(line.rstrip() for line in done.stdout.splitlines())


def add(machines: list[dict[str, Any]], here: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the machines with this one's entry, in place of an older entry of the same hardware."""
    return [one for one in machines if one["hardware"] != here["hardware"]] + [here]


def main() -> None:
    """Tune each job, and write this machine's entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=90)
    parser.add_argument("--json", type=Path, default=TABLE)
    options = parser.parse_args()
    import torch

    from dl_lab.runs.environment import describe_environment

    cpu = describe_environment([])["cpu"]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    here: dict[str, Any] = {
        "hardware": f"{cpu} ({torch.backends.cpu.get_cpu_capability()}), {os.cpu_count()} cores, {gpu}",
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "seconds": options.seconds,
        "jobs": {},
    }
    for job in JOBS:
        here["jobs"][job] = tune(job, options.seconds)
        print(f"dl-lab tune {job}\n{here['jobs'][job]}\n", flush=True)
    machines = json.loads(options.json.read_text(encoding="utf-8")) if options.json.exists() else []
    options.json.write_text(json.dumps(add(machines, here), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
