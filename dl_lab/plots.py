"""Figures, drawn the same way everywhere: rows in, a matplotlib Figure out (no pyplot, no global state)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (
    "#3366cc",
    "#e2711d",
    "#2a9d5c",
    "#b5179e",
    "#8d6e63",
    "#607d8b",
)  # told apart also without colour vision


def axes(title: str, x: str = "", y: str = "", size: tuple[float, float] = (6.0, 4.0)) -> tuple[Figure, Axes]:
    """An empty figure with one set of axes; fixed margins, because a layout engine draws everything again."""
    figure, (axis,) = panels([title], x, y, size)
    return figure, axis


def panels(
    titles: Sequence[str], x: str = "", y: str = "", size: tuple[float, float] = (4.5, 3.6)
) -> tuple[Figure, list[Axes]]:
    """An empty figure with sets of axes side by side, each of `size` inches."""
    from matplotlib.figure import Figure

    width, height = size[0] * len(titles), size[1]
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
    """One small set of axes for each title, `columns` in a row."""
    from matplotlib.figure import Figure

    n_rows = -(-len(titles) // columns)
    width, height = size[0] * columns, size[1] * n_rows
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
    """A square matrix of values in [-1, 1] (correlations), by colour and number."""
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


def image_rows(rows: Mapping[str, Sequence[Any]], title: str, vmin: float = 0, vmax: float = 1) -> Figure:
    """Grey images (height, width), one row for each name: originals over reconstructions."""
    from matplotlib.figure import Figure

    n = max(len(images) for images in rows.values())
    width, height = 0.9 * n + 0.9, 0.95 * len(rows) + 0.4
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(left=0.8 / width, right=1 - 0.1 / width, bottom=0.05 / height, top=1 - 0.35 / height)
    figure.suptitle(title, fontsize=10, y=1 - 0.1 / height)
    for i, (name, images) in enumerate(rows.items()):
        for j, image in enumerate(images):
            axis = figure.add_subplot(len(rows), n, i * n + j + 1)
            axis.imshow(image, cmap="gray", vmin=vmin, vmax=vmax)
            axis.set_xticks([])
            axis.set_yticks([])
            if j == 0:
                axis.set_ylabel(name, fontsize=8)
    return figure


def image_grid(images: Sequence[Any], columns: int, title: str, names: Sequence[str] = ()) -> Figure:
    """Images (height, width) in grey or (height, width, 3), values in [0, 1], `columns` in a row; a name below each."""
    from matplotlib.figure import Figure

    n_rows = -(-len(images) // columns)
    below = 0.22 if names else 0.0
    width, height = 0.8 * columns + 0.2, (0.8 + below) * n_rows + 0.45
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(
        left=0.1 / width, right=1 - 0.1 / width, bottom=(0.1 + below) / height, top=1 - 0.4 / height, hspace=0.1 + below
    )
    figure.suptitle(title, fontsize=10, y=1 - 0.1 / height)
    for i, image in enumerate(images):
        axis = figure.add_subplot(n_rows, columns, i + 1)
        axis.imshow(image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_xticks([])
        axis.set_yticks([])
        if names:
            axis.set_xlabel(names[i], fontsize=6, labelpad=2)
    return figure


def curves(rows: Sequence[Mapping[str, Any]], x: str, title: str, mark: float | None = None) -> Figure:
    """One line for each column but `x`; a vertical line at `mark`."""
    figure, axis = axes(title, x)
    draw_curves(axis, rows, x, [key for key in rows[0] if key != x], mark)
    return figure


def draw_curves(
    axis: Axes, rows: Sequence[Mapping[str, Any]], x: str, names: Sequence[str], mark: float | None = None
) -> None:
    """Lines of the named columns over the column `x`."""
    for colour, name in zip(COLOURS, names, strict=False):
        points = [(row[x], row[name]) for row in rows if row.get(name) is not None]
        if points:
            axis.plot(
                *zip(*points, strict=True),
                color=colour,
                label=name,
                marker="o" if len(points) < 25 else None,
                ms=3,
            )
    if mark is not None:
        axis.axvline(mark, color="#999999", lw=1, ls=":", label=f"best epoch ({mark})")
    axis.legend(frameon=False)
    axis.grid(axis="y", alpha=0.3)
    if all(isinstance(row[x], int) for row in rows):
        axis.locator_params(axis="x", integer=True)


def log_lines(
    rows: Sequence[Mapping[str, Any]], x: str, y: str, by: str, title: str, labels: tuple[str, str] = ("", "")
) -> Figure:
    """Both axes logarithmic: one line for each value of column `by`, missing values left out; at most 24 lines."""
    figure, axis = axes(title, labels[0] or x, labels[1] or y, size=(8.0, 4.5))
    styles = [(colour, style) for style in ("-", "--", ":", "-.") for colour in COLOURS]
    for (colour, style), name in zip(styles, dict.fromkeys(row[by] for row in rows), strict=False):
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


def confusion_matrix(counts: Sequence[Sequence[int]], names: Sequence[str], title: str) -> Figure:
    """Counts by true (row) and predicted (column) class, coloured by the share of the row."""
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
            axis.text(j, i, str(count), ha="center", va="center", color="white" if shares[i][j] > 0.5 else "black")
    return figure


def class_scores(rows: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Precision, recall and F1 (columns of those names) of each "class", as bars."""
    figure, axis = axes(title, y="score", size=(max(4.0, 1.2 + 0.7 * len(rows)), 4.0))
    figure.subplots_adjust(bottom=0.28, top=0.82)
    for i, (colour, name) in enumerate(zip(COLOURS, ("precision", "recall", "f1"), strict=False)):
        places = [place + 0.27 * (i - 1) for place in range(len(rows))]
        axis.bar(places, [row[name] for row in rows], 0.25, color=colour, label=name)
    axis.set_xticks(range(len(rows)), [_short(str(row["class"])) for row in rows], rotation=45, ha="right", fontsize=8)
    axis.set_ylim(0, 1)
    axis.grid(axis="y", alpha=0.3)
    axis.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8)
    axis.set_title(title, pad=24)
    return figure


