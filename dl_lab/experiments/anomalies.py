"""Anomalies by reconstruction error: a fit on what is normal, scores of points, and how they are
judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from dl_lab import plots
from dl_lab.datasets.series import Layout, Scaler, Series, read_series, to_tensor, windows
from dl_lab.experiments.fit import Fit
from dl_lab.experiments.nab import PROFILES, best_score, nab_score
from dl_lab.run import Run
from dl_lab.training.learners import GradientLearner
from dl_lab.types import Metrics, UserError

PointScore = Literal["trailing", "last", "covering"]
Rule = Literal["quantile", "sigmas"]
Spans = Sequence[tuple[int, int]]  # (first row, last row), both inclusive


@dataclass
class AnomalyDetection(Fit[GradientLearner]):
    """Fit an autoencoder on normal rows, score every point, call those at least at the threshold anomalous.

    point_score: what a point's score is made of, the errors of the windows that hold it. "trailing": the mean
    error of the window that ends at the point; "last": that window's error at the point alone; both use the
    past only. "covering": the mean error of all windows over the point, which waits for the future. rule,
    level: the threshold is that quantile of the validation points' scores, or their mean plus so many
    deviations. season: rows of a period for the detector without a model (the change since one period
    before). The test labels are looked at once, to judge.
    """

    point_score: PointScore = "trailing"
    rule: Rule = "quantile"
    level: float = 0.99
    season: int = 336

    def __post_init__(self) -> None:
        if self.rule == "quantile" and not 0 < self.level < 1:
            raise ValueError(f"level {self.level} is no quantile: it must lie between 0 and 1")

    def __call__(self, run: Run) -> Metrics:
        metrics = super().__call__(run)
        series, scaler, ends, labelled = (
            self.dataset.extras[name] for name in ("series", "scaler", "ends", "labelled")
        )
        length = self.dataset.preprocessing["window"]
        values = scaler.scaled(series.values)
        errors = window_errors(self.learner.model, values, length)
        all_scores = {mode: point_scores(errors, mode) for mode in ("trailing", "last", "covering")}
        all_scores["no model: change in a week"] = seasonal_scores(values, self.season, length)
        rows = []
        for name, scores in all_scores.items():
            threshold = choose_threshold(scores, ends, length, self.rule, self.level)
            rows.append({"scores": name, **judge(scores, threshold, ends[1], labelled)})
        run.table("detectors", rows)
        scores = all_scores[self.point_score]
        threshold = choose_threshold(scores, ends, length, self.rule, self.level)
        chosen = next(row for row in rows if row["scores"] == self.point_score)
        metrics |= {f"test/{name}": value for name, value in chosen.items() if name != "scores"}
        run.facts("preprocessing", {**self.dataset.preprocessing, "threshold": threshold, "score": self.point_score})
        run.table("windows", found_windows(scores >= threshold, series, labelled))
        run.figure("anomalies", *draw(series, scores, threshold, ends, labelled))
        run.finish(metrics)
        return metrics


# -- scores
# -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def window_errors(model: nn.Module, values: np.ndarray, length: int, batch_size: int = 1024) -> np.ndarray:
    """Squared errors (n_windows, length) of all windows of scaled values (n, features), the mean over
    features.
    """
    model.cpu().eval()
    parts = windows(to_tensor(values), length).split(batch_size)
    return torch.cat([(model(x) - x).square().mean(dim=2) for x in parts]).double().numpy()


def point_scores(errors: np.ndarray, mode: PointScore) -> np.ndarray:
    """(n_windows, length) errors -> (n_windows + length - 1,); NaN before the first window ends."""
    n_windows, length = errors.shape
    scores = np.full(n_windows + length - 1, np.nan)
    if mode == "covering":
        means = errors.mean(axis=1)
        total = np.convolve(means, np.ones(length))
        return total / np.convolve(np.ones(n_windows), np.ones(length))
    scores[length - 1 :] = errors[:, -1] if mode == "last" else errors.mean(axis=1)
    return scores


def seasonal_scores(values: np.ndarray, season: int, length: int) -> np.ndarray:
    """The mean squared change since `season` rows before, over the last `length` rows; NaN where there is
    none.
    """
    changes = ((values[season:] - values[:-season]) ** 2).mean(axis=1)
    scores = np.full(len(values), np.nan)
    if len(changes) >= length:
        scores[season + length - 1 :] = np.convolve(changes, np.ones(length) / length, mode="valid")
    return scores


def choose_threshold(scores: np.ndarray, ends: Sequence[int], length: int, rule: Rule, level: float) -> float:
    """From the points of the validation part whose windows (all of them) lie in it."""
    first, last = ends[0] + length - 1, ends[1] - length + 1
    known = scores[first : max(last, first + 1)]
    known = known[np.isfinite(known)]
    if not len(known):
        return float("inf")
    return float(np.quantile(known, level) if rule == "quantile" else known.mean() + level * known.std())


# -- judging
# ------------------------------------------------------------------------------------------------------


def judge(scores: np.ndarray, threshold: float, start: int, labelled: Spans) -> Metrics:
    """The points from `start` on against the labelled windows, and the NAB score of the whole series.

    accuracy_of_none: what calling every point normal would reach.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    truth = np.zeros(len(scores), dtype=bool)
    for first, last in labelled:
        truth[first : last + 1] = True
    detected = scores >= threshold  # NaN is never a detection
    t, d = truth[start:], detected[start:]
    rank = np.nan_to_num(scores[start:], nan=0.0)
    hits, n_detected, n_anomalous = int((t & d).sum()), int(d.sum()), int(t.sum())
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


def found_windows(detected: np.ndarray, series: Series, labelled: Spans) -> list[dict[str, Any]]:
    """One row for each labelled window: found or missed, and how long after its start."""
    rows = []
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
    series: Series, scores: np.ndarray, threshold: float, ends: Sequence[int], labelled: Spans
) -> tuple[Any, list[dict[str, Any]]]:
    """The series above, its scores below with the threshold; labelled windows shaded, detections marked."""
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
    above.set_ylabel(series.names[0])
    below.set_ylabel("error")
    columns = zip(series.times, series.values[:, 0].tolist(), scores.tolist(), detected.tolist(), strict=True)
    rows = [{"time": str(t), "value": v, "score": s if np.isfinite(s) else "", "detected": d} for t, v, s, d in columns]
    return figure, rows


# -- new series
# ---------------------------------------------------------------------------------------------------


@dataclass
class ScoreFile:
    """Scores a new series: what `dl-lab predict RUN data.csv` does with an anomaly detection run."""

    model: nn.Module
    layout: Layout

    def __call__(
        self, path: Path, weights: Mapping[str, Tensor], preprocessing: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """One row for each row of the file: time, score ("" before a whole window), anomalous or not."""
        series = read_series(path, self.layout)
        length = preprocessing["window"]
        if len(series) < length:
            raise UserError(f"{path} has {len(series)} rows, less than one window of {length}.")
        self.model.load_state_dict(dict(weights))
        values = Scaler.from_plain(preprocessing["scaler"]).scaled(series.values)
        scores = point_scores(window_errors(self.model, values, length), preprocessing["score"])
        threshold = preprocessing["threshold"]
        return [
            {"time": str(time), "score": score if np.isfinite(score) else "", "anomalous": score >= threshold}
            for time, score in zip(series.times, scores.tolist(), strict=True)
        ]
