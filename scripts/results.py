"""Measured results as tables: `record` copies them from run folders, `readme` writes them into README.md.

No figure is typed by hand: rows come from a run's summary.json, env.json and config.yaml.

    python scripts/results.py record outputs/2026-11-21/10-00-00_1a2b3c4d --to docs/results/octmnist.csv
    python scripts/results.py readme
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from pathlib import Path
from typing import Any

import yaml

from dl_lab import catalogue
from dl_lab.config import Composer
from dl_lab.run import read_records
from dl_lab.sweeps.grid import as_mapping

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = (
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
MARKS = ("<!-- results -->", "<!-- end of results -->")


def record(folder: Path, metrics: list[str]) -> list[dict[str, Any]]:
    """The rows of one finished run: the metrics asked for, else those with a published figure, else test/*."""
    summary, environment = (json.loads((folder / f"{name}.json").read_text()) for name in ("summary", "env"))
    status = json.loads((folder / "status.json").read_text())
    if status["state"] != "done":
        raise SystemExit(f"{folder} is {status['state']}, not done: nothing recorded.")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    command = _command(folder, environment["command"])
    dataset = (summary.get("dataset") or {}).get("name", "")
    reference = config.get("reference") or {} if _is_as_published(command, dataset, config) else {}
    measured = summary["metrics"]
    chosen = metrics or [name for name in measured if name in reference]
    chosen = chosen or [name for name in measured if name.startswith("test/")] or list(measured)
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
    "logger",
)


def _is_as_published(command: str, dataset: str, config: dict[str, Any]) -> bool:
    """Whether a run is the experiment of its published figures: that data set (or a part of it), its own settings."""
    words = as_mapping(command.split()[1:])
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
    if "-m" in typed.split() or typed.split()[1:2] == ["sweep"]:
        own = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text())
        typed = " ".join(["dl-lab", *(word for word in own if not word.startswith("lanes="))])
    return re.sub(r"\S*(paths\.\S+|hydra\.run\.dir\S*)\s*", "", typed).strip()


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


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Add rows; a row of the same experiment, data, metric and command replaces the older one."""
    old = list(csv.DictReader(path.open(encoding="utf-8"))) if path.exists() else []
    merged = {tuple(str(row[k]) for k in ("experiment", "data", "metric", "command")): row for row in [*old, *rows]}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(merged.values())


MOST_METRICS = 3


def overview(paths: list[Path]) -> str:
    """One row for each experiment and data set: of its own settings, else of the nearest recorded, with what differs.

    The headline metrics: those with a reference first.
    """
    lines = ["| experiment | data | measured (reference) | epochs | seed | s |", "|---|---|---|---|---|---|"]
    notes = []
    for path in paths:
        rows = _rows(path)
        runs: dict[tuple[str, str], dict[str, list[dict[str, str]]]] = {}
        for row in rows:
            commands = runs.setdefault((row["experiment"], row["data"]), {})
            commands.setdefault(row["command"], []).append(row)
        for (name, data), commands in runs.items():
            command, found = min(commands.items(), key=lambda item: (len(_delta(item[0]).split()), _seed(item[1])))
            shown = sorted(found, key=lambda row: (not row["published"], _rank(row["metric"])))[:MOST_METRICS]
            own = f" ({found[0]['id']})" if found[0]["id"] else ""
            facts = " | ".join(found[0][key] for key in ("epochs", "seed", "seconds"))
            lines.append(f"| {name}{own}{_delta(command)} | {data} | {'; '.join(map(_cell, shown))} | {facts} |")
        hardware = sorted({f"{row['hardware']}, {row['date']}" for row in rows})
        notes.append(f"{path.stem}: {'; '.join(hardware)}")
    return "\n".join([*lines, "", "Hardware and date: " + ". ".join(notes) + ". Several runs shared the two cores."])


def _seed(rows: list[dict[str, str]]) -> int:
    return int(rows[0]["seed"] or 0)


def _rank(metric: str) -> int:
    split = metric.partition("/")[0]
    return ("test", "val").index(split) if split in ("test", "val") else 2


def _cell(row: dict[str, str]) -> str:
    published = f" ({_number(row['published'])})" if row["published"] else ""
    return f"{row['metric']} **{_number(row['measured'])}**{published}"


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def everything(paths: list[Path]) -> str:
    """All rows, a section for each file."""
    parts = ["# Results", "Every measured row, with its command; written by `scripts/results.py readme`."]
    for path in paths:
        lines = [f"## {path.stem.replace('_', ' ').capitalize()}", ""]
        lines += [
            "| command | data | metric | measured | reference | source | epochs | seed | s |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for row in _rows(path):
            measured, published = (_number(row[key]) for key in ("measured", "published"))
            lines.append(
                f"| `{row['command']}` | {row['data']} | {row['metric']} | {measured} | {published} "
                f"| {row['source']} | {row['epochs']} | {row['seed']} | {row['seconds']} |"
            )
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _delta(command: str) -> str:
    words = [w for w in command.split()[1:] if not w.startswith(("experiment=", "dataset=", "threads=", "seed="))]
    return f" `{' '.join(words)}`" if words else ""


def _number(text: str) -> str:
    return f"{float(text):.4f}" if text else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    recording = verbs.add_parser("record")
    recording.add_argument("runs", nargs="+", type=Path)
    recording.add_argument("--to", type=Path, required=True)
    recording.add_argument("--metrics", nargs="*", default=[])
    verbs.add_parser("readme")
    options = parser.parse_args()
    if options.verb == "record":
        write(options.to, [row for run in options.runs for row in record(run, options.metrics)])
        return
    paths = sorted((ROOT / "docs" / "results").glob("*.csv"))
    (ROOT / "docs" / "results.md").write_text(everything(paths), encoding="utf-8")
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    readme.write_text(f"{before}{MARKS[0]}\n\n{overview(paths)}\n\n{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
