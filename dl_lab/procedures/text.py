"""Train text classifiers, with word vectors before and views of the result after; and classify new texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.delimited import find_delimiter, parse_table, read_lines, read_text
from dl_lab.datasets.text.encoders import UNKNOWN, Encoder, bags_of_words, encoder_of, remove_tags
from dl_lab.datasets.text.glove import WordVectors
from dl_lab.datasets.text.tokens import Layout, TextContent
from dl_lab.procedures.analogies import Words, ask, list_neighbours, project
from dl_lab.procedures.fit import WithFit
from dl_lab.procedures.rows import Row
from dl_lab.procedures.text_figures import draw_attention, draw_roc, draw_word_weights
from dl_lab.runs.recorder import Run
from dl_lab.show import plots
from dl_lab.training.learners import GradientLearner
from dl_lab.training.trainer import Trainer
from dl_lab.types import Answer, Metrics, Split, UserError


@dataclass
class TextFit(WithFit[GradientLearner]):
    """Fit a text classifier, then score its classes and look into its attention and its embedding.

    Args:
        dataset: Texts.
        learner: How the classifier learns.
        trainer: The trainer.
        vectors: The vectors that the model's embedding `words` starts from; None keeps random vectors. Words without a
            vector are counted and reported.
        missing: What a word without a vector starts from: "normal" draws from N(0, .6²), "zeros" takes zeros.
        sentences: Sentences whose attention maps, or weights of the words, become figures, if the model has any.
        relations: Questions to the trained embedding; see `ask`.
        neighbours_of: Words whose nearest neighbours in the trained embedding are listed.
        project: Whether to show the trained embedding in TensorBoard's projector.
    """

    imports = plots.IMPORTS

    dataset: Dataset
    learner: GradientLearner
    trainer: Trainer
    vectors: WordVectors | None = None
    missing: Literal["normal", "zeros"] = "normal"
    sentences: Sequence[str] = ()
    relations: Sequence[Mapping[str, Any]] = ()
    neighbours_of: Sequence[str] = ()
    project: bool = False

    def __call__(self, run: Run) -> Metrics:
        """Fit and look; return the metrics of the fit, of the test classes and of the questions."""
        model = self.learner.model
        content = self.dataset.content_as(TextContent)
        words = content.vocabulary
        about: Metrics = {}
        if self.vectors is not None:
            about = start_from(model, words, self.vectors, self.missing, self.dataset.train)
        metrics = {**self.fit(run), **about}
        probabilities, labels = predict(model, self.dataset.test)
        scores, rows = score_classes(probabilities, labels, self.dataset.class_names)
        run.table("classes", rows)
        run.figure("roc", *draw_roc(probabilities, labels, self.dataset.class_names))
        metrics |= scores
        for i, sentence in enumerate(self.sentences):
            if hasattr(model, "attention_maps") and content.layout is not None:
                figure = draw_attention(model, sentence, content.encoder, content.layout)
                run.figure(f"attention_{i}", *figure)
            if hasattr(model, "word_weights") and content.layout is not None:
                figure = draw_word_weights(model, sentence, content.encoder, content.layout)
                run.figure(f"word_weights_{i}", *figure)
        metrics |= self._ask_embedding(run, model, words)
        run.finish(metrics)
        return metrics

    def _ask_embedding(self, run: Run, model: Any, words: Sequence[str]) -> Metrics:
        """Project the trained embedding, list neighbours and ask the relations, as far as they are asked for."""
        if not hasattr(model, "words"):
            return {}
        known = Words(words, model.words.weight)
        if self.project:
            project(run, known)
        if self.neighbours_of:
            list_neighbours(run, known, self.neighbours_of)
        if not self.relations:
            return {}
        return ask(run, known, self.relations, ("pair_direction", "3cosadd"))


@torch.no_grad()
def start_from(
    model: Any, words: Sequence[str], vectors: WordVectors, missing: Literal["normal", "zeros"], train: Split
) -> Metrics:
    """Put vectors into a model's embedding.

    Args:
        model: A model with an embedding `words`.
        words: The words of its rows.
        vectors: The vectors.
        missing: What a word without a vector starts from.
        train: The training texts.

    Returns:
        The numbers of words with and without a vector, and the share of the training tokens without one.

    Raises:
        UserError: The vectors have another width than the embedding.
    """
    weight = model.words.weight
    if vectors.vectors.shape[1] != weight.shape[1]:
        raise UserError(
            f"The vectors have {vectors.vectors.shape[1]} numbers, but the model's embedding has {weight.shape[1]}: "
            f"set model.dim={vectors.vectors.shape[1]}."
        )
    matrix, found = vectors.of(words, missing)
    weight[: len(words)] = matrix.to(weight.device)
    n_found = 0
    n_tokens = 0
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
def predict(model: nn.Module, split: Split, batch_size: int = 256) -> tuple[Tensor, Tensor]:
    """Return probabilities (n, n_classes) and labels (n,) of a split, in its stored order, on the CPU."""
    model.eval()
    probabilities = []
    labels = []
    for batch in split.to(next(model.parameters()).device).batches(batch_size):
        probabilities.append(to_probabilities(model(*batch[:-1])).cpu())
        labels.append(batch.y.cpu())
    return torch.cat(probabilities), torch.cat(labels)


def to_probabilities(logits: Tensor) -> Tensor:
    """Return the probabilities (n, n_classes) of logits; a single logit (n, 1) gives those of two classes."""
    if logits.shape[1] == 1:
        return torch.cat([(-logits).sigmoid(), logits.sigmoid()], dim=1)
    return logits.softmax(dim=1)


def score_classes(probabilities: Tensor, labels: Tensor, names: Sequence[str]) -> tuple[Metrics, list[Row]]:
    """Score each class of the test split against the rest.

    Args:
        probabilities: Probabilities (n, n_classes).
        labels: Labels (n,).
        names: Names of the classes.

    Returns:
        The means over the classes of F1 and of the area under the ROC curve; and a row for each class.
    """
    from sklearn.metrics import classification_report, roc_auc_score

    chosen = list(range(len(names)))
    make_report: Any = classification_report  # its stub takes no number for zero_division
    report = make_report(
        labels, probabilities.argmax(dim=1), labels=chosen, target_names=names, output_dict=True, zero_division=0
    )
    rows: list[Row] = []
    f1 = []
    areas = []
    for i, name in enumerate(names):
        own = report[name]
        is_present = bool((labels == i).any())
        area = float(roc_auc_score(labels == i, probabilities[:, i])) if is_present else 0.0
        scores = {"precision": own["precision"], "recall": own["recall"], "f1": own["f1-score"], "roc_auc": area}
        rows.append({"class": name, **scores, "texts": int(own["support"])})
        f1.append(own["f1-score"])
        areas.append(area)
    return {"test/f1": sum(f1) / len(f1), "test/roc_auc": sum(areas) / len(areas)}, rows


# -- new texts ----------------------------------------------------------------------------------------------------


@dataclass
class ClassifyText:
    """Classify new texts with the run's own vocabulary: `dl-lab predict RUN "some text"`.

    A file holds one text a line. If the run learned from a table (dataset=text_table), a file named *.csv or *.tsv is a
    table with a header, and its text column is read.

    Args:
        model: The run's model.
        encoding: Encoding of a file.
        reads_text: Tells the command that the user may give a text instead of a file.
    """

    model: nn.Module
    encoding: str = "utf-8"
    reads_text: bool = True

    @torch.no_grad()
    def __call__(self, new: Path | str, weights: Mapping[str, Tensor], preprocessing: Mapping[str, Any]) -> Answer:
        """Classify a text, or the texts of a file.

        Returns:
            A row for each text: the text, its label, and the share of each class.

        Raises:
            UserError: A text is empty, or the file cannot be read.
        """
        entries = self._read(new, preprocessing) if isinstance(new, Path) else [("The text", new)]
        cleaned = [remove_tags(text) if preprocessing.get("clean_html") else text for _, text in entries]
        for (where, _), text in zip(entries, cleaned, strict=True):
            if not text.strip():
                raise UserError(f"{where}: the text is empty." if isinstance(new, Path) else "The text is empty.")
        encoder = encoder_of(preprocessing["encoder"])
        encoded = [encoder.encode(text) for text in cleaned]
        self.model.load_state_dict(dict(weights))
        self.model.eval()
        names = preprocessing["class_names"]
        rows: list[Row] = []
        for start in range(0, len(encoded), 256):
            inputs = make_inputs(encoded[start : start + 256], preprocessing)
            some = entries[start : start + 256]
            for (_, text), row in zip(some, to_probabilities(self.model(*inputs)).tolist(), strict=True):
                label = names[max(range(len(row)), key=row.__getitem__)]
                shares = {f"p({name})": round(share, 4) for name, share in zip(names, row, strict=True)}
                rows.append({"text": text, "label": label, **shares})
        originals = [text for _, text in entries]
        return Answer(rows, _describe_changes(originals, cleaned, encoded, encoder, preprocessing))

    def _read(self, path: Path, preprocessing: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Return every text of a file with its place, which an error names."""
        column = preprocessing.get("text_column")
        if column and path.suffix.lower() in (".csv", ".tsv"):
            text = read_text(path, self.encoding, "encoding")
            delimiter = find_delimiter(text, str(path))
            table = parse_table(text, str(path), delimiter)
            place = table.place(column)
            return [(f"{path}, line {row.line}", row.cells[place]) for row in table.rows]
        lines = read_lines(path, self.encoding)
        return [(f"{path}, line {number}", line) for number, line in enumerate(lines, 1)]


