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
    reference = config.get("reference") or {}
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
            "seconds": _seconds(status),
            "hardware": _hardware(environment),
            "date": status["ended"][:10],
            "command": _command(folder, environment["command"]),
        }
        for name in chosen
        if name in measured
    ]


def _command(folder: Path, typed: str) -> str:
    """What to type to repeat the run; of a job of a sweep the job alone, by its own overrides."""
    words = typed.split()
    if "-m" in words or "sweep" in words[:2]:
        job = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text())
        typed = " ".join(["dl-lab", *[word for word in job if not word.startswith("lanes=")]])
    return re.sub(r"\S*(paths\.\S+|hydra\.run\.dir\S*)\s*", "", typed).strip()


def _data(dataset: dict[str, Any] | None) -> str:
    if not dataset:
        return ""
    note = f": {dataset['note']}" if dataset["label"] == "part" and dataset.get("note") else ""
    return f"{dataset['name']} ({dataset['label']}{note})"


def _seconds(status: dict[str, Any]) -> int:
    from datetime import datetime

    started, ended = (datetime.fromisoformat(status[key]) for key in ("started", "ended"))
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


def markdown(paths: list[Path]) -> str:
    """All tables as Markdown, a section for each file."""
    parts = []
    for path in paths:
        rows = list(csv.DictReader(path.open(encoding="utf-8")))
        lines = [f"**{path.stem.replace('_', ' ').capitalize()}**", ""]
        lines += [
            "| experiment | data | metric | measured | published | epochs | seed | s |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in rows:
            name = f"{row['experiment']} ({row['id']})" if row["id"] else row["experiment"]
            extra = _delta(row["command"])
            measured, published = (_number(row[key]) for key in ("measured", "published"))
            lines.append(
                f"| {name}{extra} | {row['data']} | {row['metric']} | **{measured}** | {published} "
                f"| {row['epochs']} | {row['seed']} | {row['seconds']} |"
            )
        hardware = sorted({f"{row['hardware']}, {row['date']}" for row in rows})
        parts.append("\n".join([*lines, "", f"Hardware and date: {'; '.join(hardware)}."]))
    return "\n\n".join(parts)


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
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    tables = markdown(sorted((ROOT / "docs" / "results").glob("*.csv")))
    readme.write_text(f"{before}{MARKS[0]}\n\n{tables}\n\n{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
