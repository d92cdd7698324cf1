"""Several models on the same data: one fit after the other, then one table and one figure of all."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import nn

from dl_lab import plots
from dl_lab.run import Run
from dl_lab.training import checkpoints
from dl_lab.training.learners import GradientLearner
from dl_lab.training.summary import layers
from dl_lab.training.trainer import Trainer, choose_device
from dl_lab.types import Dataset, Metrics


@dataclass(frozen=True)
class Contender:
    """A model and how it learns: the first builds the model, the second takes it as `model`."""

    model: Callable[[], nn.Module]
    learner: Callable[..., GradientLearner]

    def build(self) -> GradientLearner:
        return self.learner(model=self.model())


@dataclass
class ModelComparison:
    """Train every contender on the same data with the same trainer, each as if it were alone.

    Before each one the random generator is set to `seed`, so that a contender's result does not depend on the others;
    each is built when its turn comes, and gone after it. A contender's records lie in a subfolder of its name; the
    run's own are tables/models.csv (at the chosen epoch: accuracy, loss, overfitting gap = train/accuracy -
    val/accuracy; parameters, FLOPs of one image, median seconds of a training epoch) and the learning curves of all.
    A resumed run keeps what is finished. Raises ValueError for no contender.
    Returns each contender's metrics as <contender>/<metric>.
    """

    dataset: Dataset
    contenders: Mapping[str, Contender]
    trainer: Trainer
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.contenders:
            raise ValueError("there is no model to compare: add one to procedure.contenders")

    def __call__(self, run: Run) -> Metrics:
        rows, curves, metrics = [], [], {}
        for name, contender in self.contenders.items():
            with run.part(name) as part:
                own = self._fit(contender, part)
                rows.append({"model": name, **_row(part, own, len(self.dataset.train))})
                curves += [{"model": name, **record} for record in part.records() if "train/loss" in record]
            metrics |= {f"{name}/{metric}": value for metric, value in own.items()}
            metrics[f"{name}/overfitting_gap"] = rows[-1]["overfitting_gap"]
        run.table("models", rows)
        run.figure("learning_curves", draw(curves, list(self.contenders)), curves)
        run.finish(metrics, comparison=rows, dataset=self.dataset.summary(), epochs=self.trainer.max_epochs)
        return metrics

    def _fit(self, contender: Contender, part: Run) -> Metrics:
        if "metrics" in part.summary:  # finished before the run was interrupted
            return part.summary["metrics"]
        checkpoints.seed_everything(self.seed, torch.are_deterministic_algorithms_enabled())
        learner = contender.build()
        table = layers(learner.model, learner.task, next(self.dataset.train.batches(1)))
        part.table("layers", table)
        part.summary = {"flops": sum(row["flops"] for row in table)}
        return copy.deepcopy(self.trainer).fit(learner, self.dataset, part)  # callbacks remember: fresh ones for each

    def describe(self) -> dict[str, Any]:
        """What is known before the first step: the data and the device."""
        return {"dataset": self.dataset.summary(), "device": str(choose_device(self.trainer.device))}

    def rehearse(self) -> Metrics:
        """A first step of each on two items: what `dl-lab check` runs on generated data."""
        metrics: Metrics = {}
        for name, contender in self.contenders.items():
            metrics |= {f"{name}/{k}": v for k, v in self.trainer.rehearse(contender.build(), self.dataset).items()}
        return metrics


def _row(part: Run, metrics: Metrics, n_train: int) -> dict[str, Any]:
    """One line of the table, what matters most first; `seconds` is of the training alone, validation apart."""
    timings = part.records("timings.jsonl")
    row = {
        "test/accuracy": metrics["test/accuracy"],
        "val/accuracy": metrics["val/accuracy"],
        "overfitting_gap": metrics["train/accuracy"] - metrics["val/accuracy"],
        "parameters": part.summary["parameters"],
        "seconds": median(n_train / timing["samples_per_second"] for timing in timings),
        "flops": part.summary["flops"],
        "epoch": part.summary["epoch"],
    }
    return row | {name: value for name, value in metrics.items() if name.partition("/")[0] in ("train", "val", "test")}


def draw(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Any:
    """A panel for the loss and one for the accuracy: each model a colour, train dotted, validation solid."""
    figure, panels = plots.panels(["loss", "accuracy"], x="epoch")
    for axis, metric in zip(panels, ("loss", "accuracy"), strict=True):
        for colour, name in zip(plots.COLOURS, names, strict=False):
            own = [row for row in rows if row["model"] == name]
            for split, style in (("train", ":"), ("val", "-")):
                points = [(row["epoch"], row[f"{split}/{metric}"]) for row in own]
                label = name if split == "val" else None
                axis.plot(*zip(*points, strict=True), color=colour, ls=style, label=label, marker=".")
        axis.grid(axis="y", alpha=0.3)
        axis.locator_params(axis="x", integer=True)
    panels[0].set_yscale("log")  # the first epochs of one net would flatten all the others
    panels[0].legend(frameon=False, title="train dotted, val solid", title_fontsize=8)
    return figure
