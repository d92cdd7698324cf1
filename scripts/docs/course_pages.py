"""The page "If you take this course": what each coursework asks, the command, the figure, and what was measured."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import result_pages
import sweep_results
from result_pages import Result
from sources import ROOT

from dl_lab.configs import catalogue
from dl_lab.runs import records
from dl_lab.runs.anchors import load_yaml

COURSES = ROOT / "scripts" / "docs" / "courses.yaml"
# The data sets whose full official files could not be had where the results were measured.
WITHOUT_DATA = {
    "cifar10": "the official CIFAR-10 batches",
    "dogs_food_vehicles": "the course's photographs, which are not public",
    "food11": "Food-11",
    "lj_speech": "all clips of LJ Speech",
    "octmnist": "the full OCTMNIST file",
}


@functools.cache
def courses() -> dict[str, Any]:
    """Read the courses and their experiments."""
    return load_yaml(COURSES.read_text(encoding="utf-8"))


def table(course: str) -> str:
    """A row for each sentence of a coursework."""
    about = courses()[course]
    lines = [f"[A notebook that trains in small]({about['notebook']}) goes with it.", ""]
    lines += ["| the brief asks | command | figure or file | status |", "|---|---|---|---|"]
    for row in about["rows"]:
        shown = f"`{row['shows']}`" if "/" in row["shows"].partition(" ")[0] else row["shows"]
        lines.append(f"| {row['asks']} | `dl-lab {row['run']}` | {shown} | {status(row['run'])} |")
    return "\n".join(lines)


def experiments_of(words: str) -> list[str]:
    """The experiments that a command runs or lists."""
    parts = words.split()
    if parts[0] == "list":
        return [word for word in parts[1:] if not word.startswith("-")]
    named = {key: value for key, _, value in (word.partition("=") for word in parts)}
    if "sweep" in named:
        (entry,) = [one for one in catalogue.entries("sweep") if one.name == named["sweep"]]
        return _named(entry.content)
    return [named["experiment"]] if "experiment" in named else []


def _named(content: Mapping[str, Any]) -> list[str]:
    """Every experiment that a sweep's YAML names."""
    found = []
    for part in [content.get("grid") or {}, *content.get("list", [])]:
        value = part.get("experiment", [])
        found += [value] if isinstance(value, str) else list(value)
    return list(dict.fromkeys(found))


def status(words: str) -> str:
    """What was measured, in a few words, from the tables of results."""
    if words.startswith("list"):
        return "counted by a test"
    changed = [word for word in words.split() if not word.startswith(("-m", "experiment=", "sweep="))]
    if changed:
        return "runs; a variant without a published figure"
    if "sweep=" in words and (measured := sweep_results.status(words.partition("sweep=")[2])):
        return measured
    found = [(name, *_one(name, best_result(name))) for name in experiments_of(words)]
    if len(found) == 1:
        ((_, kind, detail),) = found
        return f"{'its experiment: ' if 'sweep=' in words else ''}{kind}{': ' if detail else ''}{detail}"
    if len(found) == 2:
        return "; ".join(f"`{name}` {kind}{': ' if detail else ''}{detail}" for name, kind, detail in found)
    kinds = [kind for _, kind, _ in found]
    return "; ".join(f"{kinds.count(kind)} of {len(kinds)} {kind}" for kind in dict.fromkeys(kinds))


@functools.cache
def _all_results() -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for path in sorted(result_pages.RESULTS.glob("*.csv")):
        if (result_pages.RESULTS / f"{path.stem}.md").exists():
            for result in result_pages.results(path.stem):
                found.setdefault(result.experiment, []).append(result)
    return found


def best_result(experiment: str) -> Result | None:
    """The result on the best data: full before a copy before a part, on the experiment's own data set."""
    entry = catalogue.experiment(experiment)
    own = entry.dataset if entry else ""
    order = ("full", "", "copy", "part", "generated")
    found = _all_results().get(experiment, [])
    fitting = [one for one in found if own == catalogue.UNUSED or own.startswith(one.data.partition(" (")[0])]
    return min(fitting, key=lambda one: order.index(one.worth), default=None)


def _one(experiment: str, result: Result | None) -> tuple[str, str]:
    """Whether an experiment was measured and reached its figures, in words; and its main figure."""
    entry = catalogue.experiment(experiment)
    lacking = WITHOUT_DATA.get(entry.dataset if entry else "", "")
    if entry and entry.procedure == "transfer":
        lacking = "ImageNet weights"
    if result is None:
        return (f"not measured, for want of {lacking}" if lacking else "not measured at full length yet"), ""
    shown = [metric for metric in result.headline() if metric.startswith("test/")] or result.headline()
    metric = min(shown, key=records.smaller_is_better)
    published = result.published[metric]
    measured = f"{metric} {result_pages.spread(result.figures[metric])}"
    measured += f" (published {result_pages.number(published)})" if published else ""
    if result.worth == "copy":
        return "measured on a JPEG copy", measured
    if result.worth == "part":
        return "measured on a part of the data", measured
    if result.worth == "generated":
        return "measured on generated data", measured
    judged = [result.met(one) for one in result.published if result.met(one)]
    if not judged:
        return "measured", measured
    return "met" if "no" not in judged else "missed, see the reason in the results", measured


def figures_of(experiment: str) -> Sequence[str]:
    """The files that the page promises for `dl-lab experiment=NAME`, and for the jobs of its sweeps."""
    rows = [row for about in courses().values() for row in about["rows"]]
    return [row["shows"] for row in rows if experiment in experiments_of(row["run"]) and "/" in row["shows"].split()[0]]
