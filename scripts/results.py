"""Run experiments at full length, and copy what they measured into a table of docs/results/.

No figure is typed by hand: rows come from a run's summary.json, env.json and config.yaml. The site makes its result
pages from these tables (scripts/docs/result_pages.py): mean and spread over the seeds, and whether the data were the
full ones, a copy or a part.

    python scripts/results.py record outputs/2026-11-21/10-00-00_1a2b3c4d --to docs/results/octmnist_cnn.csv
    python scripts/results.py run --outputs outputs/results --dry-run
    python scripts/results.py run imdb_rnn imdb_lstm threads=1 --outputs outputs/results

`run` does what is missing, the shortest first as far as earlier rows tell: an experiment without a finished run at its
own settings runs, a stopped one is resumed, and one that takes less than --minutes runs with three seeds. The same
command again goes on where it stopped. An experiment whose data are not here is left out; where a part or a stand-in of
them is here, that is used, and its rows say so.
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dl_lab.configs import catalogue
from dl_lab.configs.compose import Composer
from dl_lab.jobs import reproduction
from dl_lab.jobs.reproduction import Item
from dl_lab.runs import records
from dl_lab.runs.anchors import load_yaml
from dl_lab.runs.files import read_records
from dl_lab.sweeps.values import as_mapping
from dl_lab.types import Interrupted

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"
COLUMNS: tuple[str, ...] = (
    "id",
    "experiment",
    "data",
    "metric",
    "measured",
    "published",
    "source",
    "seed",
    "epochs",
    "seconds",
)
COLUMNS += ("hardware", "date", "command")
RUNNING = "train/running_accuracy"  # what a loop prints while it trains


def record(folder: Path, metrics: list[str]) -> list[dict[str, Any]]:
    """The rows of one finished run: the metrics asked for, else those with a published figure and test/*, else all."""
    if not (folder / "status.json").exists():
        raise SystemExit(f"{folder} is no run folder.")
    status = json.loads((folder / "status.json").read_text())
    if status["state"] != "done":
        raise SystemExit(f"{folder} is {status['state']}, not done: nothing recorded.")
    summary, environment = (json.loads((folder / f"{name}.json").read_text()) for name in ("summary", "env"))
    config = load_yaml((folder / "config.yaml").read_text())
    command = _command(folder, environment["command"])
    dataset = (summary.get("dataset") or {}).get("name", "")
    reference = config.get("reference") or {} if _is_as_published(command, dataset, config) else {}
    measured = summary["metrics"]
    own = [name for name in measured if name in reference or name.startswith("test/") or name == RUNNING]
    chosen = metrics or own or list(measured)
    return [
        {
            "id": config.get("id") or "",
            "experiment": environment.get("choices", {}).get("experiment", ""),
            "data": _data(summary.get("dataset")),
            "metric": name,
            "measured": measured[name],
            "published": reference.get(name, {}).get("value", ""),
            "source": reference.get(name, {}).get("source", ""),
            "seed": config["seed"],
            "epochs": summary.get("epochs", ""),
            "seconds": _seconds(folder, status),
            "hardware": _hardware(environment),
            "date": status["ended"][:10],
            "command": command,
        }
        for name in chosen
        if name in measured
    ]


HARMLESS = (
    "experiment",
    "dataset",
    "threads",
    "seed",
    "dataset.test_set",
    "trainer.device",
    "procedure.clock",
    "procedure.cost.clock",
    "logger",
)


def _is_as_published(command: str, dataset: str, config: dict[str, Any]) -> bool:
    """Whether a run is the experiment of its published figures: that data set (or a part of it), its own settings."""
    words = as_mapping(shlex.split(command)[1:])
    experiment = catalogue.experiment(words.get("experiment", ""))
    if experiment is None or (dataset and not experiment.dataset.startswith(dataset)):
        return False
    own = Composer().compose([f"experiment={experiment.name}"]).config
    changed = [key for key in words if key not in HARMLESS and not key.startswith(("~", "callbacks."))]
    return all(_at(config, key) == _at(own, key) for key in changed)


def _at(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config.get(part) if isinstance(config, dict) else None
    return config


def _command(folder: Path, typed: str) -> str:
    """The command of this run alone, without folders: a sweep's job has the sweep's command, and its own overrides."""
    words = shlex.split(typed)
    if "-m" in words or words[1:2] == ["sweep"]:
        own = load_yaml((folder / ".hydra" / "overrides.yaml").read_text())
        words = ["dl-lab", *(word for word in own if not word.startswith("lanes="))]
    words = [word for word in words if not word.startswith(("paths.", "hydra.run.dir"))]
    if words[1:2] == ["reproduce"]:
        words[1:3] = [f"experiment={words[2]}"]
    return shlex.join(words)


def _data(dataset: dict[str, Any] | None) -> str:
    if not dataset:
        return ""
    note = f": {dataset['note']}" if dataset["label"] == "part" and dataset.get("note") else ""
    return f"{dataset['name']} ({dataset['label']}{note})"


def _seconds(folder: Path, status: dict[str, Any]) -> int | str:
    """Of the whole run; "" for a resumed one, whose status knows its last sitting only."""
    from datetime import datetime

    started, ended = (datetime.fromisoformat(status[key]) for key in ("started", "ended"))
    first = next(iter(read_records(folder / "timings.jsonl")), None)
    if first is not None and datetime.fromisoformat(first["time"]) < started:
        return ""
    return round((ended - started).total_seconds())


def _hardware(environment: dict[str, Any]) -> str:
    devices = environment.get("devices", {})
    return ", ".join(devices.get("gpus") or [f"{devices.get('threads', 1)} thread(s) of {environment['cpu']}"])


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table; [] where it is not there yet."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Add rows; a row of the same experiment, data, metric, seed and settings replaces the older one."""
    merged: dict[tuple[str, ...], dict[str, Any]] = {_key(row): row for row in [*read_rows(path), *rows]}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(COLUMNS), lineterminator="\n")
        writer.writeheader()
        writer.writerows(merged.values())


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    """What tells a row from others. The words of its command count in any order, without the threads and the seed."""
    words = [word for word in shlex.split(str(row["command"]))[1:] if not word.startswith(("threads=", "seed="))]
    return (*(str(row[key]) for key in ("experiment", "data", "metric", "seed")), *sorted(words))


# -- running what is missing ------------------------------------------------------------------------------------------

STAND_INS = {"octmnist": "oct2017", "food11": "food101_part"}  # where the official files are not here
AREAS = {  # the table of an experiment that has no row yet, by its data set
    "ag_news": "text",
    "ag_news_tokens": "text",
    "air_quality": "series",
    "cifar10": "images",
    "cifar10_gray": "series",
    "digits_unsplit": "linear",
    "dogs_food_vehicles": "images",
    "food11": "transfer",
    "imdb": "text",
    "imdb_padova": "text",
    "lj_speech": "speech",
    "mnist": "series",
    "nyc_taxi": "series",
    "octmnist": "linear",
    "tone_speech": "speech",
}
PROCEDURES = {  # the same by its procedure, where that says more
    "analogies": "text",
    "attention_cost": "attention",
    "attention_error": "attention",
    "attention_lab": "attention",
    "boolean_band": "linear",
    "gradient_flow": "gradients",
    "transfer": "transfer",
    "truth_table": "linear",
}
N_SEEDS = 3


def area(experiment: str) -> str:
    """The table of an experiment: where it has rows already, else by its procedure or its data set.

    Raises:
        KeyError: Nothing says which table it belongs to.
    """
    for path in sorted(RESULTS.glob("*.csv")):
        if any(row["experiment"] == experiment for row in read_rows(path)):
            return path.stem
    entry = catalogue.experiment(experiment)
    if entry is None:
        raise KeyError(experiment)
    return PROCEDURES.get(entry.procedure) or AREAS[entry.dataset]


def earlier_seconds(experiment: str) -> float:
    """How long the experiment took at its own settings, by its rows; infinite where no row tells."""
    times = [
        float(row["seconds"])
        for row in read_rows(RESULTS / f"{area(experiment)}.csv")
        if row["experiment"] == experiment and row["seconds"] and _has_own_settings(row["command"])
    ]
    return max(times, default=float("inf"))


def _has_own_settings(command: str) -> bool:
    """Whether a row's command changes nothing of its experiment but the data."""
    return all(word.startswith("dataset=") for word in reproduction.changes(shlex.split(command)[1:]))


def planned(names: Sequence[str], outputs: Path, words: Sequence[str], n_seeds: int = 1) -> list[Item]:
    """What each experiment still needs: on its own data where they are here, else on a part of them."""
    composer, found = Composer(), records.collect(outputs)
    items = []
    for name in names:
        own = reproduction.plan(composer, [name], found, words, n_seeds)
        entry = catalogue.experiment(name)
        stand_in = STAND_INS.get(entry.dataset if entry else "")
        if stand_in and any(item.by_hand or item.to_fetch for item in own):
            own = reproduction.plan(composer, [name], found, [*words, f"dataset={stand_in}"], n_seeds)
        items += own
    return items


def can_run(item: Item) -> bool:
    """Whether everything that the run reads is here."""
    return item.step in ("run", "resume") and not item.to_fetch and not item.weights


def run(names: Sequence[str], outputs: Path, words: Sequence[str], minutes: float, until: str) -> None:
    """Run what is missing, one after the other, and record each run when it ends."""
    for name in sorted(names, key=earlier_seconds):
        (first,) = planned([name], outputs, words)
        if not _step(first, outputs, until):
            continue
        (first,) = planned([name], outputs, words)
        if first.record is None or first.step != "done":
            continue
        _record(first)
        if (first.record.seconds or 0) > 60 * minutes:
            continue
        for i in range(1, N_SEEDS):
            if not _step(planned([name], outputs, first.words, N_SEEDS)[i], outputs, until):
                break
            other = planned([name], outputs, first.words, N_SEEDS)[i]
            if other.record is None or other.step != "done":
                break
            _record(other)
            if other.record.metrics == first.record.metrics:
                break  # nothing here is drawn: another seed gives the same figures


def _step(item: Item, outputs: Path, until: str) -> bool:
    """Do what the item needs; False where it cannot run, or the time is over."""
    if item.step == "done":
        return True
    if not can_run(item):
        print(f"{item.experiment}: left out ({_reason(item)})", flush=True)
        return False
    if until and time.strftime("%H:%M", time.gmtime()) >= until:
        print(f"{item.experiment}: not begun after {until}", flush=True)
        return False
    print(f"{item.experiment}, seed {item.seed}", flush=True)
    flags = [] if item.step == "resume" else [f"paths.output_dir={outputs}"]
    if reproduction.perform(item, flags) == Interrupted.exit_code:
        raise SystemExit("Interrupted. The same command goes on.")
    return True


def _record(item: Item) -> None:
    if item.record is not None:
        write(RESULTS / f"{area(item.experiment)}.csv", record(item.record.folder, []))


def _reason(item: Item) -> str:
    files = [*item.by_hand, *(file.path for file, _ in item.to_fetch)]
    if item.weights:
        files.append(f"ImageNet weights of {item.weights}")
    return f"not here: {', '.join(files)}" if files else item.step


def show(items: Sequence[Item]) -> str:
    """What `run` would do."""
    lines = []
    for item in sorted(items, key=lambda item: earlier_seconds(item.experiment)):
        step = item.step if item.step == "done" or can_run(item) else f"left out ({_reason(item)})"
        seconds = earlier_seconds(item.experiment)
        known = f"about {seconds / 60:.0f} min by its rows" if seconds < float("inf") else "time unknown"
        lines.append(f"{item.experiment:<36} seed {item.seed:<4} {step}; {known}; {area(item.experiment)}.csv")
    return "\n".join(lines)


def main() -> None:
    """Run the verb of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    recording = verbs.add_parser("record")
    recording.add_argument("runs", nargs="+", type=Path)
    recording.add_argument("--to", type=Path, required=True)
    recording.add_argument("--metrics", nargs="*", default=[])
    running = verbs.add_parser("run", help="run what is missing at full length, and record it")
    running.add_argument("names", nargs="*", metavar="EXPERIMENT|key=value", help="all where none is named")
    running.add_argument("--outputs", type=Path, required=True, metavar="DIR")
    running.add_argument("--minutes", type=float, default=10, metavar="N", help="three seeds below this time (10)")
    running.add_argument("--until", default="", metavar="HH:MM", help="begin nothing after this time (UTC)")
    running.add_argument("--dry-run", action="store_true", help="show what would run")
    options = parser.parse_args()
    if options.verb == "run":
        words = [word for word in options.names if "=" in word]
        names = [name for name in options.names if "=" not in name] or [one.name for one in catalogue.experiments()]
        if options.dry_run:
            print(show(planned(names, options.outputs, words)))
        else:
            run(names, options.outputs, words, options.minutes, options.until)
        return
    write(options.to, [row for run in options.runs for row in record(run, options.metrics)])


if __name__ == "__main__":
    main()
