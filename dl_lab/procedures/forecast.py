"""Forecast a series: a fit, the naive forecasts that it must beat, and figures of the errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.series.content import SeriesContent
from dl_lab.datasets.series.layout import Layout
from dl_lab.datasets.series.scaler import Scaler
from dl_lab.datasets.series.tables import Series, read_series
from dl_lab.datasets.series.windows import to_tensor
from dl_lab.models.naive_forecast import LinearAutoregression, Persistence, Seasonal
from dl_lab.procedures.fit import WithFit
from dl_lab.procedures.forecast_figures import (
    draw_autocorrelation,
    draw_correlation,
    draw_forecast,
    draw_predicted_actual,
    draw_residuals,
)
from dl_lab.procedures.rows import Row
from dl_lab.runs.recorder import Run
from dl_lab.show import plots
from dl_lab.tasks.forecasting import Determination
from dl_lab.training.learners import GradientLearner
from dl_lab.training.trainer import Trainer
from dl_lab.types import Answer, Metrics, Split, UserError


@dataclass
class Forecast(WithFit[GradientLearner]):
    """Fit, then compare the test forecasts with the last value, the value one period before, and an autoregression.

    Args:
        dataset: Windows of a series.
        learner: How the forecaster learns.
        trainer: The trainer.
        period: Steps of one period of the series.
        lags: Steps that the figure of the autocorrelation reaches.
        ridge: Penalty of the linear autoregression; see `LinearAutoregression.fit`.
    """

    imports = plots.IMPORTS

    dataset: Dataset
    learner: GradientLearner
    trainer: Trainer
    period: int = 24
    lags: int = 72
    ridge: float = 1e-3

    def __call__(self, run: Run) -> Metrics:
        """Fit and compare; return the metrics of the fit and R² of each naive forecast."""
        metrics = self.fit(run)
        content = self.dataset.content_as(SeriesContent)
        series = content.series
        scaler = content.scaler
        actual, observed = targets(self.dataset.test)
        name = type(self.learner.model).__name__
        forecasts = {name: predict(self.learner.model, self.dataset.test), **self._forecast_naively()}
        counted = find_targets(self.dataset.preprocessing)
        rows = [
            score(method, p[..., counted], actual[..., counted], observed[..., counted], scaler.of(counted))
            for method, p in forecasts.items()
        ]
        run.table("forecasts", rows)
        features: list[Row] = []
        for method, predicted in forecasts.items():
            features += score_features(method, predicted, actual, observed, series, scaler)
        run.table("features", features)
        for row in rows[1:]:
            metrics[f"naive/{row['method']}/r2"] = row["r2"]
            metrics[f"naive/{row['method']}/r2_observed"] = row["r2_observed"]
        self._draw(run, forecasts[name], actual, content)
        run.finish(metrics)
        return metrics

    def _forecast_naively(self) -> dict[str, Tensor]:
        """Return the test forecasts of each naive method, (n, horizon, features)."""
        x = inputs(self.dataset.train)
        y, _ = targets(self.dataset.train)
        _, length, n_features = x.shape
        horizon = y.shape[1]
        models: dict[str, nn.Module] = {"persistence": Persistence(horizon)}
        if length >= self.period:
            models["seasonal"] = Seasonal(horizon, self.period)
        models["autoregression"] = LinearAutoregression(length, n_features, horizon).fit(x, y, self.ridge)
        return {name: predict(model, self.dataset.test) for name, model in models.items()}

    def _draw(self, run: Run, predicted: Tensor, actual: Tensor, content: SeriesContent) -> None:
        """Draw the correlations of the training rows, and the errors of the first step on the test split."""
        series = content.series
        scaler = content.scaler
        titles = content.titles
        n_train = content.ends[0]
        train = series.values[:n_train]
        run.figure("autocorrelation", *draw_autocorrelation(train, series.names, min(self.lags, n_train // 2)))
        run.figure("correlation", *draw_correlation(train, series.names))
        p, a = (scaler.undo(t[:, 0].double().numpy()) for t in (predicted, actual))
        times = series.times[-len(a) - actual.shape[1] + 1 :]
        run.figure("predicted_actual", *draw_predicted_actual(p, a, series.names, titles))
        run.figure("residuals", *draw_residuals(p - a, series.names, titles))
        run.figure("forecast", *draw_forecast(p, a, times, series.names, titles))


@torch.no_grad()
def predict(model: nn.Module, split: Split, batch_size: int = 1024) -> Tensor:
    """Return all forecasts of a split, (n, horizon, features), scaled, on the CPU."""
    model.cpu().eval()
    return torch.cat([model(batch.x.cpu()) for batch in split.batches(batch_size)])


def inputs(split: Split) -> Tensor:
    """Return the windows of a split, (n, length, features)."""
    return torch.cat([batch.x.cpu() for batch in split.batches(1024)])


def targets(split: Split) -> tuple[Tensor, Tensor]:
    """Return what came after each window, and whether it was measured: (n, horizon, features) both."""
    batches = list(split.batches(1024))
    return torch.cat([b.y.cpu() for b in batches]), torch.cat([b.observed.cpu() for b in batches])


def find_targets(preprocessing: Mapping[str, Any]) -> list[int]:
    """Return the positions of the columns that a data set is judged by: its targets, or all columns."""
    columns = preprocessing["columns"]
    return [columns.index(name) for name in preprocessing.get("targets", columns)]


# -- tables --------------------------------------------------------------------------------------------------------


class Score(TypedDict):
    """A row about a method.

    R² is pooled by variance or a plain mean over the features, of all targets or of the measured ones, in scaled units.
    In the original units the columns with the largest numbers decide the pooled R².
    """

    method: str
    r2: float
    r2_uniform: float
    r2_observed: float
    r2_observed_uniform: float
    r2_original_units: float
    mae_scaled: float


def score(method: str, predicted: Tensor, actual: Tensor, observed: Tensor, scaler: Scaler) -> Score:
    """Score the forecasts of one method.

    Args:
        method: Name of the method.
        predicted: Forecasts (n, horizon, features), scaled.
        actual: What came, the same shape, scaled.
        observed: Which of it was measured, the same shape, bool.
        scaler: The scaler of the features.
    """
    scale = torch.tensor(scaler.scale, dtype=torch.float64)
    every = Determination.of(predicted, actual)
    measured = Determination.of(predicted, actual, observed)
    original = Determination.of(predicted.double() * scale, actual.double() * scale)
    return {
        "method": method,
        "r2": every.pooled(),
        "r2_uniform": every.uniform(),
        "r2_observed": measured.pooled(),
        "r2_observed_uniform": measured.uniform(),
        "r2_original_units": original.pooled(),
        "mae_scaled": float((predicted - actual).abs().mean()),
    }


def score_features(
    method: str, predicted: Tensor, actual: Tensor, observed: Tensor, series: Series, scaler: Scaler
) -> list[Row]:
    """Score one method on each feature: R² ("" if it is not defined), and the mean absolute error in the own unit.

    Args:
        method: Name of the method.
        predicted: Forecasts (n, horizon, features), scaled.
        actual: What came, the same shape, scaled.
        observed: Which of it was measured, the same shape, bool.
        series: The series, which names the features.
        scaler: The scaler of the features.
    """
    every = Determination.of(predicted, actual).per_feature()
    measured = Determination.of(predicted, actual, observed).per_feature()
    mae = (predicted - actual).abs().double().mean(dim=(0, 1)) * torch.tensor(scaler.scale)
    return [
        {
            "method": method,
            "feature": name,
            "r2": _to_cell(every[i]),
            "r2_observed": _to_cell(measured[i]),
            "mae": float(mae[i]),
            "share_observed": float(observed[..., i].double().mean()),
        }
        for i, name in enumerate(series.names)
    ]


def _to_cell(value: Tensor) -> float | str:
    return float(value) if torch.isfinite(value) else ""


# -- new series ---------------------------------------------------------------------------------------------------


@dataclass
class ForecastFile:
    """Forecast the steps after a new series: `dl-lab predict RUN data.csv` with a forecasting run.

    Args:
        model: The run's model.
        layout: How the new file is written: as the run's own file, unless the user overrides a key.
        max_filled: The share of the last window's values that may be filled in, not measured.
    """

    model: nn.Module
    layout: Layout
    max_filled: float = 0.5

    def __call__(self, path: Path, weights: Mapping[str, Tensor], preprocessing: Mapping[str, Any]) -> Answer:
        """Forecast the steps after the last row of a file.

        Returns:
            A row for each step: its time and each feature, in the file's units.

        Raises:
            UserError: The file cannot be read, is shorter than a window, or has too few measured values in its last
                window.
        """
        series = read_series(path, self.layout, "layout")
        scaler = Scaler.from_plain(preprocessing["scaler"])
        window = preprocessing["window"]
        if len(series) < window:
            raise UserError(f"{path} has {len(series)} rows, but a window needs {window}.")
        notes = self._describe_repairs(series, window, str(path))
        self.model.load_state_dict(dict(weights))
        self.model.eval()
        with torch.no_grad():
            forecast = self.model(to_tensor(scaler.apply(series.values[-window:]))[None])[0]
        counted = find_targets(preprocessing)
        names = [preprocessing["columns"][i] for i in counted]
        values = scaler.of(counted).undo(forecast.double().numpy()[:, counted])
        step = np.timedelta64(self.layout.step_minutes * 60, "s")
        rows: list[Row] = []
        for i, row in enumerate(values.tolist(), 1):
            rows.append({"time": str(series.times[-1] + i * step), **dict(zip(names, row, strict=True))})
        return Answer(rows, notes)

    def _describe_repairs(self, series: Series, window: int, where: str) -> list[str]:
        """Say what was repaired, and how much of the last window was not measured.

        Raises:
            UserError: More than `max_filled` of the last window was not measured.
        """
        filled = ~series.observed[-window:]
        share = float(filled.mean())
        n_empty = int(filled.all(axis=1).sum())
        words = f"{share:.0%} of the values in the last {window} rows of {where} are filled in, not measured"
        if n_empty:
            words += f"; {n_empty} of these rows have no measured value at all"
        if share > self.max_filled:
            raise UserError(
                f"{words}. A forecast from them would be invented. max_filled={self.max_filled:g} is the share allowed;"
                " raise it to forecast anyway."
            )
        notes = [f"repaired in {where}: {series.note()}"] if series.note() else []
        return [*notes, words] if filled.any() else notes