def roc_curves(rows: Sequence[Mapping[str, Any]], areas: Mapping[str, float], title: str) -> Figure:
    """One curve for each "class", its area in the legend; at most 24."""
    figure, axis = axes(title, "false positive rate", "true positive rate", size=(6.4, 4.6))
    figure.subplots_adjust(right=0.64)
    styles = [(colour, style) for style in ("-", "--", ":", "-.") for colour in COLOURS]
    for (colour, style), (name, area) in zip(styles, areas.items(), strict=False):
        points = [(row["false_positive_rate"], row["true_positive_rate"]) for row in rows if row["class"] == name]
        axis.plot(*zip(*points, strict=True), color=colour, ls=style, label=f"{_short(name)} ({area:.3f})")
    axis.plot([0, 1], [0, 1], color="#999999", lw=1, ls=":")
    axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), title="area")
    axis.set_aspect("equal")
    return figure


def mistakes(images: Sequence[Any], names: Sequence[str], title: str, columns: int = 4) -> Figure:
    """Images (height, width) or (height, width, 3) with two lines of text above each."""
    from matplotlib.figure import Figure

    n_rows = -(-len(images) // columns)
    size = (1.9 * columns, 2.2 * n_rows + 0.5)
    figure = Figure(figsize=size)
    figure.subplots_adjust(0.02, 0.1 / size[1], 0.98, 1 - 0.95 / size[1], hspace=0.35, wspace=0.1)
    figure.suptitle(title, fontsize=10, y=1 - 0.15 / size[1])
    for i, (image, name) in enumerate(zip(images, names, strict=True)):
        axis = figure.add_subplot(n_rows, columns, i + 1)
        axis.imshow(image, cmap="gray", vmin=0, vmax=1)
        axis.set_title(name, fontsize=8)
        axis.set_axis_off()
    return figure


def activation_maps(image: Any, rows: Mapping[str, Sequence[Any]], title: str) -> Figure:
    """An image, and maps (height, width) in [0, 1] beside it, one row for each layer."""
    from matplotlib.figure import Figure

    columns = 1 + max(len(maps) for maps in rows.values())
    width, height = 1.0 * columns + 0.2, 1.25 * len(rows) + 0.6
    figure = Figure(figsize=(width, height))
    figure.subplots_adjust(0.1 / width, 0.1 / height, 1 - 0.1 / width, 1 - 0.75 / height, wspace=0.08, hspace=0.3)
    figure.suptitle(title, fontsize=10, y=1 - 0.12 / height)
    for i, (name, maps) in enumerate(rows.items()):
        pictures = {0: image, **dict(enumerate(maps, 1))} if i == 0 else dict(enumerate(maps, 1))
        for j, picture in pictures.items():
            axis = figure.add_subplot(len(rows), columns, i * columns + j + 1)
            axis.set_axis_off()
            axis.imshow(picture, cmap="gray" if j == 0 else "viridis", vmin=0, vmax=1)
            if j == 1:
                axis.set_title(f"{name}, {len(picture)} x {len(picture[0])}", fontsize=8, loc="left")
    return figure


def gradient_norms(rows: Sequence[Mapping[str, Any]], title: str) -> Figure:
    """Norms by step (rows, column "step") and layer (the other columns, input first), each on a logarithmic scale:
    all of them as a heat map; over the steps; over the layers, at the first, middle and last step.
    """
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm

    layers = [key for key in rows[0] if key != "step"]
    steps = [row["step"] for row in rows]
    values = np.ma.masked_less_equal([[row[layer] for row in rows] for layer in layers], 0)
    names = [_short(layer) for layer in layers]
    figure, (heat, lines, profile) = panels([title, "over the steps", "over the layers"], size=(5.6, 4.6))
    figure.subplots_adjust(left=0.08, right=0.99, wspace=0.45, bottom=0.24)
    positive = values.compressed()
    scale = LogNorm(positive.min(), max(positive.max(), positive.min() * 10)) if len(positive) else None
    image = heat.imshow(values, aspect="auto", norm=scale, cmap="viridis", interpolation="nearest")
    shown = range(0, len(layers), -(-len(layers) // 24))
    heat.set_yticks(shown, [names[i] for i in shown], fontsize=7)
    ticks = sorted({round(i) for i in np.linspace(0, len(steps) - 1, min(len(steps), 6))})
    heat.set_xticks(ticks, [str(steps[i]) for i in ticks])
    heat.set_xlabel("step")
    figure.colorbar(image, ax=heat, pad=0.02)
    chosen = sorted({round(i) for i in np.linspace(0, len(layers) - 1, min(len(layers), 6))})
    colours = colormaps["viridis"](np.linspace(0.9, 0, len(layers)))
    for i in range(len(layers)):
        label, width = (names[i], 1.5) if i in chosen else (None, 0.6)
        lines.plot(
            steps, values[i], color=colours[i], lw=width, label=label, marker="o" if len(steps) < 25 else None, ms=3
        )
    lines.set_xlabel("step")
    profile.set_xlabel("layer")
    for colour, i in zip(COLOURS, sorted({0, len(steps) // 2, len(steps) - 1}), strict=False):
        profile.plot(range(len(layers)), values[:, i], color=colour, label=f"step {steps[i]}", marker="o", ms=3)
    profile.set_xticks(shown, [names[i] for i in shown], fontsize=7, rotation=90)
    for axis in (lines, profile):
        axis.set_yscale("log")
        axis.grid(axis="y", alpha=0.3)
    lines.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    profile.legend(frameon=False, fontsize=7)
    return figure


def _short(name: str, length: int = 18) -> str:
    return name if len(name) <= length else "…" + name[1 - length :]


def decision_regions(
    panels: Mapping[str, Callable[[Any], Any]],
    boundaries: Mapping[str, Callable[[Any], Any]],
    points: Sequence[Sequence[float]],
    labels: Sequence[int],
    names: Mapping[int, str],
    span: float = 2.0,
) -> Figure:
    """One panel for each classifier of the plane: its regions, the zero lines of its hidden units, the labelled points.

    A classifier maps (n, 2) to (n,) labels, one of `names`; a boundary of the same title maps (n, 2) to (n, units).
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
            marker = "o" if label == max(names) else "X"
            place = {"s": 90, "zorder": 3, "marker": marker, "label": name}
            axis.scatter(*zip(*chosen, strict=True), color=colour[label], edgecolor="white", **place)
        axis.set(title=title, aspect="equal", xlabel="$x_1$", xticks=range(-2, 3), yticks=range(-2, 3))
    figure.axes[0].set_ylabel("$x_2$")
    handles, texts = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, texts, frameon=False, loc="outside lower center", ncols=len(names))
    return figure


def bars(values: Mapping[str, float], title: str, x: str, y: str) -> Figure:
    """One bar for each value, the largest one marked."""
    figure, axis = axes(title, x, y)
    largest = max(values, key=lambda name: values[name])
    drawn = axis.bar(list(values), list(values.values()), color=[COLOURS[name == largest] for name in values])
    axis.bar_label(drawn, fmt="{:.2f}", padding=2, fontsize=8)
    return figure
