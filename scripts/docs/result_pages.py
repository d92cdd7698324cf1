"""The pages of results, made from docs/results/*.csv: a table of full-length runs for each area."""

from __future__ import annotations

import csv
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from result_rules import at_chance, is_full_length
from sources import ROOT

from dl_lab.configs import catalogue
from dl_lab.show.judge import judge

RESULTS = ROOT / "docs" / "results"
MOST_METRICS = 3
# Shown besides: detectors by the windows that end at a point, and by all that cover it; what a running loop prints.
ALWAYS_SHOWN = ("test/roc_auc", "test/covering/roc_auc", "test/covering/precision", "train/running_accuracy")
Row = dict[str, str]


def runs(path: Path) -> list[list[Row]]:
    """The rows of a CSV, grouped by run (command and data), in the order of the file."""
    found: dict[tuple[str, str], list[Row]] = {}
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found.setdefault((row["command"], row["data"]), []).append(row)
    return list(found.values())


def worth_of(data: str) -> str:
    """How much of the official data a row saw: "full", "copy", "part" or "generated"; "" for no data."""
    label = data.partition("(")[2].partition(")")[0].partition(":")
    return "copy" if label[2].strip() == "JPEG copy" else label[0]


@dataclass(frozen=True)
class Result:
    """What one experiment measured at its own settings, over its seeds.

    Attributes:
        experiment: its name.
        id: its id; "" for none.
        data: the data set, with its label.
        epochs: as the first run counts them.
        figures: metric -> the value of each seed.
        published: metric -> the published figure as the rows have it; "" for none.
    """

    experiment: str
    id: str
    data: str
    epochs: str
    figures: Mapping[str, Sequence[float]]
    published: Mapping[str, str]

    @property
    def worth(self) -> str:
        """How much of the official data: "full", "copy", "part" or "generated"; "" for an experiment without data."""
        return worth_of(self.data)

    def mean(self, metric: str) -> float:
        """Return the mean over the seeds."""
        return statistics.fmean(self.figures[metric])

    def met(self, metric: str) -> str:
        """Return "yes" or "no" where the mean can be judged by a published figure, else ""."""
        entry = catalogue.experiment(self.experiment)
        reference: Mapping[str, Any] = entry.reference if entry else {}
        if not self.published[metric] or metric not in reference or self.worth not in ("full", ""):
            return ""
        (verdict,) = judge({metric: self.mean(metric)}, {metric: reference[metric]})
        return "yes" if verdict.passed else "no"

    def at_chance(self) -> list[str]:
        """The metrics of the table that a guess would reach too."""
        found = at_chance(self.data, {metric: self.mean(metric) for metric in self.figures})
        return [metric for metric in self.headline() if metric in found]

    def headline(self) -> list[str]:
        """The metrics that a table shows: those with a published figure first, test before val before train."""
        order = ("test", "val", "train")

        def rank(metric: str) -> tuple[bool, int]:
            split = metric.partition("/")[0]
            return not self.published[metric], order.index(split) if split in order else len(order)

        ordered = sorted(self.figures, key=rank)
        return [*ordered[:MOST_METRICS], *(metric for metric in ordered[MOST_METRICS:] if metric in ALWAYS_SHOWN)]


def results(area: str) -> list[Result]:
    """The experiments of an area with runs at their own settings, in the order of the table."""
    groups: dict[tuple[str, str], list[list[Row]]] = {}
    for run in runs(RESULTS / f"{area}.csv"):
        if is_full_length(run):
            groups.setdefault((run[0]["experiment"], run[0]["data"]), []).append(run)
    return [_result(members) for members in groups.values()]


def _result(members: Sequence[Sequence[Row]]) -> Result:
    """One experiment's runs: of a seed that ran twice the later run counts."""
    by_seed = {run[0]["seed"]: run for run in sorted(members, key=lambda run: run[0]["date"])}
    first = members[0][0]
    figures: dict[str, list[float]] = {}
    published: dict[str, str] = {}
    for run in by_seed.values():
        for row in run:
            figures.setdefault(row["metric"], []).append(float(row["measured"]))
            published[row["metric"]] = row["published"] or published.get(row["metric"], "")
    return Result(first["experiment"], first["id"], first["data"], first["epochs"], figures, published)


