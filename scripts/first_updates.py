"""Which experiments raise their training loss in the first hundred updates? A look at each one's own settings.

    python scripts/first_updates.py --outputs outputs/first_updates [--read] [EXPERIMENT ...]

Each experiment that trains begins as `dl-lab experiment=NAME` does, on its own data where they are here, else on a part
or a stand-in of them, and is stopped after 100 updates (or --seconds). Each has a row in
docs/results/benchmarks/first_updates.csv: the loss of the first update, the highest mean of five updates in a row, and
the mean of the last ten. A loss "rises" where that highest mean is above 1.5 times the first loss, or the last mean is
above the first loss. --read trains nothing: it judges the runs in the folder, a subfolder for each experiment, as
scripts/ward/experiments.py leaves them.
"""

from __future__ import annotations

import argparse
import csv
import signal
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import results

import dl_lab
from dl_lab.configs import catalogue
from dl_lab.configs.compose import Composer
from dl_lab.runs.files import read_json, read_losses
from dl_lab.runs.find import find_runs
from dl_lab.types import Interrupted, UserError

TABLE = results.RESULTS / "benchmarks" / "first_updates.csv"
COLUMNS: tuple[str, ...] = ("experiment", "data", "updates", "first", "highest", "last", "loss")
N_UPDATES = 100
IN_A_ROW = 5
LAST = 10
HIGH = 1.5


class StopAt:
    """A callback that asks the run to stop, as Ctrl-C does, after some updates or seconds."""

    def __init__(self, updates: int, seconds: float) -> None:
        self.updates = updates
        self.seconds = seconds
        self.started: float | None = None  # the first update: loading the data does not count

    def update_end(self, session: Any) -> None:
        """Ask the run to stop when it is time."""
        self.started = self.started or time.monotonic()
        if session.step == self.updates or time.monotonic() - self.started > self.seconds:
            signal.raise_signal(signal.SIGTERM)


def judge(losses: Sequence[float]) -> dict[str, Any]:
    """The row's figures for the losses of the first updates."""
    losses = losses[:N_UPDATES]
    windows = [losses[i : i + IN_A_ROW] for i in range(max(1, len(losses) - IN_A_ROW + 1))]
    highest = max(map(statistics.fmean, windows))
    last = statistics.fmean(losses[-LAST:])
    rises = highest > HIGH * abs(losses[0]) or (len(losses) > LAST and last > losses[0])
    figures = {"first": losses[0], "highest": highest, "last": last}
    shown = {name: f"{value:.4g}" for name, value in figures.items()}
    return {"updates": len(losses), **shown, "loss": "rises" if rises else "falls"}


def look(experiment: str, outputs: Path, seconds: float) -> dict[str, Any] | None:
    """The row of one experiment; None where it trains nothing, or its data are not here."""
    (item,) = results.planned([experiment], outputs / "none", [])
    if item.by_hand or item.to_fetch:
        return None
    words = [f"experiment={experiment}", *item.words]
    if item.weights:
        words.append("procedure.weights=random")
    if "trainer" not in Composer().compose(words).config["procedure"]:
        return None
    folder = outputs / experiment
    stop = f"+callbacks.stop={{_target_: first_updates.StopAt, updates: {N_UPDATES}, seconds: {seconds}}}"
    try:
        dl_lab.train([*words, f"paths.output_dir={folder}", "logger=none", stop], allow=["first_updates"])
    except Interrupted:
        pass
    except UserError as error:
        print(f"{experiment}: {error}", flush=True)
    return read(experiment, folder)


def read(experiment: str, folder: Path) -> dict[str, Any] | None:
    """The row of an experiment's newest run below a folder; None where no run has made an update."""
    runs = find_runs(folder)
    losses = read_losses(runs[-1]) if runs else []
    if not losses:
        return None
    data = (read_json(runs[-1] / "status.json") or {}).get("dataset")
    name = f"{data.get('name', '')} ({data.get('label', '')})" if data else ""
    return {"experiment": experiment, "data": name, **judge(losses)}


def main() -> None:
    """Run the first updates of each experiment, and judge their losses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="EXPERIMENT", help="all where none is named")
    parser.add_argument("--outputs", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seconds", type=float, default=60, metavar="N", help="stop a slower one after N seconds (60)")
    parser.add_argument("--read", action="store_true", help="judge the runs that are there, train nothing")
    options = parser.parse_args()
    names = options.names or [entry.name for entry in catalogue.experiments()]
    rows: dict[str, dict[str, Any]] = {row["experiment"]: row for row in results.read_rows(TABLE)}
    for name in names:
        folder = options.outputs / name
        row = read(name, folder) if options.read else look(name, options.outputs, options.seconds)
        if row is None:
            continue
        rows[name] = row
        print(*row.values(), flush=True)
        with TABLE.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(COLUMNS), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows[key] for key in sorted(rows))


if __name__ == "__main__":
    main()
