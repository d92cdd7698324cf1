"""Figures in one style: each function takes rows and returns a matplotlib Figure (no pyplot, no global state)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IMPORTS = ("matplotlib.backends.backend_agg",)  # a class that draws declares these as its `imports`
COLOURS = (  # after Okabe and Ito: the colour-blind can tell them apart, and their lightness differs in grey
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#000000",
    "#56b4e9",
    "#e69f00",
    "#8a7000",
)
# Ten classes at once need ten colours; two of each pair differ in lightness.
CLASS_COLOURS = (*COLOURS, "#7f7f7f", "#b3402e")
STYLES = tuple(  # a colour and a line style for each of many lines
    (colour, style) for style in ("-", "--", ":", "-.") for colour in COLOURS
)


def axes(title: str, x: str = "", y: str = "", size: tuple[float, float] = (6.0, 4.0)) -> tuple[Figure, Axes]:
    """Make an empty figure with one set of axes. Its margins are fixed: a layout engine would draw everything twice."""
    figure, (axis,) = panels([title], x, y, size)
    return figure, axis


def panels(
    titles: Sequence[str], x: str = "", y: str = "", size: tuple[float, float] = (4.5, 3.6)
) -> tuple[Figure, list[Axes]]:
    """Make an empty figure with sets of axes side by side, each of `size` inches."""
    from matplotlib.figure import Figure

    width = size[0] * len(titles)
    height = size[1]
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(
        left=0.75 / width,
        right=1 - 0.2 / width,
        bottom=0.6 / height,
        top=1 - 0.45 / height,
        wspace=0.9 / size[0],
    )
    found = list(figure.subplots(1, len(titles), squeeze=False)[0])
    for axis, title in zip(found, titles, strict=True):
        axis.set_title(title)
        axis.set_xlabel(x)
        axis.set_ylabel(y)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, found


def small_multiples(
    titles: Sequence[str], columns: int, x: str = "", y: str = "", size: tuple[float, float] = (2.6, 2.2)
) -> tuple[Figure, list[Axes]]:
    """Make an empty figure with a small set of axes for each title, `columns` in a row."""
    from matplotlib.figure import Figure

    n_rows = -(-len(titles) // columns)
    width = size[0] * columns
    height = size[1] * n_rows
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(
        left=0.75 / width,
        right=1 - 0.1 / width,
        bottom=0.55 / height,
        top=1 - 0.25 / height,
        wspace=0.55 / size[0],
        hspace=0.55 / size[1],
    )
    grid = [figure.add_subplot(n_rows, columns, i + 1) for i in range(len(titles))]
    for axis, title in zip(grid, titles, strict=True):
        axis.set_title(title, fontsize=9)
        axis.tick_params(labelsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(x, fontsize=9)
    figure.supylabel(y, fontsize=9)
    return figure, grid


def matrix(values: Sequence[Sequence[float]], names: Sequence[str], title: str) -> Figure:
    """Draw a square matrix of values in [-1, 1] (correlations), by colour and number."""
    n = len(names)
    figure, axis = axes(title, size=(2.5 + 0.55 * n, 1.8 + 0.5 * n))
    image = axis.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
    axis.set_xticks(range(n), names, rotation=45, ha="right", fontsize=8)
    axis.set_yticks(range(n), names, fontsize=8)
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            colour = "white" if abs(value) > 0.6 else "black"
            axis.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(image, ax=axis, shrink=0.8)
    return figure


def curves(rows: Sequence[Mapping[str, Any]], x: str, title: str, mark: float | None = None) -> Figure:
    """Draw one line for each column but `x`, and a vertical line at `mark`."""
    figure, axis = axes(title, x)
    draw_curves(axis, rows, x, [key for key in rows[0] if key != x], mark)
    return figure


def draw_curves(
    axis: Axes, rows: Sequence[Mapping[str, Any]], x: str, names: Sequence[str], mark: float | None = None
) -> None:
    """Draw lines of the named columns over the column `x`, and a vertical line at `mark`."""
    for colour, name in zip(COLOURS, names, strict=False):
        points = [(row[x], row[name]) for row in rows if row.get(name) is not None]
        if points:
            marker = "o" if len(points) < 25 else None
            axis.plot(*zip(*points, strict=True), color=colour, label=name, marker=marker, ms=3)
    if mark is not None:
        axis.axvline(mark, color="#999999", lw=1, ls=":", label=f"best epoch ({mark})")
    axis.legend(frameon=False)
    axis.grid(axis="y", alpha=0.3)
    if len(rows) == 1:  # matplotlib would show a tiny fraction of an epoch around a single one
        axis.set_xlim(rows[0][x] - 1, rows[0][x] + 1)
        axis.set_xticks([rows[0][x]])
    elif all(isinstance(row[x], int) for row in rows):
        axis.locator_params(axis="x", integer=True)


def log_lines(
    rows: Sequence[Mapping[str, Any]], x: str, y: str, by: str, title: str, labels: tuple[str, str] = ("", "")
) -> Figure:
    """Draw one line for each value of the column `by`, at most 32 of them. Both axes are logarithmic.

    Args:
        rows: The points. Points without a value of `y` are left out.
        x: The column of the horizontal axis.
        y: The column of the vertical axis.
        by: The column that tells the lines apart.
        title: The title.
        labels: The labels of the axes; "" takes the name of the column.
    """
    figure, axis = axes(title, labels[0] or x, labels[1] or y, size=(8.0, 4.5))
    for (colour, style), name in zip(STYLES, dict.fromkeys(row[by] for row in rows), strict=False):
        points = [(row[x], row[y]) for row in rows if row[by] == name and row.get(y)]
        if points:
            axis.plot(*zip(*points, strict=True), color=colour, ls=style, label=name, marker="o", ms=3)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.subplots_adjust(right=0.7)  # room for the legend
    axis.grid(alpha=0.3)
    return figure


def show_dates(axis: Axes) -> None:
    """Show short dates on a horizontal axis of times, with the year beside them."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=3, maxticks=7)
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axis.xaxis.get_offset_text().set_fontsize(7)


def shorten(name: str, length: int = 18) -> str:
    """Return a name that fits a tick of an axis: the end of a long one."""
    return name if len(name) <= length else "…" + name[1 - length :]


def bars(values: Mapping[str, float], title: str, x: str, y: str) -> Figure:
    """Draw one bar for each value, the largest one in another colour."""
    figure, axis = axes(title, x, y)
    largest = max(values, key=lambda name: values[name])
    colours = [COLOURS[1] if name == largest else COLOURS[0] for name in values]
    drawn = axis.bar(list(values), list(values.values()), color=colours)
    axis.bar_label(drawn, fmt="{:.2f}", padding=2, fontsize=8)
    return figure
