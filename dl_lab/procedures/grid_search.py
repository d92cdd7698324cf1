"""Model selection by cross-validation: what scikit-learn's GridSearchCV does, over a PyTorch model."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, clone  # the interface is a base class: imported here
from torch import nn
from torch.optim import Optimizer

from dl_lab.datasets.dataset import Dataset
from dl_lab.procedures.protocol import Procedure
from dl_lab.procedures.steps import steps
from dl_lab.runs.recorder import Run
from dl_lab.runs.weights import save_weights
from dl_lab.show import plots
from dl_lab.training.learners import GradientLearner
from dl_lab.types import LabelledBatch, Metrics, Task, count, read_tally

PARTS = ("model", "optimizer")


class TorchClassifier(ClassifierMixin, BaseEstimator):
    """A PyTorch classifier with scikit-learn's interface: fit(X, y), predict(X), score(X, y), get_params, set_params.

    The arguments of `model` and `optimizer` are parameters too: model__hidden, optimizer__lr. Every fit starts anew
    from `seed` and takes the rows in their order. X (n, ...) and y (n,) are arrays.

    Args:
        model: Builds the module, a partial function.
        optimizer: Builds the optimizer from the module's parameters, a partial function.
        task: Gives the loss.
        max_epochs: Epochs of a fit.
        batch_size: Rows of a batch.
        seed: Seed of a fit.
    """

    def __init__(
        self,
        model: Callable[..., nn.Module],
        optimizer: Callable[..., Optimizer],
        task: Task,
        max_epochs: int = 2,
        batch_size: int = 128,
        seed: int = 0,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.task = task
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.seed = seed

    def get_params(self, deep: bool = True) -> dict[str, object]:
        """Return the parameters by name; `deep` adds the arguments of the parts."""
        own = super().get_params(deep=False)
        return own | self._get_part_arguments() if deep else own

    def _get_part_arguments(self) -> dict[str, object]:
        """Return the arguments of the parts by name: the given value, else the default."""
        found: dict[str, object] = {}
        for part in PARTS:
            for name, argument in inspect.signature(getattr(self, part)).parameters.items():
                if argument.default is not argument.empty:
                    found[f"{part}__{name}"] = argument.default
        return found

    def set_params(self, **params: object) -> TorchClassifier:
        """Set parameters by name; raise ValueError for an unknown name."""
        known = self.get_params()
        for key, value in params.items():
            if key not in known:
                raise ValueError(f"{key} is not a parameter; there are {', '.join(sorted(known))}")
            part, inner, name = key.partition("__")
            if inner:
                setattr(self, part, partial(getattr(self, part), **{name: value}))
            else:
                setattr(self, part, value)
        return self

    def fit(self, X: np.ndarray, y: np.ndarray) -> TorchClassifier:
        """Build a new module and train it on X (n, ...) and y (n,)."""
        torch.manual_seed(self.seed)
        self.classes_ = np.unique(y)
        self.module_ = self.model()
        learner = GradientLearner(self.module_, self.task, self.optimizer)
        for _ in range(self.max_epochs):
            for batch in self._batches(X, y):
                learner.update(batch)
        return self

    def _batches(self, X: np.ndarray, y: np.ndarray) -> Iterable[LabelledBatch]:
        inputs = torch.from_numpy(X).split(self.batch_size)
        labels = torch.from_numpy(y).split(self.batch_size)
        return map(LabelledBatch, inputs, labels)

    @torch.no_grad()
    def predict(self, X: np.ndarray) -> np.ndarray:
        """Return the class numbers (n,) of X (n, ...)."""
        self.module_.eval()
        return np.concatenate([self.module_(x).argmax(dim=1).numpy() for x in torch.from_numpy(X).split(1024)])


@dataclass
class GridSearch(Procedure):
    """Cross-validate every combination of a grid on the training split, and refit the best on the whole split.

    The refitted model is judged once on each split.

    Args:
        dataset: What is learned.
        classifier: What is cross-validated.
        grid: A list of values for each parameter; {optimizer: {lr: [...]}} for an argument of a part.
        folds: Number of folds, at least 2.
        jobs: Number of processes; -1 takes one per core.
    """

    imports = plots.IMPORTS

    dataset: Dataset
    classifier: TorchClassifier
    grid: Mapping[str, object]
    folds: int = 5
    jobs: int = -1

    def __post_init__(self) -> None:
        """Raise ValueError for a parameter that does not exist, and for values that are not a list."""
        if isinstance(self.classifier.model, nn.Module):
            raise ValueError("the search builds models itself: set model._partial_=true")
        known = [name.replace("__", ".") for name in self.classifier.get_params()]
        for name, values in self.values.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
                raise ValueError(f"grid: the classifier has no parameter {name!r}{hint}")
            if not isinstance(values, list | tuple) or not values:
                raise ValueError(f"grid: {name} needs a list of values, not {values!r}")
        if self.folds < 2:
            raise ValueError(f"folds {self.folds} is not at least 2")

    @property
    def values(self) -> dict[str, Any]:
        """The lists of values by the full names of their parameters, such as "optimizer.lr"."""
        values: dict[str, object] = {}
        for part, inner in self.grid.items():
            if isinstance(inner, Mapping):
                values |= {f"{part}.{name}": own for name, own in inner.items()}
            else:
                values[part] = inner
        return values

    def __call__(self, run: Run) -> Metrics:
        """Search, refit and judge; return the metrics of the best classifier."""
        from sklearn.model_selection import ParameterGrid

        settings = list(ParameterGrid({name.replace(".", "__"): list(values) for name, values in self.values.items()}))
        words = f"Cross-validation of {count(len(settings), 'setting')}: {len(settings) * self.folds} fits."
        print(words, file=sys.stderr, flush=True)
        rows = self._cross_validate(run, settings)
        for number, row in enumerate(rows):
            run.log({"cv/accuracy": row["accuracy"], "cv/std": row["std"]}, step=number, epoch=number)
        run.table("folds", rows)
        self._draw(run, rows)
        accuracies = [row["accuracy"] for row in rows]
        chosen = settings[int(np.argmax(accuracies))]
        best = self._build(chosen).fit(*_arrays(self.dataset, "train"))
        save_weights(run.folder / "checkpoints" / "best.safetensors", best.module_.state_dict(), chosen)
        return self._finish(run, rows, chosen, best)

    def _cross_validate(self, run: Run, settings: Sequence[Mapping[str, object]]) -> list[dict[str, Any]]:
        """Return a row for each setting: parameters, mean and deviation over the folds, each fold, seconds per fit."""
        from sklearn.model_selection import StratifiedKFold, cross_validate

        X, y = _arrays(self.dataset, "train")
        rows = []
        for setting in steps(run, settings, "cross-validation"):
            folds = StratifiedKFold(self.folds)
            options: dict[str, Any] = {"n_jobs": self.jobs, "error_score": "raise"}
            results = cross_validate(self._build(setting), X, y, cv=folds, **options)
            accuracies = [float(accuracy) for accuracy in results["test_score"]]
            row: dict[str, Any] = {name.replace("__", "."): value for name, value in setting.items()}
            row |= {"accuracy": float(np.mean(accuracies)), "std": float(np.std(accuracies))}
            row |= {f"fold_{number}": accuracy for number, accuracy in enumerate(accuracies, start=1)}
            row["fit_seconds"] = round(float(np.mean(results["fit_time"])), 3)
            rows.append(row)
        return rows

    def _build(self, setting: Mapping[str, object]) -> TorchClassifier:
        classifier = clone(self.classifier)
        assert isinstance(classifier, TorchClassifier)
        return classifier.set_params(**setting)

    def rehearse(self) -> Metrics:
        """Fit the classifier on two items."""
        X, y = _arrays(self.dataset, "train")
        self.classifier.fit(X[:2], y[:2])
        return {}

    def describe(self) -> dict[str, object]:
        """Return the data set, and the size of the model as configured (the grid may change it)."""
        parameters = list(self.classifier.model().parameters())
        return {
            "dataset": self.dataset.summary(),
            "parameters": sum(p.numel() for p in parameters),
            "trainable": sum(p.numel() for p in parameters if p.requires_grad),
        }

    def _draw(self, run: Run, rows: Sequence[Mapping[str, Any]]) -> None:
        """Draw the candidates from top to bottom, so that long names have room."""
        title = f"{self.folds}-fold cross-validation, mean ± std of the folds"
        figure, axis = plots.axes(title, "accuracy", size=(7.0, 1.6 + 0.45 * len(rows)))
        means = [row["accuracy"] for row in rows]
        deviations = [row["std"] for row in rows]
        axis.errorbar(means, range(len(rows)), xerr=deviations, fmt="o", capsize=4, color=plots.COLOURS[0])
        for position, mean in enumerate(means):
            axis.annotate(f"{mean:.3f}", (mean, position), xytext=(0, 6), textcoords="offset points", ha="center")
        axis.set_yticks(range(len(rows)), [_label(row, self.values) for row in rows])
        axis.set_ylim(len(rows) - 0.5, -0.7)
        axis.grid(axis="x", alpha=0.3)
        run.figure("grid", figure, rows)

    def _finish(
        self, run: Run, rows: Sequence[Mapping[str, Any]], chosen: Mapping[str, object], best: TorchClassifier
    ) -> Metrics:
        metrics = {"cv/accuracy": max(row["accuracy"] for row in rows)}
        for split in ("train", "val", "test"):
            batch = LabelledBatch(*map(torch.from_numpy, _arrays(self.dataset, split)))
            best.module_.eval()
            with torch.no_grad():
                metrics |= read_tally(best.task.measure(best.module_, batch), f"{split}/")
        parameters = list(best.module_.parameters())
        run.finish(
            metrics,
            best={name.replace("__", "."): value for name, value in chosen.items()},
            candidates=len(rows),
            folds=self.folds,
            epochs=best.max_epochs,
            test_looks=1,
            parameters=sum(p.numel() for p in parameters),
            trainable=sum(p.numel() for p in parameters if p.requires_grad),
            dataset=self.dataset.summary(),
        )
        return metrics


def _arrays(dataset: Dataset, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the inputs (n, ...) and the labels (n,) of a split, in its stored order."""
    part = getattr(dataset, split)
    batch = next(iter(part.batches(len(part))))
    return batch.x.numpy(), batch.y.numpy()


def _label(row: Mapping[str, object], names: Iterable[str]) -> str:
    """Return the parameters of a candidate for the axis of a figure."""
    return ", ".join(f"{name.rpartition('.')[2]} {row[name]}" for name in names)
