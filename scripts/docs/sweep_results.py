"""What the tables of results say about a ready sweep: which of its jobs were measured, and between which scores."""

from __future__ import annotations

import functools
import shlex
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import result_pages
from result_rules import FEW_ITEMS, SAME_EXPERIMENT, is_cut

from dl_lab.configs import Composer
from dl_lab.runs import records
from dl_lab.sweeps import start
from dl_lab.sweeps.expand import expand
from dl_lab.sweeps.values import are_equal, values_of

WORTH = {"copy": " on a JPEG copy", "part": " on a part of the data", "generated": " on generated data"}
Settings = Mapping[str, Any]


def status(name: str) -> str:
    """How many jobs of a sweep were measured, with the lowest and the highest score; "" where none was."""
    jobs = jobs_of(name)
    varying = {key for job in jobs for key in job if any(job.get(key) != other.get(key) for other in jobs)}
    found = [(job, rows) for job in jobs if (rows := _rows_of(job, varying))]
    if not found:
        return ""
    shared = set.intersection(*({row["metric"] for row in rows} for _, rows in found))
    metric = _choose([row["metric"] for row in found[0][1] if row["metric"] in shared])
    words = f"{len(found)} of {len(jobs)} jobs measured{_worth([row for _, rows in found for row in rows])}"
    if not metric:
        return words
    scores = [(_mean(rows, metric), _label(job, varying)) for job, rows in found]
    (low, worst), (high, best) = min(scores), max(scores)
    if len(found) == 1:
        return f"{words}: {metric} {result_pages.spread([low])} ({worst})"
    return f"{words}: {metric} from {result_pages.spread([low])} ({worst}) to {result_pages.spread([high])} ({best})"


@functools.cache
def jobs_of(name: str) -> list[Settings]:
    """Return the settings of each job of a ready sweep."""
    options = start.parse(["-m", f"sweep={name}"])
    grid = expand(_composer(), options.overrides, options.grid_flags)
    return [_settings([*grid.fixed, *job]) for job in grid.jobs()]


@functools.cache
def _composer() -> Composer:
    return Composer()


def _settings(words: Sequence[str]) -> Settings:
    return {key: value for key, value in values_of(words).items() if key != "sweep"}


def _without_own(settings: Settings, varying: set[str]) -> Settings:
    """Leave out the experiment's own values, and what leaves an experiment what it is where it does not vary."""
    kept = {"experiment": settings["experiment"]}
    for key, value in settings.items():
        is_harmless = key == "experiment" or (f"{key}=".startswith(SAME_EXPERIMENT) and key not in varying)
        if not is_harmless and not are_equal(_at(_own_config(settings["experiment"]), key), value):
            kept[key] = value
    return kept


@functools.cache
def _own_config(experiment: str) -> Settings:
    return _composer().compose([f"experiment={experiment}"]).config


def _at(config: Any, path: str) -> Any:
    for name in path.split("."):
        config = config.get(name) if isinstance(config, Mapping) else None
    return config


@functools.cache
def _measured() -> list[tuple[Settings, list[result_pages.Row]]]:
    """Return every recorded run of an experiment: the settings of its command, and its rows."""
    found = []
    for path in sorted(result_pages.RESULTS.glob("*.csv")):
        for rows in result_pages.runs(path):
            settings = _settings(shlex.split(rows[0]["command"])[1:])
            is_tiny = any(few in rows[0]["data"] for few in FEW_ITEMS)
            is_short = "trainer.max_epochs" not in settings and is_cut(rows[0]["experiment"], rows[0]["epochs"])
            if "experiment" in settings and not is_tiny and not is_short:
                found.append((settings, rows))
    return found


def _rows_of(job: Settings, varying: set[str]) -> list[result_pages.Row]:
    """Return the rows of every run, any seed, that has a job's settings."""
    own_runs = [run for run in _measured() if run[0]["experiment"] == job["experiment"]]
    if not own_runs:
        return []
    wanted = _without_own(job, varying)
    return [row for run, rows in own_runs if are_equal(_without_own(run, varying), wanted) for row in rows]


def _worth(rows: Sequence[result_pages.Row]) -> str:
    """How much of the official data the rows saw, in words; "" for all of them."""
    worths = {result_pages.worth_of(row["data"]) for row in rows}
    return next((words for worth, words in WORTH.items() if worth in worths), "")


def _choose(metrics: Sequence[str]) -> str:
    """Return a metric of test data if there is one, else of validation; a score before a loss; "" for none."""
    own = [metric for metric in metrics if "/pca_" not in metric]  # the error of PCA, beside an autoencoder's
    for split in ("test/", "val/", ""):
        if of_split := [metric for metric in own if metric.startswith(split)]:
            return min(of_split, key=records.smaller_is_better)
    return ""


def _mean(rows: Sequence[result_pages.Row], metric: str) -> float:
    return statistics.fmean(float(row["measured"]) for row in rows if row["metric"] == metric)


def _label(job: Settings, varying: set[str]) -> str:
    """Return what distinguishes a job: `lr=0.001`, or the name of its experiment."""
    shown = []
    for key in job:
        if key in varying:
            name = key.rpartition("/")[2].rpartition(".")[2]
            shown.append(f"`{job[key]}`" if key == "experiment" else f"`{name}={job[key]}`")
    return ", ".join(shown)
