"""Compare several models on the same data: one fit after the other, then one table and one figure of all."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from dl_lab.datasets.dataset import Dataset
from dl_lab.procedures.protocol import Procedure
from dl_lab.runs.recorder import Run
from dl_lab.show import plots
from dl_lab.training.devices import choose_device
from dl_lab.training.learners import GradientLearner
from dl_lab.training.seeding import seed_everything
from dl_lab.training.summary import summarise_layers
from dl_lab.training.trainer import Trainer
from dl_lab.types import Metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Contender:
    """A model and how it learns.

    Args:
        model: Builds the model.
        learner: Builds the learner from its argument `model`.
    """

    model: Callable[[], nn.Module]
    learner: Callable[..., GradientLearner]

    def build(self) -> GradientLearner:
        """Build the model and its learner."""
        return self.learner(model=self.model())


@dataclass
class ModelComparison(Procedure):
    """Train every contender on the same data with the same trainer, each as if it were alone.

    A contender is built when its turn comes and is gone after it. Before that the random generator is set to `seed`, so
    that the result of a contender does not depend on the others. A resumed run keeps the contenders that are finished.

    A contender's records are in a subfolder of its name. The run itself has the learning curves of all, and a row for
    each in tables/models.csv: accuracy, loss and overfitting gap (train/accuracy - val/accuracy) at the chosen epoch,
    parameters, FLOPs of one image, and the median seconds of a training epoch.

    Args:
        dataset: What is learned.
        contenders: The contenders by name.
        trainer: Trains each of them.
        seed: Seed of each of them.
    """

    imports = plots.IMPORTS

    dataset: Dataset
    contenders: Mapping[str, Contender]
    trainer: Trainer
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError if there is no contender."""
        if not self.contenders:
            raise ValueError("there is no model to compare: add one to procedure.contenders")

    def __call__(self, run: Run) -> Metrics:
        """Train every contender; return each one's metrics as <contender>/<metric>."""
        rows = []
        curves = []
        metrics: Metrics = {}
        for name, contender in self.contenders.items():
            with run.part(name) as part:
                own = self._fit(contender, part)
                rows.append({"model": name, **_summarise(part, own, len(self.dataset.train))})
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
        seed_everything(self.seed, torch.are_deterministic_algorithms_enabled())
        learner = contender.build()
        learner.start(self.dataset)
        table = summarise_layers(learner.model, learner.task, next(self.dataset.train.batches(1)))
        part.table("layers", table)
        part.summary = {"flops": sum(row["flops"] for row in table)}
        trainer = copy.deepcopy(self.trainer)  # callbacks have a memory, so each contender gets new ones
        return trainer.fit(learner, self.dataset, part)

    def describe(self) -> dict[str, object]:
        """Return the data set and the device."""
        return {"dataset": self.dataset.summary(), "device": str(choose_device(self.trainer.device))}

    def rehearse(self) -> Metrics:
        """Run a first step of each contender on a few items."""
        metrics: Metrics = {}
        for name, contender in self.contenders.items():
            own = self.trainer.rehearse(contender.build(), self.dataset)
            metrics |= {f"{name}/{metric}": value for metric, value in own.items()}
        return metrics


def _summarise(part: Run, metrics: Metrics, n_train: int) -> dict[str, float]:
    """Return the row of a contender, the most important columns first; `seconds` leaves the validation out."""
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


def draw(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Figure:
    """Draw loss and accuracy in a panel each: a colour for each model, train dotted, validation solid."""
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
    panels[0].set_yscale("log")  # the first epochs of one net would flatten the curves of the others
    panels[0].legend(frameon=False, title="train dotted, val solid", title_fontsize=8)
    return figure