def table(area: str) -> str:
    """The full-length runs of one area, over their seeds: measured beside published."""
    found = results(area)
    lines = ["| experiment | data | metric | measured | seeds | published | met | epochs |", "|---" * 8 + "|"]
    for result in found:
        for i, metric in enumerate(result.headline()):
            first = i == 0
            name = f"`{result.experiment}` ({result.id})" if result.id else f"`{result.experiment}`"
            values = result.figures[metric]
            cells = [
                name if first else "",
                _data(result) if first else "",
                metric,
                spread(values),
                str(len(values)) if first else "",
                number(result.published[metric]),
                result.met(metric),
                result.epochs if first else "",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    every = runs(RESULTS / f"{area}.csv")
    n_shown = sum(map(is_full_length, every))
    note = (
        f"{n_shown} of {len(every)} recorded runs have the experiment's own settings and length, and more than a few "
    )
    note += "dozen items; these are shown. "
    note += "Measured: the mean, and with two seeds or more ± the standard deviation. Met: the mean is within the "
    note += "experiment's tolerance; only results on the full data, or without data, are judged. "
    note += f"[{area}.csv]({area}.csv) has every run with its command, seed, hardware, date and source."
    return "\n".join([*lines, "", note, "", _origin([run for run in every if is_full_length(run)])])


def _data(result: Result) -> str:
    """The data set and what it is worth: "imdb, full", "cifar10, copy: JPEG"."""
    name, _, label = result.data.partition(" (")
    label = label.removesuffix(")")
    if result.worth == "copy":
        return f"{name}, copy: JPEG"
    return f"{name}, {label}" if label else name


def spread(values: Sequence[float]) -> str:
    """The mean, and ± the standard deviation of two values or more that differ."""
    mean = number(repr(statistics.fmean(values)))
    if len(values) < 2 or len(set(values)) == 1:
        return mean
    return f"{mean} ± {statistics.stdev(values):.2g}"


def _origin(chosen: Sequence[Sequence[Row]]) -> str:
    facts = sorted({(run[0]["hardware"], run[0]["date"]) for run in chosen})
    return "Measured on " + "; ".join(f"{hardware}, {date}" for hardware, date in facts) + "." if facts else ""


def number(text: str) -> str:
    """At most four significant digits; counts stay integers."""
    if not text:
        return ""
    value = float(text)
    return f"{value:,.0f}" if value.is_integer() and abs(value) >= 1 else f"{value:.4g}"


def throughput() -> str:
    """Samples a second, and the ratio to the tuned loop, for each contestant and batch size."""
    measured = json.loads((RESULTS / "benchmarks" / "throughput.json").read_text(encoding="utf-8"))
    lines = [f"| contestant | {' | '.join(f'batch {batch}' for batch in measured)} |", "|---|" + "---|" * len(measured)]
    for name in next(iter(measured.values())):
        cells = [f"{rows[name]['samples_per_s']:,.0f} ({rows[name]['ratio']:.2f})" for rows in measured.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def sweep_times() -> str:
    """Seconds of whole sweeps, and how many times faster than Hydra's basic launcher."""
    measured = _benchmark("sweep")
    names = ("48 jobs of 512", "16 jobs of 4096")
    shown = {name: measured[name] for name in names}
    lines = [f"| launcher | {' | '.join(f'{name} samples' for name in names)} |", "|---|---|---|"]
    for launcher in next(iter(shown.values())):
        cells = [f"{rows[launcher]['seconds']:.1f} ({rows[launcher]['basic_over_it']:.2f})" for rows in shown.values()]
        lines.append(f"| {launcher} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", _machine(measured)])


def sweep_costs() -> str:
    """What a sweep costs beside its jobs' own work."""
    measured = _benchmark("sweep")
    launch = measured["launch, ms per empty job"]
    plan = measured["plan, CPU s"]
    rows = {
        "start of an empty job, of 400": f"{launch['dl-lab 400']:.1f} ms",
        "start of an empty job, of 10,000": f"{launch['dl-lab 10000']:.1f} ms",
        "start of an empty job by Hydra's basic launcher": f"{launch['hydra basic 50']:.0f} ms",
        "plan (`--dry-run`) of 1,000 jobs that differ in learning rate and dropout": f"{plan['1000 jobs']:.1f} s",
        "plan of 10,000 such jobs": f"{plan['10000 jobs']:.1f} s",
        "plan of 1,000 jobs that differ in a whole number": f"{plan['1000 jobs of other sizes']:.1f} s",
        "memory of two lanes, times that of one": f"{measured['memory, MB']['ratio']:.2f}",
    }
    return "\n".join(["| what | it takes |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


STARTS = {  # row of startup.json -> what is measured, what it is compared with
    "help": ("`dl-lab --help`, CPU time", "`import hydra`"),
    "first line": ("the first line of a training on a terminal", "`import hydra`"),
    "first step": ("a training to the end of its first update, CPU time", "`import torch`"),
    "first step, cold": ("the same with all files on the disk, wall time", "`import torch`"),
}


def startup() -> str:
    """How soon a command answers and a training begins."""
    lines = ["| measured | dl-lab | compared with | it takes | ratio | torch |", "|---|---|---|---|---|---|"]
    machines = []
    for file in sorted((RESULTS / "benchmarks").glob("startup*.json")):
        measured = json.loads(file.read_text(encoding="utf-8"))
        machines.append(_machine(measured))
        for name, (what, other) in STARTS.items():
            depends_on_torch = name.startswith("first step")
            if name in measured["rows"] and (depends_on_torch or file.stem == "startup"):  # the rest is shown once
                row = measured["rows"][name]
                cells = f"{row['ours']:.2f} s | {other} | {row['theirs']:.2f} s | {row['ratio']:.2f}"
                lines.append(f"| {what} | {cells} | {measured['torch'].partition('+')[0]} |")
    return "\n".join([*lines, "", machines[0]])


def _benchmark(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / "benchmarks" / f"{name}.json").read_text(encoding="utf-8"))


def _machine(measured: Mapping[str, Any]) -> str:
    torch = measured["torch"].partition("+")[0]
    return f"{measured['cpu']}, {measured['cores']} cores, torch {torch}, {measured['time'][:10]}."


def families() -> str:
    """Every family of models: dl-lab beside its peers, and what an update, an epoch and a run cost."""
    sys.path.append(str(ROOT / "scripts" / "benchmarks"))
    import family_table

    measured = json.loads((RESULTS / "benchmarks" / "families.json").read_text(encoding="utf-8"))
    return family_table.markdown(measured)


def roofline() -> str:
    """How far a step of the hand-written loop is from what the CPU allows, family by family."""
    measured = json.loads((RESULTS / "benchmarks" / "roofline.json").read_text(encoding="utf-8"))
    needs = ("products", "exponentials", "movement")
    lines = [f"| family | step | {' | '.join(needs)} | calls | limit / step |", "|---" * 7 + "|"]
    for name, row in measured["families"].items():
        times = " | ".join(f"{row[need]:.2f}" for need in needs)
        calls = f"{row['calls']:.2f} ({row['n_calls']:,})"
        lines.append(f"| {name} | {row['step']:.2f} ms | {times} | {calls} | {row['share']:.0%} |")
    cpu = measured["machine"]
    speeds = (
        f"{cpu['flops'] / 1e9:.0f} GFLOP/s, {cpu['exponentials'] / 1e9:.1f} billion exponentials a second, "
        f"{cpu['bytes'] / 1e9:.0f} GB/s, {1e6 * cpu['call']:.1f} microseconds a call"
    )
    where = f"{measured['hardware']}, torch {measured['torch']}, {measured['date']}"
    return "\n".join([*lines, "", f"`{measured['command']}`, one thread. {where}: {speeds}."])


def examined() -> str:
    """The shipped experiments in which the doctor found something, and how many it examined."""
    with (RESULTS / "benchmarks" / "examined.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    looked_at = sum(int(row["looks"]) > 0 for row in rows)
    lines = [
        f"{len(rows)} experiments were examined, {looked_at} of them with looks at layers and gradients; "
        f"{sum(not row['findings'] for row in rows)} have no finding.",
        "",
        "| experiment | data | updates | finding | what was seen |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        if row["findings"]:
            cells = (row["experiment"], row["data"], row["updates"], row["findings"], row["seen"])
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def tuning() -> str:
    """What `dl-lab tune` printed on each machine where scripts/benchmarks/tuning.py was run."""
    lines = []
    for machine in json.loads((RESULTS / "benchmarks" / "tuning.json").read_text(encoding="utf-8")):
        lines += [f"### {machine['hardware']}", "", f"torch {machine['torch']}, {machine['date']}.", ""]
        for job, output in machine["jobs"].items():
            command = f"dl-lab tune {job} --dry-run --seconds {machine['seconds']:g}"
            lines += [f"`{command}`", "", "```text", output, "```", ""]
    return "\n".join(lines)
