"""What the doctor says of the shipped experiments.

    python scripts/ward/experiments.py OUTPUT_FOLDER [--updates 600] [--seconds 300] [--only NAME ...]
        [--change KEY=VALUE ...] [--table FILE]

Trains each experiment at its own settings with its own data, for at most so many updates, and examines the run. Where
only a part or a stand-in of the data is here, it is used, and random weights in place of ImageNet's. An experiment
whose data are not here at all runs in its smoke form. One that computes for longer than --seconds is interrupted. If it
was fast, it begins again with half of the updates that it had made, since only a training that ends has the doctor's
last look. Else the doctor reads what was recorded. A finished run is not trained again. --change sets keys of all named
experiments: `--change trainer.batch_size=2` lets a large net make enough updates for the doctor's looks. Prints the
findings; --table writes them as CSV, with how many updates were made and how often the doctor looked.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import results

from dl_lab import configs
from dl_lab.runs.files import read_json, read_losses
from dl_lab.show.doctor.diagnose import diagnose
from dl_lab.show.doctor.evidence import VITALS_FILE
from dl_lab.training.vitals import LEAST_UPDATES

CONF = Path(__file__).resolve().parents[2] / "conf"
COLUMNS: tuple[str, ...] = ("experiment", "changed", "data", "updates", "looks", "findings", "seen")
QUIET = ["threads=1", "logger=none", "callbacks.curves=null"]


def main() -> None:
    """Train the experiments for some updates, and print what the doctor says about each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--updates", type=int, default=600)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--change", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--table", type=Path, metavar="FILE")
    options = parser.parse_args()
    rows = []
    for name in options.only or list_trainings():
        row = examine(name, options.folder.resolve() / name, options.updates, options.seconds, options.change)
        rows.append(row)
        print(f"{name:36} {row['data']:12} {row['findings']}", flush=True)
    if options.table:
        with options.table.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(COLUMNS), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def list_trainings() -> list[str]:
    """The experiments that train with a trainer, by name."""
    composer = configs.Composer()
    names = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
    return [name for name in names if "trainer" in composer.compose([f"experiment={name}"]).config]


def examine(name: str, folder: Path, n_updates: int, seconds: int, changed: list[str]) -> dict[str, object]:
    """Train one experiment, or take its finished run, and name what the doctor finds.

    A comparison of several nets has a run below it for each of them; all of them are examined.
    """
    (item,) = results.planned([name], folder / "none", [])
    random_weights = ["procedure.weights=random"] if item.weights else []
    forms = {
        "own data": [*item.words, *random_weights, *changed, f"trainer.max_steps={n_updates}"],
        "smoke": ["profile=smoke"],
    }
    row: dict[str, object] = {
        "experiment": name,
        "changed": " ".join(changed),
        "data": "failed",
        "updates": 0,
        "looks": 0,
        "findings": "",
        "seen": "",
    }
    for form, words in forms.items():
        run = folder / form.replace(" ", "_")
        everything = [f"experiment={name}", *words, *QUIET, f"hydra.run.dir={run}"]
        if not (run / "status.json").exists():
            train(everything, seconds)
        n_made = count_updates(run)
        if n_made >= 2 * LEAST_UPDATES and read_state(run) == "interrupted":
            shutil.rmtree(run)
            everything = [word for word in everything if not word.startswith("trainer.max_steps")]
            train([*everything, f"trainer.max_steps={n_made // 2}"], float("inf"))
        records = [path for name in ("metrics.jsonl", VITALS_FILE) for path in run.rglob(name)]
        trained = sorted({path.parent for path in records})
        if not trained:
            continue
        findings = [finding for one in trained for finding in diagnose(one)]
        dataset = (read_json(run / "status.json") or {}).get("dataset") or {}
        return row | {
            "data": dataset.get("label", "none"),
            "updates": count_updates(run),
            "looks": sum(len(path.read_text().splitlines()) for path in records if path.name == VITALS_FILE),
            "findings": " ".join(finding.name for finding in findings),
            "seen": " ".join(finding.seen for finding in findings),
        }
    return row


def read_state(run: Path) -> str:
    """The state of a run."""
    return str((read_json(run / "status.json") or {}).get("state"))


def count_updates(run: Path) -> int:
    """The updates of a run. A comparison of several nets has runs below it: those of the first one."""
    return next((n for n in map(len, map(read_losses, [run, *sorted(run.glob("*/"))])) if n), 0)


def train(words: list[str], seconds: float) -> None:
    """Run dl-lab; interrupt it, as Ctrl-C does, when its CPU time is over: a busy machine changes no finding."""
    command = [sys.executable, "-m", "dl_lab", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        spent = subprocess.run(["ps", "-o", "cputimes=", "-p", str(process.pid)], capture_output=True, check=False)
        if int(spent.stdout or 0) > seconds:
            process.send_signal(signal.SIGINT)
            process.wait()
        time.sleep(1)


if __name__ == "__main__":
    main()
