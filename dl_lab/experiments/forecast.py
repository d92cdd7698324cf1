"""Forecasting a series: a fit, the naive forecasts it must beat, and what the errors look like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dl_lab import plots
from dl_lab.datasets.series import Layout, Scaler, Series, read_series, to_tensor
from dl_lab.experiments.fit import Fit
from dl_lab.models.naive_forecast import LinearAutoregression, Persistence, Seasonal
from dl_lab.run import Run
from dl_lab.tasks.forecasting import Determination
from dl_lab.training.learners import GradientLearner
from dl_lab.types import Metrics, Split, UserError


@dataclass
class Forecast(Fit[GradientLearner]):
    """Fit, then compare on the test split with persistence, one period before, and a linear autoregression.

    period: steps of the season (24 hours). lags: how far the autocorrelation figure reaches. ridge: of the
    autoregression. Returns the fit's metrics and each naive forecast's r2.
    """

    period: int = 24
    lags: int = 72
    ridge: float = 1e-3

    def __call__(self, run: Run) -> Metrics:
        metrics = super().__call__(run)
        series, scaler, ends = (self.dataset.extras[name] for name in ("series", "scaler", "ends"))
        actual, observed = targets(self.dataset.test)
        name = type(self.learner.model).__name__
        forecasts = {name: predict(self.learner.model, self.dataset.test), **self._naive()}
        rows = [compared(method, p, actual, observed, scaler) for method, p in forecasts.items()]
        run.table("forecasts", rows)
        run.table(
            "features",
            [r for m, p in forecasts.items() for r in by_feature(m, p, actual, observed, series, scaler)],
        )
        for row in rows[1:]:
            metrics[f"naive/{row['method']}/r2"] = row["r2"]
            metrics[f"naive/{row['method']}/r2_observed"] = row["r2_observed"]
        self._draw(run, forecasts[name], actual, series, scaler, ends[0])
        run.finish(metrics)
        return metrics

    def _naive(self) -> dict[str, Tensor]:
        x, y = inputs(self.dataset.train), targets(self.dataset.train)[0]
        _, length, n_features = x.shape
        horizon = y.shape[1]
        models: dict[str, nn.Module] = {"persistence": Persistence(horizon)}
        if length >= self.period:
            models["seasonal"] = Seasonal(horizon, self.period)
        models["autoregression"] = LinearAutoregression(length, n_features, horizon).fit(x, y, self.ridge)
        return {name: predict(model, self.dataset.test) for name, model in models.items()}

    def _draw(self, run: Run, predicted: Tensor, actual: Tensor, series: Series, scaler: Scaler, n_train: int) -> None:
        """Of the training rows: autocorrelation and correlations; of the test's first step: the errors."""
        train = series.values[:n_train]
        run.figure("autocorrelation", *draw_autocorrelation(train, series.names, min(self.lags, n_train // 2)))
        run.figure("correlation", *draw_correlation(train, series.names))
        p, a = (scaler.unscaled(t[:, 0].double().numpy()) for t in (predicted, actual))
        run.figure("predicted_actual", *draw_predicted_actual(p, a, series.names))
        run.figure("residuals", *draw_residuals(p - a, series.names))
        run.figure("forecast", *draw_forecast(p, a, series.times[-len(a) - actual.shape[1] + 1 :], series.names))


@torch.no_grad()
def predict(model: nn.Module, split: Split, batch_size: int = 1024) -> Tensor:
    """All forecasts of a split (n, horizon, features), scaled, on the CPU."""
    model.cpu().eval()
    return torch.cat([model(batch.x.cpu()) for batch in split.batches(batch_size)])


def inputs(split: Split) -> Tensor:
    return torch.cat([batch.x.cpu() for batch in split.batches(1024)])


def targets(split: Split) -> tuple[Tensor, Tensor]:
    """What came, and whether it was measured: (n, horizon, features) both."""
    batches = list(split.batches(1024))
    return torch.cat([b.y.cpu() for b in batches]), torch.cat([b.observed.cpu() for b in batches])


# -- tables
# -------------------------------------------------------------------------------------------------------


def compared(method: str, predicted: Tensor, actual: Tensor, observed: Tensor, scaler: Scaler) -> dict[str, Any]:
    """One row: R² pooled by variance and as a plain mean, of all and of the measured targets, scaled; and
    pooled
    in the original units, where the columns with the largest numbers decide."""
    scale = torch.tensor(scaler.scale, dtype=torch.float64)
    every, measured = Determination.of(predicted, actual), Determination.of(predicted, actual, observed)
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


def by_feature(
    method: str, predicted: Tensor, actual: Tensor, observed: Tensor, series: Series, scaler: Scaler
) -> list[dict[str, Any]]:
    """R² and, in the feature's own units, the mean absolute error; "" where R² is not defined."""
    every = Determination.of(predicted, actual).per_feature()
    measured = Determination.of(predicted, actual, observed).per_feature()
    mae = (predicted - actual).abs().double().mean(dim=(0, 1)) * torch.tensor(scaler.scale)
    return [
        {
            "method": method,
            "feature": name,
            "r2": _number(every[i]),
            "r2_observed": _number(measured[i]),
            "mae": float(mae[i]),
            "share_observed": float(observed[..., i].double().mean()),
        }
        for i, name in enumerate(series.names)
    ]


def _number(value: Tensor) -> float | str:
    return float(value) if torch.isfinite(value) else ""


# -- figures
# ------------------------------------------------------------------------------------------------------

Drawn = tuple[Any, list[dict[str, Any]]]


def draw_autocorrelation(values: np.ndarray, names: tuple[str, ...], lags: int) -> Drawn:
    """(figure, rows) of each feature's autocorrelation up to `lags` steps."""
    correlation = autocorrelation(values, lags)
    figure, grid = plots.small_multiples(names, 5, "lag (steps)", "autocorrelation, training part")
    for axis, column in zip(grid, correlation.T, strict=True):
        axis.axhline(0, color="#999999", lw=0.7)
        axis.vlines(range(lags + 1), 0, column, color=plots.COLOURS[0], lw=1)
        axis.set_ylim(min(-0.3, float(column.min())), 1.02)
        axis.set_xticks(range(0, lags + 1, 24))
    rows = [{"lag": lag, **dict(zip(names, row, strict=True))} for lag, row in enumerate(correlation.tolist())]
    return figure, rows


def autocorrelation(values: np.ndarray, lags: int) -> np.ndarray:
    """(lags + 1, features): the usual biased estimate; 0 for a constant column."""
    centred = values - values.mean(axis=0)
    power = (centred**2).sum(axis=0)
    sums = [(centred[lag:] * centred[: len(centred) - lag]).sum(axis=0) for lag in range(lags + 1)]
    return np.array(sums) / np.where(power > 0, power, 1)


def draw_correlation(values: np.ndarray, names: tuple[str, ...]) -> Drawn:
    centred = values - values.mean(axis=0)
    norm = np.sqrt((centred**2).sum(axis=0))
    centred = centred / np.where(norm > 0, norm, 1)
    table = (centred.T @ centred).tolist()
    rows = [{"feature": name, **dict(zip(names, row, strict=True))} for name, row in zip(names, table, strict=True)]
    return plots.matrix(table, names, "Correlation of the features, training part"), rows


def draw_predicted_actual(predicted: np.ndarray, actual: np.ndarray, names: tuple[str, ...]) -> Drawn:
    figure, grid = plots.small_multiples(names, 5, "actual", "predicted, one step ahead, test part")
    for i, axis in enumerate(grid):
        low, high = (
            min(predicted[:, i].min(), actual[:, i].min()),
            max(predicted[:, i].max(), actual[:, i].max()),
        )
        axis.plot([low, high], [low, high], color="#999999", lw=0.8)
        axis.scatter(actual[:, i], predicted[:, i], s=2, color=plots.COLOURS[0], alpha=0.3, lw=0)
    rows = [_side_by_side(names, a, p) for a, p in zip(actual, predicted, strict=True)]
    return figure, rows


def draw_residuals(residuals: np.ndarray, names: tuple[str, ...], bins: int = 40) -> Drawn:
    figure, grid = plots.small_multiples(names, 5, "predicted - actual", "test hours")
    rows = []
    for axis, name, column in zip(grid, names, residuals.T, strict=True):
        counts, edges = np.histogram(column, bins=bins)
        axis.stairs(counts, edges, fill=True, color=plots.COLOURS[0])
        axis.axvline(0, color="#999999", lw=0.8)
        rows += [{"feature": name, "from": float(e), "count": int(c)} for c, e in zip(counts, edges, strict=False)]
    return figure, rows


def draw_forecast(
    predicted: np.ndarray, actual: np.ndarray, times: np.ndarray, names: tuple[str, ...], last: int = 168
) -> Drawn:
    """The last week, hour by hour."""
    last = min(last, len(actual))
    figure, grid = plots.small_multiples(names, 3, "last test hours", "", size=(4.2, 1.6))
    for i, axis in enumerate(grid):
        axis.plot(actual[-last:, i], color="#555555", lw=1, label="actual")
        axis.plot(predicted[-last:, i], color=plots.COLOURS[1], lw=1, label="predicted")
    grid[0].legend(frameon=False, fontsize=7, ncols=2)
    first = len(actual) - last
    rows = [{"time": str(times[i]), **_side_by_side(names, actual[i], predicted[i])} for i in range(first, len(actual))]
    return figure, rows


def _side_by_side(names: tuple[str, ...], actual: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    pairs = zip(names, actual.tolist(), predicted.tolist(), strict=True)
    return {f"{kind} {name}": value for name, a, p in pairs for kind, value in (("actual", a), ("predicted", p))}


# -- new series
# ---------------------------------------------------------------------------------------------------


@dataclass
class ForecastFile:
    """Forecasts the steps after a new series: `dl-lab predict RUN data.csv` of a forecasting run."""

    model: nn.Module
    layout: Layout

    def __call__(
        self, path: Path, weights: Mapping[str, Tensor], preprocessing: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """One row for each future step: its time and each feature, in the file's units."""
        series = read_series(path, self.layout)
        scaler, window = Scaler.from_plain(preprocessing["scaler"]), preprocessing["window"]
        if len(series) < window:
            raise UserError(f"{path} has {len(series)} rows, less than one window of {window}.")
        self.model.load_state_dict(dict(weights))
        self.model.eval()
        with torch.no_grad():
            forecast = self.model(to_tensor(scaler.scaled(series.values[-window:]))[None])[0]
        values = scaler.unscaled(forecast.double().numpy())
        step = np.timedelta64(self.layout.step_minutes * 60, "s")
        return [
            {"time": str(series.times[-1] + (i + 1) * step), **dict(zip(series.names, row, strict=True))}
            for i, row in enumerate(values.tolist())
        ]
