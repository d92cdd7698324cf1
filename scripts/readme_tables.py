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
# The families of the speed table, and what they are called there.
FAMILIES = {
    "CNN (OCTMNIST)": "convolutional network, images",
    "LSTM (IMDB)": "LSTM, texts",
    "Transformer encoder (AG News)": "Transformer encoder, texts",
    "VAE (MNIST)": "variational autoencoder, images",
}
CONTESTANTS = {
    "tuned": "the best hand-written loop",
    "notebook": "a notebook's loop",
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
    """Four families of models: how many times as fast as its peers a whole run of dl-lab is."""
    report = json.loads((RESULTS / "benchmarks" / "families.json").read_text(encoding="utf-8"))
    lines = [f"| dl-lab is so many times as fast as | {' | '.join(CONTESTANTS.values())} |", "|---|---|---|---|"]
    for name, words in FAMILIES.items():
        ratios = report["families"][name]["ratios"]
        cells = [f"{ratios[other]['long']['median']:.2f}" for other in CONTESTANTS]
        lines.append(f"| {words} | {' | '.join(cells)} |")
    note = (
        "Whole runs of three epochs on one CPU thread, which reach the same losses. Only dl-lab's run writes\n"
        "checkpoints, TensorBoard and figures: that costs up to a second a run, an update costs no more than in the\n"
        "best loop. All families, short runs, memory and hardware: [docs/speed.md](docs/speed.md)."
    )
    return "\n".join([*lines, "", note])


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
