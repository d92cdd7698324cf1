"""What the doctor says of the shipped experiments.

    python scripts/ward/experiments.py OUTPUT_FOLDER [--updates 1000] [--seconds 300] [--only NAME ...]

Trains each experiment at its own settings with its own data, for at most so many updates, and examines the run. An
experiment whose data are not here runs in its smoke form. One that takes longer than --seconds is interrupted, and the
doctor reads what it recorded. A finished run is not trained again. Prints the findings and writes experiments.json.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from dl_lab import configs
from dl_lab.show.doctor.diagnose import diagnose
from dl_lab.types import UserError

CONF = Path(__file__).resolve().parents[2] / "conf"
QUIET = ["threads=1", "logger=none", "callbacks.curves=null"]


def main() -> None:
    """Train the experiments for some updates, and print what the doctor says about each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--only", nargs="+", default=[])
    options = parser.parse_args()
    rows = []
    for name in options.only or list_trainings():
        row = examine(name, options.folder.resolve() / name, options.updates, options.seconds)
        rows.append(row)
        print(f"{name:36} {row['form']:12} {row['findings']}", flush=True)
    (options.folder / "experiments.json").write_text(json.dumps(rows, indent=1) + "\n")


def list_trainings() -> list[str]:
    """The experiments that train with a trainer, by name."""
    composer = configs.Composer()
    names = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
    return [name for name in names if "trainer" in composer.compose([f"experiment={name}"]).config]


def examine(name: str, folder: Path, n_updates: int, seconds: int) -> dict[str, object]:
    """Train one experiment, or take its finished run, and name what the doctor finds."""
    forms = {
        "own data": [f"trainer.max_steps={n_updates}"],
        "smoke": ["profile=smoke"],
    }
    row: dict[str, object] = {"experiment": name, "form": "failed", "findings": [], "seen": []}
    for form, words in forms.items():
        run = folder / form.replace(" ", "_")
        if not (run / "status.json").exists():
            train([f"experiment={name}", *words, *QUIET, f"hydra.run.dir={run}"], seconds)
        if not (run / "metrics.jsonl").exists():
            continue
        try:
            findings = diagnose(run)
        except UserError as error:
            row["seen"] = [str(error)]
            continue
        row |= {"form": form, "findings": [f.name for f in findings], "seen": [f.seen for f in findings]}
        break
    return row


def train(words: list[str], seconds: int) -> None:
    """Run dl-lab; interrupt it, as Ctrl-C does, when its time is over."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dl_lab", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        process.communicate()


if __name__ == "__main__":
    main()
