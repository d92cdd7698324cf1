"""Training text classifiers: word vectors before, attention maps, class scores and analogies after; and prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dl_lab import plots
from dl_lab.datasets.glove import WordVectors
from dl_lab.datasets.text import Encoder, bags_of_words, encoder_of
from dl_lab.datasets.tokens import Layout
from dl_lab.experiments.analogies import Words, ask, list_neighbours, project
from dl_lab.experiments.fit import Fit
from dl_lab.run import Run
from dl_lab.training.learners import GradientLearner
from dl_lab.types import Metrics, Split, UserError


@dataclass
class TextFit(Fit[GradientLearner]):
    """Fit a text classifier; the metrics are the fit's and, of the test split, those of `class_scores`.

    vectors: what the model's embedding `words` starts from; words without one are counted, reported, and drawn from
    N(0, .6²) or zero (missing). sentences: their attention maps become figures, where the model has any. relations,
    neighbours_of: asked of the trained embedding. project: show it in TensorBoard's projector.
    """

    vectors: WordVectors | None = None
    missing: Literal["normal", "zeros"] = "normal"
    sentences: Sequence[str] = ()
    relations: Sequence[Mapping[str, Any]] = ()
    neighbours_of: Sequence[str] = ()
    project: bool = False

    def __call__(self, run: Run) -> Metrics:
        model, words = self.learner.model, self.dataset.extras["vocabulary"]
        about: Metrics = {}
        if self.vectors is not None:
            about = start_from(model, words, self.vectors, self.missing, self.dataset.train)
        metrics = {**super().__call__(run), **about}
        probabilities, labels = predicted(model, self.dataset.test)
        scores, rows = class_scores(probabilities, labels, self.dataset.class_names)
        run.table("classes", rows)
        run.figure("roc", *draw_roc(probabilities, labels, self.dataset.class_names))
        metrics |= scores
        for i, sentence in enumerate(self.sentences):
            if hasattr(model, "attention_maps"):
                figure = draw_attention(model, sentence, self.dataset.extras["encoder"], self.dataset.extras["layout"])
                run.figure(f"attention_{i}", *figure)
        metrics |= self._words(run, model, words)
        run.finish(metrics)
        return metrics

    def _words(self, run: Run, model: Any, words: Sequence[str]) -> Metrics:
        known = Words(words, model.words.weight) if hasattr(model, "words") else None
        if known is None:
            return {}
        if self.project:
            project(run, known)
        if self.neighbours_of:
            list_neighbours(run, known, self.neighbours_of)
        return ask(run, known, self.relations, ("pair_direction", "3cosadd")) if self.relations else {}


@torch.no_grad()
def start_from(
    model: Any, words: Sequence[str], vectors: WordVectors, missing: Literal["normal", "zeros"], train: Split
) -> Metrics:
    """Put the vectors into the model's embedding. Metrics: words with and without a vector, and the share of the
    training tokens that are words without one. Raises UserError for a vector of another width."""
    weight = model.words.weight
    if vectors.vectors.shape[1] != weight.shape[1]:
        raise UserError(
            f"The vectors have {vectors.vectors.shape[1]} numbers each, the model's embedding {weight.shape[1]}: "
            f"set model.dim={vectors.vectors.shape[1]}."
        )
    matrix, found = vectors.of(words, missing)
    weight[: len(words)] = matrix.to(weight.device)
    n_found, n_tokens = 0, 0
    for batch in train.batches(1024):
        n_found += int(found[batch.x[batch.mask].cpu()].sum())
        n_tokens += int(batch.mask.sum())
    n_words = int(found.sum())
    return {
        "vectors/words_found": float(n_words),
        "vectors/words_missing": float(len(words) - n_words),
        "vectors/tokens_missing": 1 - n_found / n_tokens,
    }


@torch.no_grad()
def predicted(model: nn.Module, split: Split, batch_size: int = 256) -> tuple[Tensor, Tensor]:
    """Probabilities (n, n_classes) and labels (n,) of a split, in its stored order, on the CPU."""
    model.eval()
    parts = [(probabilities_of(model(*b[:-1])).cpu(), b.y.cpu()) for b in _where(model, split).batches(batch_size)]
    return torch.cat([p for p, _ in parts]), torch.cat([y for _, y in parts])


def _where(model: nn.Module, split: Split) -> Split:
    return split.to(next(model.parameters()).device)


def probabilities_of(logits: Tensor) -> Tensor:
    """(n, n_classes); of a single logit (n, 1) those of two classes."""
    if logits.shape[1] == 1:
        return torch.cat([(-logits).sigmoid(), logits.sigmoid()], dim=1)
    return logits.softmax(dim=1)


def class_scores(probabilities: Tensor, labels: Tensor, names: Sequence[str]) -> tuple[Metrics, list[dict[str, Any]]]:
    """Macro F1 and, one class against the rest, the mean area under the ROC curve; and a row for each class."""
    from sklearn.metrics import classification_report, roc_auc_score

    chosen = list(range(len(names)))
    judged: Any = classification_report  # its stub takes no number for zero_division
    report = judged(
        labels, probabilities.argmax(dim=1), labels=chosen, target_names=names, output_dict=True, zero_division=0
    )
    rows = []
    for i, name in enumerate(names):
        of, present = report[name], bool((labels == i).any())
        area = float(roc_auc_score(labels == i, probabilities[:, i])) if present else 0.0
        scores = {"precision": of["precision"], "recall": of["recall"], "f1": of["f1-score"], "roc_auc": area}
        rows.append({"class": name, **scores, "texts": int(of["support"])})
    return {f"test/{name}": sum(row[name] for row in rows) / len(rows) for name in ("f1", "roc_auc")}, rows


def draw_roc(probabilities: Tensor, labels: Tensor, names: Sequence[str]) -> tuple[Any, list[dict[str, Any]]]:
    """ROC curve of each class against the rest; of two classes only the second's."""
    from sklearn.metrics import roc_curve

    figure, axis = plots.axes("ROC, test", "false positive rate", "true positive rate", size=(5, 4))
    axis.plot([0, 1], [0, 1], color="#999999", lw=0.8)
    rows = []
    for i, name in enumerate(names):
        if len(names) == 2 and i == 0:
            continue
        false, true, _ = roc_curve(labels == i, probabilities[:, i], drop_intermediate=True)
        axis.plot(false, true, color=plots.COLOURS[i % len(plots.COLOURS)], lw=1.2, label=name)
        rows += [{"class": name, "false": float(f), "true": float(t)} for f, t in zip(false, true, strict=True)]
    axis.legend(frameon=False)
    return figure, rows


