"""Figures of text classifiers: ROC curves, attention maps, and the weights of the words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dl_lab.datasets.text.encoders import Encoder
from dl_lab.datasets.text.tokens import Layout
from dl_lab.procedures.rows import Drawn, Row
from dl_lab.show import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_roc(probabilities: Tensor, labels: Tensor, names: Sequence[str]) -> Drawn:
    """Draw the ROC curve of each class against the rest; of two classes only that of the second."""
    from sklearn.metrics import auc, roc_curve

    figure, axis = plots.axes("ROC, test", "false positive rate", "true positive rate", size=(5, 4))
    axis.plot([0, 1], [0, 1], color="#999999", lw=0.8)
    rows: list[Row] = []
    for i, name in enumerate(names):
        if len(names) == 2 and i == 0:
            continue
        false, true, _ = roc_curve(labels == i, probabilities[:, i], drop_intermediate=True)
        axis.plot(
            false,
            true,
            color=plots.COLOURS[i % len(plots.COLOURS)],
            lw=1.2,
            label=f"{name} (area {auc(false, true):.3f})",
        )
        rows += [{"class": name, "false": float(f), "true": float(t)} for f, t in zip(false, true, strict=True)]
    axis.legend(frameon=False)
    return figure, rows


@torch.no_grad()
def draw_attention(model: Any, sentence: str, encoder: Encoder, layout: Layout) -> Drawn:
    """Draw the attention weights of each layer and head on a sentence: queries down, keys to the right.

    Args:
        model: A text model with `attention_maps`.
        sentence: The sentence.
        encoder: Makes tokens of the sentence.
        layout: How the model takes tokens.
    """
    tokens, x, mask = _make_batch(model, sentence, encoder, layout)
    maps = [layer[0].cpu() for layer in model.eval().attention_maps(x, mask)]
    rows: list[Row] = []
    for i, layer in enumerate(maps, 1):
        for j, head in enumerate(layer.tolist(), 1):
            for query, weights in zip(tokens, head, strict=True):
                for key, weight in zip(tokens, weights, strict=True):
                    rows.append({"layer": i, "head": j, "query": query, "key": key, "weight": round(weight, 5)})
    return draw_maps(torch.stack(maps), tokens), rows


def _make_batch(model: nn.Module, sentence: str, encoder: Encoder, layout: Layout) -> tuple[list[str], Tensor, Tensor]:
    """Return the tokens of a sentence as words, and as a batch on the model's device: numbers and mask (1, length)."""
    tokens = [token.removeprefix("Ġ") for token in encoder.split(sentence)]
    tokens = tokens[: layout.length] if layout.keep == "head" else tokens[-layout.length :]
    if not tokens:
        tokens = [encoder.words[0]]
    shortest = Layout(layout.length, layout.padding, layout.keep, True, layout.pad_number)
    x, mask = shortest.pad([encoder.encode(sentence)])
    device = next(model.parameters()).device
    return tokens, x.to(device), mask.to(device)


@torch.no_grad()
def draw_word_weights(model: Any, sentence: str, encoder: Encoder, layout: Layout) -> Drawn:
    """Draw a bar for each word of a sentence: the weight of its state in the sum that stands for the text.

    Args:
        model: A text model with `word_weights`.
        sentence: The sentence.
        encoder: Makes tokens of the sentence.
        layout: How the model takes tokens.
    """
    tokens, x, mask = _make_batch(model, sentence, encoder, layout)
    weights = model.eval().word_weights(x, mask)[0, : len(tokens)].tolist()
    size = (max(4.0, 0.3 * len(tokens)), 2.6)
    figure, axis = plots.axes("How much each word counts", "", "weight", size=size)
    axis.bar(range(len(tokens)), weights, color=plots.COLOURS[0])
    axis.set_xticks(range(len(tokens)), tokens, rotation=90, fontsize=7)
    rows: list[Row] = []
    for i, (word, weight) in enumerate(zip(tokens, weights, strict=True)):
        rows.append({"place": i, "word": word, "weight": weight})
    return figure, rows


def draw_maps(maps: Tensor, tokens: Sequence[str]) -> Figure:
    """Draw weights (layers, heads, length, length) as colours, each panel from 0 (or its least) to its own greatest."""
    n_layers, n_heads = maps.shape[:2]
    titles = [
        f"layer {i + 1}, head {j + 1}: to {float(maps[i, j].max()):.2f}"
        for i in range(n_layers)
        for j in range(n_heads)
    ]
    side = max(1.9, 0.15 * len(tokens) + 0.6)
    figure, grid = plots.small_multiples(titles, n_heads, "", "query (row) looks at key (column)", size=(side, side))
    for place, (axis, weights) in enumerate(zip(grid, maps.flatten(0, 1), strict=True)):
        row, column = divmod(place, n_heads)
        axis.imshow(weights.numpy(), cmap="viridis", vmin=min(0.0, float(weights.min())))
        blank = [""] * len(tokens)
        axis.set_xticks(range(len(tokens)), tokens if row == n_layers - 1 else blank, rotation=90, fontsize=6)
        axis.set_yticks(range(len(tokens)), tokens if column == 0 else blank, fontsize=6)
    return figure
