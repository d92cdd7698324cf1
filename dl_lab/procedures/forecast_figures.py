"""Figures of forecasts: correlations of the series, forecasts over what came, and the errors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dl_lab.procedures.rows import Drawn, Row
from dl_lab.show import plots


def draw_autocorrelation(values: np.ndarray, names: tuple[str, ...], lags: int) -> Drawn:
    """Draw the autocorrelation of each feature of values (n, features), up to `lags` steps."""
    correlation = autocorrelation(values, lags)
    figure, grid = plots.small_multiples(names, 5, "lag in steps of the series", "autocorrelation, training part")
    for axis, column in zip(grid, correlation.T, strict=True):
        axis.axhline(0, color="#999999", lw=0.7)
        axis.vlines(range(lags + 1), 0, column, color=plots.COLOURS[0], lw=1)
        axis.set_ylim(min(-0.3, float(column.min())), 1.02)
        axis.set_xticks(range(0, lags + 1, 24))
    rows: list[Row] = []
    for lag, row in enumerate(correlation.tolist()):
        rows.append({"lag": lag, **dict(zip(names, row, strict=True))})
    return figure, rows


def autocorrelation(values: np.ndarray, lags: int) -> np.ndarray:
    """Return the usual biased estimate of the autocorrelation, (lags + 1, features); 0 for a constant column."""
    centred = values - values.mean(axis=0)
    power = (centred**2).sum(axis=0)
    sums = [(centred[lag:] * centred[: len(centred) - lag]).sum(axis=0) for lag in range(lags + 1)]
    return np.array(sums) / np.where(power > 0, power, 1)


def draw_correlation(values: np.ndarray, names: tuple[str, ...]) -> Drawn:
    """Draw the correlations of the features of values (n, features)."""
    centred = values - values.mean(axis=0)
    norm = np.sqrt((centred**2).sum(axis=0))
    centred = centred / np.where(norm > 0, norm, 1)
    table = (centred.T @ centred).tolist()
    rows: list[Row] = []
    for name, row in zip(names, table, strict=True):
        rows.append({"feature": name, **dict(zip(names, row, strict=True))})
    return plots.matrix(table, names, "Correlation of the features, training part"), rows


def draw_predicted_actual(
    predicted: np.ndarray, actual: np.ndarray, names: tuple[str, ...], titles: Sequence[str]
) -> Drawn:
    """Draw forecasts over what came, in a panel for each feature.

    Args:
        predicted: Forecasts (n, features).
        actual: What came, (n, features).
        names: Names of the features.
        titles: Their titles, with their units.
    """
    figure, grid = plots.small_multiples(titles, 5, "actual", "predicted, one step ahead, test part")
    for i, axis in enumerate(grid):
        low = min(predicted[:, i].min(), actual[:, i].min())
        high = max(predicted[:, i].max(), actual[:, i].max())
        axis.plot([low, high], [low, high], color="#999999", lw=0.8)
        axis.scatter(actual[:, i], predicted[:, i], s=2, color=plots.COLOURS[0], alpha=0.3, lw=0)
    rows = [_put_side_by_side(names, a, p) for a, p in zip(actual, predicted, strict=True)]
    return figure, rows


def draw_residuals(residuals: np.ndarray, names: tuple[str, ...], titles: Sequence[str], bins: int = 40) -> Drawn:
    """Draw how often each error occurs, in a panel for each feature.

    Args:
        residuals: Errors (n, features).
        names: Names of the features.
        titles: Their titles, with their units.
        bins: Bars of a panel.
    """
    figure, grid = plots.small_multiples(titles, 5, "predicted - actual", "number of test rows")
    rows: list[Row] = []
    for axis, name, column in zip(grid, names, residuals.T, strict=True):
        counts, edges = np.histogram(column, bins=bins)
        axis.stairs(counts, edges, fill=True, color=plots.COLOURS[0])
        axis.axvline(0, color="#999999", lw=0.8)
        for count, edge in zip(counts, edges, strict=False):  # there is an edge more than counts
            rows.append({"feature": name, "from": float(edge), "count": int(count)})
    return figure, rows


def draw_forecast(
    predicted: np.ndarray,
    actual: np.ndarray,
    times: np.ndarray,
    names: tuple[str, ...],
    titles: Sequence[str],
    last: int = 168,
) -> Drawn:
    """Draw forecasts and what came for the last rows of the test part.

    Args:
        predicted: Forecasts (n, features).
        actual: What came, (n, features).
        times: The time of each row, (at least n,).
        names: Names of the features.
        titles: Their titles, with their units.
        last: How many rows are drawn; 168 hours are a week.
    """
    last = min(last, len(actual))
    figure, grid = plots.small_multiples(titles, 3, "date, end of the test part", "", size=(4.2, 1.7))
    when = times[len(actual) - last : len(actual)]
    for i, axis in enumerate(grid):
        axis.plot(when, actual[-last:, i], color="#555555", lw=1, label="actual")
        axis.plot(when, predicted[-last:, i], color=plots.COLOURS[1], lw=1, label="predicted")
        plots.show_dates(axis)
    grid[0].legend(frameon=False, fontsize=7, ncols=2)
    first = len(actual) - last
    rows: list[Row] = []
    for i in range(first, len(actual)):
        rows.append({"time": str(times[i]), **_put_side_by_side(names, actual[i], predicted[i])})
    return figure, rows


def _put_side_by_side(names: tuple[str, ...], actual: np.ndarray, predicted: np.ndarray) -> Row:
    """Return what came and its forecast, both (features,), as the cells of a row."""
    row: Row = {}
    for name, a, p in zip(names, actual.tolist(), predicted.tolist(), strict=True):
        row[f"actual {name}"] = a
        row[f"predicted {name}"] = p
    return row
