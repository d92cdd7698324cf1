"""Find anomalies by reconstruction error: a fit on normal rows, scores of the points, and a comparison with labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.series.content import SeriesContent
from dl_lab.datasets.series.layout import Layout
from dl_lab.datasets.series.scaler import Scaler
from dl_lab.datasets.series.tables import Series, read_series
from dl_lab.datasets.series.windows import to_tensor, windows
from dl_lab.procedures.fit import WithFit
from dl_lab.procedures.nab import PROFILES, best_score, nab_score
from dl_lab.procedures.rows import Drawn, Row
from dl_lab.runs.recorder import Run
from dl_lab.show import plots
from dl_lab.training.learners import GradientLearner
from dl_lab.training.trainer import Trainer
from dl_lab.types import Answer, Metrics, UserError

PointScore = Literal["trailing", "last", "covering"]
Rule = Literal["quantile", "sigmas"]
Spans = Sequence[tuple[int, int]]  # (first row, last row), both inclusive


@dataclass
class AnomalyDetection(WithFit[GradientLearner]):
    """Fit an autoencoder on normal rows, score every point, and call a point anomalous from the threshold on.

    The threshold comes from the validation points. The test labels are read once, to judge.

    Args:
        dataset: Windows of a series with labelled anomalies.
        learner: How the autoencoder learns.
        trainer: The trainer.
        point_score: How the errors of the windows make the score of a point. "trailing" is the mean error of the window
            that ends at the point, "last" the error of that window at the point alone; both use only the past.
            "covering" is the mean error of all windows over the point, which needs the future.
        rule: "quantile" takes a quantile of the validation scores as the threshold, "sigmas" their mean plus some
            deviations.
        level: The quantile, between 0 and 1; or the number of deviations.
        season: Rows of one period, for the detector without a model (the change since one period before).
    """

    imports = plots.IMPORTS

    dataset: Dataset
    learner: GradientLearner
    trainer: Trainer
    point_score: PointScore = "trailing"
    rule: Rule = "quantile"
    level: float = 0.99
    season: int = 336

    def __post_init__(self) -> None:
        """Raise ValueError for a level that is not a quantile."""
        if self.rule == "quantile" and not 0 < self.level < 1:
            raise ValueError(f"level {self.level} is not a quantile: it must be between 0 and 1")

    def __call__(self, run: Run) -> Metrics:
        """Fit, score and judge; return the metrics of the fit and of the detections.

        Raises:
            UserError: The data set has no labelled anomalies.
        """
        metrics = self.fit(run)
        content = self.dataset.content_as(SeriesContent)
        series = content.series
        scaler = content.scaler
        ends = content.ends
        labelled = content.labelled
        if labelled is None:
            raise UserError(f"The anomalies of {self.dataset.name} are not known: there is nothing to compare with.")
        length = self.dataset.preprocessing["window"]
        values = scaler.apply(series.values)
        errors = measure_window_errors(self.learner.model, values, length)
        all_scores = {mode: score_points(errors, mode) for mode in ("trailing", "last", "covering")}
        all_scores["no model: change in a week"] = score_by_season(values, self.season, length)
        rows = []
        for name, scores in all_scores.items():
            threshold = choose_threshold(scores, ends, length, self.rule, self.level)
            rows.append({"scores": name, **judge(scores, threshold, ends[1], labelled)})
        run.table("detectors", rows)
        scores = all_scores[self.point_score]
        threshold = choose_threshold(scores, ends, length, self.rule, self.level)
        chosen = next(row for row in rows if row["scores"] == self.point_score)
        metrics |= {f"test/{name}": value for name, value in chosen.items() if name != "scores"}
        covering = next(row for row in rows if row["scores"] == "covering")
        for name in ("roc_auc", "precision", "recall"):  # for comparison: this score looks up to a window ahead
            metrics[f"test/covering/{name}"] = covering[name]
        run.facts("preprocessing", {**self.dataset.preprocessing, "threshold": threshold, "score": self.point_score})
        run.table("windows", list_windows(scores >= threshold, series, labelled))
        run.figure("anomalies", *draw(series, content.titles[0], scores, threshold, ends, labelled))
        run.finish(metrics)
        return metrics


# -- scores --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def measure_window_errors(model: nn.Module, values: np.ndarray, length: int, batch_size: int = 1024) -> np.ndarray:
    """Measure the squared errors of all windows, a mean over the features.

    Args:
        model: The autoencoder.
        values: Scaled values (n, features).
        length: Rows of a window.
        batch_size: Windows that the model takes at once.

    Returns:
        The errors (n_windows, length).
    """
    model.cpu().eval()
    parts = windows(to_tensor(values), length).split(batch_size)
    return torch.cat([(model(x) - x).square().mean(dim=2) for x in parts]).double().numpy()


def score_points(errors: np.ndarray, mode: PointScore) -> np.ndarray:
    """Make the scores of the points from the errors of the windows (n_windows, length).

    Returns:
        The scores (n_windows + length - 1,); NaN before the first window ends, unless the mode is "covering".
    """
    n_windows, length = errors.shape
    scores = np.full(n_windows + length - 1, np.nan)
    if mode == "covering":
        means = errors.mean(axis=1)
        total = np.convolve(means, np.ones(length))
        return total / np.convolve(np.ones(n_windows), np.ones(length))
    scores[length - 1 :] = errors[:, -1] if mode == "last" else errors.mean(axis=1)
    return scores


def score_by_season(values: np.ndarray, season: int, length: int) -> np.ndarray:
    """Score the points without a model, by the mean squared change since `season` rows before.

    Args:
        values: Scaled values (n, features).
        season: Rows of one period.
        length: How many of the last rows the mean takes.

    Returns:
        The scores (n,); NaN for a point that has not enough rows before it.
    """
    changes = ((values[season:] - values[:-season]) ** 2).mean(axis=1)
    scores = np.full(len(values), np.nan)
    if len(changes) >= length:
        scores[season + length - 1 :] = np.convolve(changes, np.ones(length) / length, mode="valid")
    return scores


def choose_threshold(scores: np.ndarray, ends: Sequence[int], length: int, rule: Rule, level: float) -> float:
    """Choose a threshold from the validation points all of whose windows lie in the validation part.

    Args:
        scores: Scores (n,).
        ends: The row after the last one of train, val and test.
        length: Rows of a window.
        rule: "quantile" or "sigmas"; see `AnomalyDetection`.
        level: The quantile, or the number of deviations.

    Returns:
        The threshold; infinity if there is no such point.
    """
    first = ends[0] + length - 1
    last = ends[1] - length + 1
    known = scores[first : max(last, first + 1)]
    known = known[np.isfinite(known)]
    if not len(known):
        return float("inf")
    if rule == "quantile":
        return float(np.quantile(known, level))
    return float(known.mean() + level * known.std())


# -- judging -------------------------------------------------------------------------------------------------------


def judge(scores: np.ndarray, threshold: float, start: int, labelled: Spans) -> Metrics:
    """Compare the detections with the labelled windows.

    Args:
        scores: Scores (n,).
        threshold: A point is detected from this score on.
        start: The first row that is judged.
        labelled: The labelled windows.

    Returns:
        The metrics of the judged points, and the NAB score of the whole series. `accuracy_of_none` is the accuracy of
        calling every point normal.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    truth = np.zeros(len(scores), dtype=bool)
    for first, last in labelled:
        truth[first : last + 1] = True
    detected = scores >= threshold  # NaN is never a detection
    t = truth[start:]
    d = detected[start:]
    rank = np.nan_to_num(scores[start:], nan=0.0)
    hits = int((t & d).sum())
    n_detected = int(d.sum())
    n_anomalous = int(t.sum())
    metrics = {
        "accuracy": float((t == d).mean()),
        "accuracy_of_none": float((~t).mean()),
        "precision": hits / n_detected if n_detected else 0.0,
        "recall": hits / n_anomalous,
        "f1": 2 * hits / (n_detected + n_anomalous),
        "roc_auc": float(roc_auc_score(t, rank)),
        "average_precision": float(average_precision_score(t, rank)),
        "windows_found": float(sum(detected[first : last + 1].any() for first, last in labelled)),
        "windows": float(len(labelled)),
        "threshold": threshold,
    }
    metrics |= {f"nab_{name}": nab_score(detected, labelled, profile) for name, profile in PROFILES.items()}
    metrics["nab_standard_best_in_hindsight"] = best_score(scores, labelled, PROFILES["standard"])
    return metrics