def _describe_changes(
    originals: Sequence[str],
    cleaned: Sequence[str],
    encoded: Sequence[Sequence[int]],
    encoder: Encoder,
    preprocessing: Mapping[str, Any],
) -> list[str]:
    """Say how many texts were cleaned, were cut, or have no word that the run knows."""
    n_cleaned = sum(before != after for before, after in zip(originals, cleaned, strict=True))
    length = preprocessing.get("layout", {}).get("length")
    n_cut = sum(len(numbers) > length for numbers in encoded) if length else 0
    unknown = encoder.words[0]
    n_foreign = 0
    if unknown in (UNKNOWN, "<oov>"):
        n_foreign = sum(set(numbers) == {0} for numbers in encoded)
    notes = []
    if n_cleaned:
        notes.append(f"HTML tags were removed from {count_nouns(n_cleaned, 'text')}, as in training")
    if n_cut:
        notes.append(f"{count_nouns(n_cut, 'text')} longer than {length} tokens cut, as in training")
    if n_foreign:
        notes.append(f"{count_nouns(n_foreign, 'text')} without a single word that the run knows")
    return notes


def count_nouns(n: int, noun: str) -> str:
    """Return a number with its noun: `1 text`, `2 texts`."""
    return f"{n:,} {noun}{'s' * (n != 1)}"


def make_inputs(encoded: Sequence[Sequence[int]], preprocessing: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Return what the model takes: tokens and mask, or bags of words (n, n_features) if the run learned from bags."""
    if "layout" in preprocessing:
        return Layout(**preprocessing["layout"]).pad(encoded)
    return (bags_of_words(encoded, preprocessing["n_features"]).float(),)
