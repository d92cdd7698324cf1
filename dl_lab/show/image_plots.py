"""Figures of images: rows and grids of them, mistakes, activation maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike


def image_rows(rows: Mapping[str, Sequence[ArrayLike]], title: str, vmin: float = 0, vmax: float = 1) -> Figure:
    """Draw grey images, one row for each name: originals above reconstructions.

    Args:
        rows: Name -> images (height, width).
        title: The title.
        vmin: The value that is black.
        vmax: The value that is white.
    """
    from matplotlib.figure import Figure

    n = max(len(images) for images in rows.values())
    width = 0.9 * n + 0.9
    height = 0.95 * len(rows) + 0.4
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


def image_grid(images: Sequence[ArrayLike], columns: int, title: str, names: Sequence[str] = ()) -> Figure:
    """Draw images in a grid.

    Args:
        images: Grey (height, width) or coloured (height, width, 3) images with values in [0, 1].
        columns: The number of images in a row.
        title: The title.
        names: A name to write below each image.
    """
    from matplotlib.figure import Figure

    n_rows = -(-len(images) // columns)
    below = 0.22 if names else 0.0
    width = 0.8 * columns + 0.2
    height = (0.8 + below) * n_rows + 0.45
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


def mistakes(images: Sequence[ArrayLike], names: Sequence[str], title: str, columns: int = 4) -> Figure:
    """Draw images (height, width) or (height, width, 3), with two lines of text above each."""
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


def activation_maps(image: ArrayLike, rows: Mapping[str, Sequence[ArrayLike]], title: str) -> Figure:
    """Draw an image, and activation maps beside it, one row for each layer.

    Args:
        image: The image (height, width) or (height, width, 3).
        rows: Layer -> maps (height, width) with values in [0, 1].
        title: The title.
    """
    import numpy as np
    from matplotlib.figure import Figure

    columns = 1 + max(len(maps) for maps in rows.values())
    size = (1.0 * columns + 0.2, 1.25 * len(rows) + 0.6)
    figure = Figure(figsize=size)
    figure.subplots_adjust(0.1 / size[0], 0.1 / size[1], 1 - 0.1 / size[0], 1 - 0.75 / size[1], wspace=0.08, hspace=0.3)
    figure.suptitle(title, fontsize=10, y=1 - 0.12 / size[1])
    for i, (name, maps) in enumerate(rows.items()):
        first = image if i == 0 else None
        for j, picture in enumerate([first, *maps]):
            if picture is None:
                continue
            axis = figure.add_subplot(len(rows), columns, i * columns + j + 1)
            axis.set_axis_off()
            axis.imshow(picture, cmap="gray" if j == 0 else "viridis", vmin=0, vmax=1)
            if j == 1:
                height, width = np.shape(picture)[:2]
                axis.set_title(f"{name}, {height} x {width}", fontsize=8, loc="left")
    return figure
