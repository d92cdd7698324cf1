"""Model selection by cross-validation: scikit-learn's GridSearchCV over a PyTorch model."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin  # its interface is a base class: imported with this module
from torch import nn
from torch.optim import Optimizer

from dl_lab import plots
from dl_lab.run import Run
from dl_lab.training.checkpoints import save_weights
from dl_lab.training.learners import GradientLearner
from dl_lab.types import Dataset, LabelledBatch, Metrics, Task, read_tally

PARTS = ("model", "optimizer")


class TorchClassifier(ClassifierMixin, BaseEstimator):
    """A PyTorch classifier with scikit-learn's interface: fit(X, y), predict(X), score(X, y), get_params, set_params.

    model: builds the module, optimizer: parameters -> Optimizer, both as partial functions, whose arguments are
    parameters too: model__hidden, optimizer__lr. Every fit starts anew from `seed` and takes the rows in their order.
    X (n, ...) and y (n,) are arrays.
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
        self.model, self.optimizer, self.task = model, optimizer, task
        self.max_epochs, self.batch_size, self.seed = max_epochs, batch_size, seed

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        own = super().get_params(deep=False)
        return own | self._inner() if deep else own

    def _inner(self) -> dict[str, Any]:
        """The arguments of the parts, by name: the given value, else the default."""
        found = {}
        for part in PARTS:
            for name, argument in inspect.signature(getattr(self, part)).parameters.items():
                if argument.default is not argument.empty:
                    found[f"{part}__{name}"] = argument.default
        return found

    def set_params(self, **params: Any) -> TorchClassifier:
        known = self.get_params()
        for key, value in params.items():
            if key not in known:
                raise ValueError(f"{key} is not a parameter; there are {', '.join(sorted(known))}")
            part, inner, name = key.partition("__")
            setattr(self, part, partial(getattr(self, part), **{name: value}) if inner else value)
        return self

    def fit(self, X: np.ndarray, y: np.ndarray) -> TorchClassifier:
        torch.manual_seed(self.seed)
        self.classes_ = np.unique(y)
        self.module_ = self.model()
        learner = GradientLearner(self.module_, self.task, self.optimizer)
        for _ in range(self.max_epochs):
            for batch in self._batches(X, y):
                learner.update(batch)
        return self

    def _batches(self, X: np.ndarray, y: np.ndarray) -> Iterable[LabelledBatch]:
        inputs, labels = torch.from_numpy(X).split(self.batch_size), torch.from_numpy(y).split(self.batch_size)
        return map(LabelledBatch, inputs, labels)

    @torch.no_grad()
    def predict(self, X: np.ndarray) -> np.ndarray:
        """(n,) class numbers."""
        self.module_.eval()
        return np.concatenate([self.module_(x).argmax(dim=1).numpy() for x in torch.from_numpy(X).split(1024)])


@dataclass
class GridSearch:
    """Every combination of `grid` by cross-validation on the training split; the best is refitted on all of it.

    grid: a list of values for each parameter, {optimizer: {lr: [...]}} for an argument of a part. jobs: processes (-1:
    one per core). Validation and test splits are judged once, by the refitted model. Raises ValueError, before any
    fit, for a parameter that does not exist.
    """

    dataset: Dataset
    classifier: TorchClassifier
    grid: Mapping[str, Any]
    folds: int = 5
    jobs: int = -1

    def __post_init__(self) -> None:
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
    def values(self) -> dict[str, Sequence[Any]]:
        """The grid by full names: "optimizer.lr"."""
        return {name: values for part, inner in self.grid.items() for name, values in _named(part, inner)}

    def __call__(self, run: Run) -> Metrics:
        from sklearn.model_selection import GridSearchCV

        grid = {name.replace(".", "__"): list(values) for name, values in self.values.items()}
        search = GridSearchCV(self.classifier, grid, cv=self.folds, n_jobs=self.jobs, error_score="raise")
        search.fit(*_arrays(self.dataset, "train"))
        rows = _candidates(search.cv_results_, self.folds)
        for number, row in enumerate(rows):
            run.log({"cv/accuracy": row["accuracy"], "cv/std": row["std"]}, step=number, epoch=number)
        run.table("folds", rows)
        self._draw(run, rows)
        best: TorchClassifier = search.best_estimator_
        save_weights(run.folder / "checkpoints" / "best.safetensors", best.module_.state_dict(), search.best_params_)
        return self._finish(run, search, best)

    def _draw(self, run: Run, rows: Sequence[Mapping[str, Any]]) -> None:
        """Candidates from top to bottom, so that long names have room."""
        title = f"{self.folds}-fold cross-validation, mean ± std of the folds"
        figure, axis = plots.axes(title, "accuracy", size=(7.0, 1.6 + 0.45 * len(rows)))
        means, deviations = [row["accuracy"] for row in rows], [row["std"] for row in rows]
        axis.errorbar(means, range(len(rows)), xerr=deviations, fmt="o", capsize=4, color=plots.COLOURS[0])
        for position, mean in enumerate(means):
            axis.annotate(f"{mean:.3f}", (mean, position), xytext=(0, 6), textcoords="offset points", ha="center")
        axis.set_yticks(range(len(rows)), [_name(row, self.values) for row in rows])
        axis.set_ylim(len(rows) - 0.5, -0.7)
        axis.grid(axis="x", alpha=0.3)
        run.figure("grid", figure, rows)

    def _finish(self, run: Run, search: Any, best: TorchClassifier) -> Metrics:
        metrics = {"cv/accuracy": float(search.best_score_)}
        for split in ("train", "val", "test"):
            batch = LabelledBatch(*map(torch.from_numpy, _arrays(self.dataset, split)))
            best.module_.eval()
            with torch.no_grad():
                metrics |= read_tally(best.task.measure(best.module_, batch), f"{split}/")
        parameters = sum(parameter.numel() for parameter in best.module_.parameters())
        chosen = {name.replace("__", "."): value for name, value in search.best_params_.items()}
        run.finish(
            metrics,
            best=chosen,
            candidates=len(search.cv_results_["params"]),
            folds=self.folds,
            epochs=best.max_epochs,
            test_looks=1,
            parameters=parameters,
            trainable=parameters,
            dataset=self.dataset.summary(),
        )
        return metrics


def _named(part: str, inner: Any) -> Iterable[tuple[str, Any]]:
    return ((f"{part}.{name}", values) for name, values in inner.items()) if isinstance(inner, Mapping) else [(part, inner)]


def _arrays(dataset: Dataset, split: str) -> tuple[np.ndarray, np.ndarray]:
    """All of a split in its stored order: inputs (n, ...), labels (n,)."""
    part = getattr(dataset, split)
    batch = next(iter(part.batches(len(part))))
    return batch.x.numpy(), batch.y.numpy()


def _candidates(results: Mapping[str, Any], folds: int) -> list[dict[str, Any]]:
    """A row for each candidate: its parameters, mean and deviation over the folds, each fold, seconds a fit."""
    return [
        {
            **{name.replace("__", "."): value for name, value in parameters.items()},
            "accuracy": float(results["mean_test_score"][i]),
            "std": float(results["std_test_score"][i]),
            **{f"fold_{k + 1}": float(results[f"split{k}_test_score"][i]) for k in range(folds)},
            "fit_seconds": round(float(results["mean_fit_time"][i]), 3),
        }
        for i, parameters in enumerate(results["params"])
    ]


def _name(row: Mapping[str, Any], grid: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.rpartition('.')[2]} {row[name]}" for name in grid)