@torch.no_grad()
def draw_attention(model: Any, sentence: str, encoder: Encoder, layout: Layout) -> tuple[Any, list[dict[str, Any]]]:
    """Each layer's and head's attention weights on a sentence: queries down, keys to the right."""
    tokens = [token.removeprefix("Ġ") for token in encoder.split(sentence)]
    tokens = (tokens[: layout.length] if layout.keep == "head" else tokens[-layout.length :]) or [encoder.words[0]]
    x, mask = Layout(layout.length, layout.padding, layout.keep, True, layout.pad_number).encoded(
        [encoder.encode(sentence)]
    )
    device = next(model.parameters()).device
    maps = [layer[0].cpu() for layer in model.eval().attention_maps(x.to(device), mask.to(device))]
    rows = [
        {"layer": i, "head": j, "query": query, "key": key, "weight": round(weight, 5)}
        for i, layer in enumerate(maps, 1)
        for j, head in enumerate(layer.tolist(), 1)
        for query, weights in zip(tokens, head, strict=True)
        for key, weight in zip(tokens, weights, strict=True)
    ]
    return draw_maps(torch.stack(maps), tokens), rows


def draw_maps(maps: Tensor, tokens: Sequence[str]) -> Any:
    """Weights (layers, heads, length, length) as colours, each panel from 0 (or its least) to its own greatest."""
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
        axis.set_xticks(
            range(len(tokens)), tokens if row == n_layers - 1 else [""] * len(tokens), rotation=90, fontsize=6
        )
        axis.set_yticks(range(len(tokens)), [""] * len(tokens) if column else tokens, fontsize=6)
    return figure


@dataclass
class ClassifyText:
    """Label and probabilities of new texts, with the run's own vocabulary: `dl-lab predict RUN "some text"`."""

    model: nn.Module
    reads_text: bool = True

    @torch.no_grad()
    def __call__(
        self, new: Path | str, weights: Mapping[str, Tensor], preprocessing: Mapping[str, Any]
    ) -> list[dict[str, Any]]:
        """A row for each text: of a file one a line, else the text itself. Raises UserError for an empty text."""
        texts = read_lines(new) if isinstance(new, Path) else [new]
        for line, text in enumerate(texts, 1):
            if not text.strip():
                raise UserError(
                    f"{new}, line {line}: the text is empty." if isinstance(new, Path) else "The text is empty."
                )
        encoder = encoder_of(preprocessing["encoder"])
        self.model.load_state_dict(dict(weights))
        self.model.eval()
        names, rows = preprocessing["class_names"], []
        for start in range(0, len(texts), 256):
            some = texts[start : start + 256]
            inputs = inputs_of([encoder.encode(text) for text in some], preprocessing)
            for text, row in zip(some, probabilities_of(self.model(*inputs)).tolist(), strict=True):
                label = names[max(range(len(row)), key=row.__getitem__)]
                shares = {f"p({name})": round(share, 4) for name, share in zip(names, row, strict=True)}
                rows.append({"text": text, "label": label, **shares})
        return rows


def inputs_of(encoded: Sequence[Sequence[int]], preprocessing: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """What the model takes: tokens and mask, or where the run learned from bags of words one float bag a text."""
    if "layout" in preprocessing:
        return Layout(**preprocessing["layout"]).encoded(encoded)
    return (bags_of_words(encoded, preprocessing["n_features"]).float(),)


def read_lines(path: Path) -> list[str]:
    """Raises UserError, naming the line, for bytes that are not UTF-8, and for a file without a line."""
    lines = []
    for number, raw in enumerate(path.read_bytes().splitlines(), 1):
        try:
            lines.append(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise UserError(f"{path}, line {number}: byte {error.start + 1} is not valid UTF-8.") from error
    if not lines:
        raise UserError(f"{path} is empty.")
    return lines
