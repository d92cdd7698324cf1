"""Figures of classifiers: confusion matrix, scores by class, ROC curves, decision regions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dl_lab.show.plots import COLOURS, STYLES, axes, shorten

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray


def confusion_matrix(counts: Sequence[Sequence[int]], names: Sequence[str], title: str) -> Figure:
    """Draw the counts by true (row) and predicted (column) class, coloured by their share of the row.

    Args:
        counts: The counts (n_classes, n_classes).
        names: The names of the classes.
        title: The title.
    """
    n = len(counts)
    longest = max(map(len, names))
    figure, axis = axes(title, "predicted", "true", size=(2.5 + 0.5 * n, 2.2 + 0.5 * n))
    if longest > 3:
        figure.subplots_adjust(left=0.25, bottom=0.25)
    shares = [[count / max(sum(row), 1) for count in row] for row in counts]
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.set_xticks(range(n), names, rotation=45 if longest > 3 else 0)
    axis.set_yticks(range(n), names)
    for i, row in enumerate(counts):
        for j, count in enumerate(row):
            colour = "white" if shares[i][j] > 0.5 else "black"
            axis.text(j, i, str(count), ha="center", va="center", color=colour)
    return figure


def class_scores(rows: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Draw precision, recall and F1 of each class as bars.

    Args:
        rows: One row a class, with the columns "class", "precision", "recall" and "f1".
        title: The title.
    """
    figure, axis = axes(title, y="score", size=(max(4.0, 1.2 + 0.7 * len(rows)), 4.0))
    figure.subplots_adjust(bottom=0.28, top=0.82)
    for i, (colour, name) in enumerate(zip(COLOURS, ("precision", "recall", "f1"), strict=False)):
        places = [place + 0.27 * (i - 1) for place in range(len(rows))]
        axis.bar(places, [row[name] for row in rows], 0.25, color=colour, label=name)
    axis.set_xticks(range(len(rows)), [shorten(str(row["class"])) for row in rows], rotation=45, ha="right", fontsize=8)
    axis.set_ylim(0, 1)
    axis.grid(axis="y", alpha=0.3)
    axis.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8)
    axis.set_title(title, pad=24)
    return figure


def roc_curves(rows: Sequence[Mapping[str, Any]], areas: Mapping[str, float], title: str) -> Figure:
    """Draw one curve for each class, with its area in the legend; at most 32 of them.

    Args:
        rows: The points, with the columns "class", "false_positive_rate" and "true_positive_rate".
        areas: Class -> area under its curve.
        title: The title.
    """
    figure, axis = axes(title, "false positive rate", "true positive rate", size=(6.4, 4.6))
    figure.subplots_adjust(right=0.64)
    for (colour, style), (name, area) in zip(STYLES, areas.items(), strict=False):
        points = [(row["false_positive_rate"], row["true_positive_rate"]) for row in rows if row["class"] == name]
        axis.plot(*zip(*points, strict=True), color=colour, ls=style, label=f"{shorten(name)} ({area:.3f})")
    axis.plot([0, 1], [0, 1], color="#999999", lw=1, ls=":")
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), title="area")
    axis.set_aspect("equal")
    return figure


def decision_regions(
    panels: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.generic]]],
    boundaries: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]],
    points: Sequence[Sequence[float]],
    labels: Sequence[int],
    names: Mapping[int, str],
    span: float = 2.0,
) -> Figure:
    """Draw one panel for each classifier of the plane: its regions, its hidden units' zero lines, the labelled points.

    Args:
        panels: Title -> classifier, which maps (n, 2) points to (n,) labels.
        boundaries: Title -> function that maps (n, 2) points to the inputs of the hidden units (n, units).
        points: The labelled points.
        labels: Their labels.
        names: Label -> name.
        span: The panels show [-span, span] in both directions.
    """
    import numpy as np
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.4 * len(panels), 4.4), layout="constrained")
    x, y = np.meshgrid(np.linspace(-span, span, 301), np.linspace(-span, span, 301))
    grid = np.column_stack([x.ravel(), y.ravel()])
    colour = dict(zip(names, COLOURS, strict=False))
    for axis, (title, classify) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        regions = np.searchsorted(sorted(names), classify(grid)).reshape(x.shape)
        shades = ListedColormap([colour[label] for label in sorted(names)])
        axis.pcolormesh(x, y, regions, cmap=shades, vmin=0, vmax=len(names) - 1, alpha=0.22, rasterized=True)
        for unit in boundaries[title](grid).T:
            axis.contour(x, y, unit.reshape(x.shape), levels=[0], colors="#555555", linewidths=1, linestyles="--")
        for label, name in names.items():
            chosen = [point for point, own in zip(points, labels, strict=True) if own == label]
            xs, ys = zip(*chosen, strict=True)
            marker = "o" if label == max(names) else "X"
            axis.scatter(xs, ys, s=90, color=colour[label], edgecolor="white", marker=marker, zorder=3, label=name)
        axis.set(title=title, aspect="equal", xlabel="$x_1$", xticks=range(-2, 3), yticks=range(-2, 3))
    figure.axes[0].set_ylabel("$x_2$")
    handles, texts = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, frameon=False, loc="outside lower center", ncols=len(names))
    return figure
