"""Write the two tables of README.md from docs/results/: speed, and results at full length on full data.

No figure is typed by hand; a test compares the README with what this script makes.

    python scripts/readme_tables.py
"""

from __future__ import annotations

import csv
import json
import re
import statistics
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"
CONTESTANTS = {
    "tuned": "hand-written PyTorch loop, tuned",
    "dl-lab": "**dl-lab**, with TensorBoard, checkpoints and validation",
    "coursework": "hand-written loop of a coursework",
    "lightning": "Lightning, default Trainer",
}
# What the README shows: (table, experiment, data set, metric, how the metric is called there)
SHOWN = (
    ("linear", "digits_softmax", "digits (full)", "test/accuracy", "accuracy"),
    ("linear", "octmnist_feedforward", "mnist (full)", "test/accuracy", "accuracy"),
    ("octmnist_cnn", "octmnist_cnn", "mnist (full)", "test/accuracy", "accuracy"),
    ("text", "imdb_rnn", "imdb (full)", "test/accuracy", "accuracy"),
    ("text", "imdb_lstm", "imdb (full)", "test/accuracy", "accuracy"),
    ("text", "imdb_gru", "imdb (full)", "test/accuracy", "accuracy"),
    ("series", "air_lstm", "air_quality (full)", "test/r2", "R²"),
    ("series", "air_transformer", "air_quality (full)", "test/r2", "R²"),
    ("series", "taxi_lstm_ae", "nyc_taxi (full)", "test/accuracy", "accuracy"),
    ("series", "mnist_vae", "mnist (full)", "train/loss", "training loss"),
)
OWN_LENGTH = re.compile(r"dl-lab experiment=\w+( dataset=\w+| threads=\d+| seed=\d+| callbacks[.\w]*=\w+)*")


def speed() -> str:
    """Samples a second of one thread, for four contestants."""
    measured = json.loads((RESULTS / "benchmarks" / "throughput.json").read_text(encoding="utf-8"))
    lines = ["| training samples a second (one CPU thread) | batch 8 | batch 64 | batch 512 |", "|---|---|---|---|"]
    for name, words in CONTESTANTS.items():
        cells = [f"{measured[batch][name]['samples_per_s']:,.0f}" for batch in ("8", "64", "512")]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    note = "A convolutional network of 224,892 parameters; all contestants reach the same losses. More in"
    return "\n".join([*lines, "", f"{note} [docs/speed.md](docs/speed.md)."])


def results() -> str:
    """Ten rows that were measured at full length on full data: the mean over the seeds, and their number."""
    lines = ["| experiment | data | test metric | measured | seeds | published |", "|---|---|---|---|---|---|"]
    for table, experiment, data, metric, words in SHOWN:
        rows = find(table, experiment, data, metric)
        measured = statistics.fmean(float(row["measured"]) for row in rows)
        published = f"{float(rows[0]['published']):.3f}" if rows[0]["published"] else ""
        name = data.partition(" ")[0]
        lines.append(f"| `{experiment}` | {name} | {words} | {measured:.3f} | {len(rows)} | {published} |")
    note = "Means over the seeds, full length, full data. [All results](docs/results/index.md)"
    return "\n".join([*lines, "", f"{note} with commands, seeds, hardware and dates."])


def find(table: str, experiment: str, data: str, metric: str) -> list[dict[str, str]]:
    """Return the measured rows of an experiment with its own settings, one for each seed.

    Raises:
        LookupError: There is none.
    """
    found: dict[str, dict[str, str]] = {}
    with (RESULTS / f"{table}.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            wanted = (row["experiment"], row["data"], row["metric"]) == (experiment, data, metric)
            if wanted and OWN_LENGTH.fullmatch(row["command"]):
                found[row["seed"]] = row
    if not found:
        raise LookupError(f"{table}.csv has no full-length row of {experiment} on {data} with {metric}.")
    return list(found.values())


def fill(text: str) -> str:
    """README.md with both tables in their places."""
    for name, make in (("speed", speed), ("results", results)):
        start = f"<!-- made by scripts/readme_tables.py: {name} -->\n"
        before, _, rest = text.partition(start)
        _, _, after = rest.partition("<!-- end -->")
        text = f"{before}{start}{make()}\n<!-- end -->{after}"
    return text


def main() -> None:
    """Fill the tables of README.md."""
    readme = ROOT / "README.md"
    readme.write_text(fill(readme.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
