"""The figure of gradient norms by step and layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dl_lab.show.plots import COLOURS, panels, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def gradient_norms(rows: Sequence[Mapping[str, Any]], title: str, words: Mapping[str, str]) -> Figure:
    """Draw gradient norms by step and layer, on logarithmic scales.

    The first panel shows all of them as a heat map, the second one over the steps, the third one over the layers at the
    first, middle and last step.

    Args:
        rows: One row a step, with the column "step" and a column for each layer, input first.
        title: The title.
        words: What a layer is called in the figure, by its name in the rows.
    """
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm

    layers = [key for key in rows[0] if key != "step"]
    steps = [row["step"] for row in rows]
    values = np.ma.masked_less_equal([[row[layer] for row in rows] for layer in layers], 0)
    names = [shorten(words.get(layer, layer)) for layer in layers]
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
    marker = "o" if len(steps) < 25 else None
    for i in range(len(layers)):
        label = names[i] if i in chosen else None
        width = 1.5 if i in chosen else 0.6
        lines.plot(steps, values[i], color=colours[i], lw=width, label=label, marker=marker, ms=3)
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
