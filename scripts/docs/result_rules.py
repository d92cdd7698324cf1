"""What no table of results shows: a training that was cut short, a few dozen items, and a net at chance."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from dl_lab.configs import catalogue

# Overrides that leave an experiment what it is. The label of a row tells the data set.
SAME_EXPERIMENT = (
    "experiment=",
    "dataset=",
    "threads=",
    "seed=",
    "dataset.test_set=",
    "procedure.clock=",
    "procedure.cost.clock=",
    "callbacks",
)
FEW_ITEMS = ("medmnist_subset", "21 of 13,100 clips")  # 94 images to test; 16 clips to train on
MARGIN = 0.02  # a score this close to that of a guess is at chance
GUESSES = {"roc_auc": 0.5, "r2": 0.0}
GUESSED_ERRORS = {"wer": 1.0, "cer": 1.0}  # of an empty transcript
Row = Mapping[str, str]


def is_full_length(run: Sequence[Row]) -> bool:
    """Whether a run has the experiment's own settings and length, on more than a few dozen items."""
    row = run[0]
    words = shlex.split(row["command"])[1:]
    is_tiny = any(few in row["data"] for few in FEW_ITEMS)
    has_own_settings = bool(row["experiment"]) and all(word.startswith(SAME_EXPERIMENT) for word in words)
    return has_own_settings and not is_tiny and not is_cut(row["experiment"], row["epochs"])


def is_cut(experiment: str, epochs: str) -> bool:
    """Whether a run has fewer epochs than its experiment asks for, and no rule that stops a training by itself."""
    own, stops_itself = _length(experiment)
    return bool(epochs) and own is not None and not stops_itself and int(float(epochs)) < own


@functools.cache
def _length(experiment: str) -> tuple[int | None, bool]:
    """Return the epochs that an experiment or the one that it builds on asks for, and whether it stops by itself."""
    entry = catalogue.experiment(experiment)
    content: Mapping[str, Any] = entry.content if entry else {}
    epochs = (content.get("trainer") or {}).get("max_epochs")
    stops_itself = False
    for part in content.get("defaults", []):
        if isinstance(part, str) and part != "_self_":
            inherited, inherited_stop = _length(part)
            epochs = inherited if epochs is None else epochs
            stops_itself = stops_itself or inherited_stop
        elif isinstance(part, Mapping):
            stops_itself = stops_itself or "stopping" in str(part.get("override /callbacks", ""))
    return epochs, stops_itself


def at_chance(data: str, figures: Mapping[str, float]) -> list[str]:
    """List the metrics that a guess would reach too.

    Args:
        data: The data set with its label: "imdb (full)".
        figures: Metric -> value.
    """
    found = []
    for metric, value in figures.items():
        split, _, name = metric.rpartition("/")
        if name in GUESSED_ERRORS:
            if value >= GUESSED_ERRORS[name] - MARGIN:
                found.append(metric)
            continue
        guess = GUESSES.get(name)
        if name in ("accuracy", "balanced_accuracy"):
            n_classes = _count_classes(data.partition(" ")[0])
            guess = figures.get(f"{split}/accuracy_of_none", 1 / n_classes if n_classes else None)
        if guess is not None and value <= guess + MARGIN:
            found.append(metric)
    return found


@functools.cache
def _count_classes(dataset: str) -> int:
    """Return the number of classes of a data set; 0 where it has none."""
    path = catalogue.SHIPPED / "dataset" / f"{dataset}.yaml"
    content = catalogue.parse(catalogue.read_text(path), path) if path.exists() else {}
    n_classes = content.get("n_classes")
    return n_classes if isinstance(n_classes, int) else 0
