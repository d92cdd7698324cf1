"""Figures, drawn the same way everywhere: rows in, a matplotlib Figure out (no pyplot, no global state)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#3366cc", "#e2711d", "#2a9d5c", "#b5179e", "#8d6e63", "#607d8b")  # told apart also without colour vision


def axes(title: str, x: str = "", y: str = "", size: tuple[float, float] = (6.0, 4.0)) -> tuple[Figure, Axes]:
    """An empty figure with one set of axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    axis = figure.add_subplot()
    axis.set_title(title)
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def curves(rows: Sequence[Mapping[str, Any]], x: str, title: str, mark: float | None = None) -> Figure:
    """One line for each column but `x`, named at its end; a vertical line at `mark`."""
    figure, axis = axes(title, x)
    for colour, name in zip(COLOURS, [key for key in rows[0] if key != x], strict=False):
        points = [(row[x], row[name]) for row in rows if row.get(name) is not None]
        axis.plot(*zip(*points, strict=True), color=colour, label=name, marker="o" if len(points) < 25 else None, ms=3)
    if mark is not None:
        axis.axvline(mark, color="#999999", lw=1, ls=":", label=f"best epoch ({mark})")
    axis.legend(frameon=False)
    axis.grid(axis="y", alpha=0.3)
    if all(isinstance(row[x], int) for row in rows):
        axis.xaxis.get_major_locator().set_params(integer=True)
    return figure


def confusion_matrix(counts: Sequence[Sequence[int]], names: Sequence[str], title: str) -> Figure:
    """Counts by true (row) and predicted (column) class, coloured by the share of the row."""
    n = len(counts)
    figure, axis = axes(title, "predicted", "true", size=(2.5 + 0.5 * n, 2.2 + 0.5 * n))
    shares = [[count / max(sum(row), 1) for count in row] for row in counts]
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axis.set_xticks(range(n), names, rotation=45 if max(map(len, names)) > 3 else 0)
    axis.set_yticks(range(n), names)
    for i, row in enumerate(counts):
        for j, count in enumerate(row):
            axis.text(j, i, str(count), ha="center", va="center", color="white" if shares[i][j] > 0.5 else "black")
    return figure