def list_windows(detected: np.ndarray, series: Series, labelled: Spans) -> list[Row]:
    """Return a row for each labelled window: whether it was found, and how long after its start."""
    rows: list[Row] = []
    for first, last in labelled:
        hits = np.flatnonzero(detected[first : last + 1])
        rows.append(
            {
                "start": str(series.times[first]),
                "end": str(series.times[last]),
                "points": last - first + 1,
                "detected_points": len(hits),
                "found": bool(len(hits)),
                "first_detection": str(series.times[first + hits[0]]) if len(hits) else "",
                "delay_rows": int(hits[0]) if len(hits) else "",
            }
        )
    return rows


def draw(
    series: Series, title: str, scores: np.ndarray, threshold: float, ends: Sequence[int], labelled: Spans
) -> Drawn:
    """Draw the series, and below it the scores and the threshold; shade labelled windows and mark detections.

    Args:
        series: The series.
        title: Its title, with its unit.
        scores: Scores (n,).
        threshold: A point is detected from this score on.
        ends: The row after the last one of train, val and test.
        labelled: The labelled windows.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1, 1])
    detected = scores >= threshold
    above.plot(series.times, series.values[:, 0], color="#555555", lw=0.5)
    above.plot(
        series.times[detected],
        series.values[detected, 0],
        ".",
        ms=3,
        color=plots.COLOURS[1],
        label="detected",
    )
    below.plot(series.times, scores, color=plots.COLOURS[0], lw=0.7, label="score")
    below.axhline(threshold, color=plots.COLOURS[1], lw=1, ls="--", label=f"threshold {threshold:.3g}")
    below.set_yscale("log")
    for axis in (above, below):
        for i, (first, last) in enumerate(labelled):
            label = "labelled anomaly" if i == 0 else None
            axis.axvspan(*series.times[[first, last]], color=plots.COLOURS[3], alpha=0.18, lw=0, label=label)
        for end, name in zip(ends[:2], ("validation from here", "test from here"), strict=True):
            axis.axvline(series.times[end], color="#999999", lw=0.8, ls=":")
            if axis is above:
                place = (series.times[end], 1.0)
                axis.annotate(
                    name,
                    place,
                    xycoords=("data", "axes fraction"),
                    fontsize=8,
                    rotation=90,
                    va="top",
                    ha="right",
                )
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=True, framealpha=0.9, edgecolor="none", fontsize=8, loc="upper left", ncols=3)
    above.set_ylabel(title)
    plots.show_dates(below)
    below.set_ylabel("reconstruction error")
    columns = zip(series.times, series.values[:, 0].tolist(), scores.tolist(), detected.tolist(), strict=True)
    rows: list[Row] = []
    for time, value, score, is_detected in columns:
        cell = score if np.isfinite(score) else ""
        rows.append({"time": str(time), "value": value, "score": cell, "detected": is_detected})
    return figure, rows


# -- new series ---------------------------------------------------------------------------------------------------


@dataclass
class ScoreFile:
    """Score a new series: `dl-lab predict RUN data.csv` with a run that detects anomalies.

    Args:
        model: The run's model.
        layout: How the new file is written: as the run's own file, unless the user overrides a key.
    """

    model: nn.Module
    layout: Layout

    def __call__(self, path: Path, weights: Mapping[str, Tensor], preprocessing: Mapping[str, Any]) -> Answer:
        """Score the rows of a file.

        Returns:
            A row for each row of the file: its time, its score ("" before a whole window has passed), whether it is
            anomalous, and whether its value was filled in.

        Raises:
            UserError: The file cannot be read, or is shorter than a window.
        """
        series = read_series(path, self.layout, "layout")
        length = preprocessing["window"]
        if len(series) < length:
            raise UserError(f"{path} has {len(series)} rows, but a window needs {length}.")
        self.model.load_state_dict(dict(weights))
        values = Scaler.from_plain(preprocessing["scaler"]).apply(series.values)
        scores = score_points(measure_window_errors(self.model, values, length), preprocessing["score"])
        threshold = preprocessing["threshold"]
        measured = np.asarray(series.observed.all(axis=1))
        rows: list[Row] = []
        for time, score, known in zip(series.times, scores.tolist(), measured.tolist(), strict=True):
            cell = score if np.isfinite(score) else ""
            row: Row = {"time": str(time), "score": cell, "anomalous": score >= threshold}
            if not measured.all():
                row["filled"] = not known
            rows.append(row)
        return Answer(rows, [f"repaired in {path}: {series.note()}"] if series.note() else [])
