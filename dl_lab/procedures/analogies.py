"""Word analogies and nearest neighbours of a trained embedding, or of ready word vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from dl_lab.datasets.text.encoders import encoder_of
from dl_lab.datasets.text.glove import WordVectors
from dl_lab.procedures.protocol import Procedure
from dl_lab.procedures.rows import Row
from dl_lab.procedures.steps import steps
from dl_lab.runs.files import read_json
from dl_lab.runs.find import find_run, state_of
from dl_lab.runs.recorder import Run
from dl_lab.runs.weights import load_weights
from dl_lab.types import Metrics, UserError

Rule = Literal["pair_direction", "3cosadd"]
PROJECTED = 10_000  # words in the projector at most: a browser turns no more of them smoothly


class Words:
    """Words with a vector each.

    Args:
        words: The words.
        vectors: Their vectors, (at least n_words, dim).

    Attributes:
        words: The words.
        vectors: Their vectors (n_words, dim) on the CPU.
        numbers: The number of each word.
    """

    def __init__(self, words: Sequence[str], vectors: Tensor) -> None:
        self.words = tuple(words)
        self.vectors = vectors.detach().float().cpu()[: len(words)]
        self.numbers = {word: number for number, word in enumerate(self.words)}

    def answer(
        self, a: str, b: str, c: str, candidates: Sequence[str] | None = None, rule: Rule = "3cosadd"
    ) -> list[tuple[str, float]]:
        """Answer "a is to b as c is to ...".

        Args:
            a: The first word.
            b: The second word.
            c: The third word.
            candidates: The words to choose from; None takes every other word.
            rule: "3cosadd" scores a word w by cos(w, b - a + c) (Mikolov et al. 2013), "pair_direction" by
                cos(w - c, b - a) (Levy and Goldberg 2014).

        Returns:
            The candidates with their scores, best first.
        """
        va, vb, vc = (self.vectors[self.numbers[word]] for word in (a, b, c))
        asked = {a, b, c}
        pool = self.words if candidates is None else candidates
        chosen = [word for word in pool if word not in asked]
        w = self.vectors[torch.tensor([self.numbers[word] for word in chosen])]
        if rule == "3cosadd":
            scores = F.cosine_similarity(w, (vb - va + vc)[None], dim=1)
        else:
            scores = F.cosine_similarity(w - vc, (vb - va)[None], dim=1)
        return _rank(chosen, scores)

    def neighbours(self, word: str, k: int = 10) -> list[tuple[str, float]]:
        """Return the k words of greatest cosine to a word, without the word itself."""
        scores = F.cosine_similarity(self.vectors, self.vectors[self.numbers[word]][None], dim=1)
        return [found for found in _rank(self.words, scores, k + 1) if found[0] != word][:k]


def _rank(words: Sequence[str], scores: Tensor, k: int | None = None) -> list[tuple[str, float]]:
    top = scores.topk(min(k or len(words), len(words)))
    return [(words[int(i)], float(score)) for i, score in zip(top.indices, top.values, strict=True)]


def ask(run: Run, words: Words, relations: Sequence[Mapping[str, Any]], rules: Sequence[Rule]) -> Metrics:
    """Ask each relation by each rule, among its candidates and among all words; write the table `analogies`.

    A question is listed but not counted if one of its words has no vector. A candidate without a vector is left out.

    Args:
        run: The run that gets the table.
        words: The words to ask.
        relations: Each has the words a, b, c and expected, and may have candidates.
        rules: The rules to ask by.

    Returns:
        For each rule and group of words, the number of questions asked and the share answered as expected.
    """
    rows: list[Row] = []
    metrics: Metrics = {}
    for relation in steps(run, relations, "analogies"):
        a, b, c, expected = (relation[name] for name in ("a", "b", "c", "expected"))
        for rule in rules:
            for among in ("candidates", "vocabulary"):
                candidates = relation.get("candidates") if among == "candidates" else None
                if among == "candidates" and not candidates:
                    continue
                unknown = [word for word in (a, b, c, expected) if word not in words.numbers]
                left_out = [word for word in candidates or () if word not in words.numbers]
                candidates = [word for word in candidates if word not in left_out] if candidates else None
                row: Row = {"a": a, "b": b, "c": c, "expected": expected, "rule": rule, "among": among}
                if unknown:
                    rows.append({**row, "answer": "", "note": f"no vector: {', '.join(unknown)}"})
                    continue
                ranked = words.answer(a, b, c, candidates, rule)
                place = [word for word, _ in ranked].index(expected) + 1
                answer = {"answer": ranked[0][0], "cosine": round(ranked[0][1], 4), "rank_of_expected": place}
                note = f"no vector: {', '.join(left_out)}" if left_out else ""
                rows.append({**row, **answer, "note": note})
    run.table("analogies", rows)
    run.board.text("analogies", to_markdown(rows))
    for rule in rules:
        for among in ("candidates", "vocabulary"):
            asked = [row for row in rows if (row["rule"], row["among"]) == (rule, among) and row["answer"]]
            right = sum(row["answer"] == row["expected"] for row in asked)
            if asked:
                metrics[f"analogies/{rule}/{among}"] = right / len(asked)
                metrics[f"analogies/{rule}/{among}/asked"] = float(len(asked))
    return metrics


def list_neighbours(run: Run, words: Words, of: Sequence[str], k: int = 10) -> None:
    """Write the table `neighbours`: the k nearest words of each word that has a vector."""
    rows: list[Row] = []
    short: list[Row] = []
    for word in of:
        found = words.neighbours(word, k) if word in words.numbers else []
        for rank, (neighbour, cosine) in enumerate(found, 1):
            rows.append({"word": word, "rank": rank, "neighbour": neighbour, "cosine": round(cosine, 4)})
        short.append({"word": word, "nearest": ", ".join(neighbour for neighbour, _ in found)})
    run.table("neighbours", rows)
    run.board.text("neighbours", to_markdown(short))


def project(run: Run, words: Words) -> None:
    """Show the first words in TensorBoard's projector."""
    run.embedding("words", words.vectors[:PROJECTED].tolist(), words.words[:PROJECTED])


def to_markdown(rows: Sequence[Row]) -> str:
    """Return rows as a table in Markdown."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns), *[[str(row.get(key, "")) for key in columns] for row in rows]]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def read_words(folder: Path) -> Words:
    """Read the embedding of a finished text run.

    Raises:
        UserError: The run is not finished, or has no embedding.
    """
    state = state_of(folder)
    about = read_json(folder / "preprocessing.json") or {}
    if state != "done" or "encoder" not in about:
        raise UserError(
            f"{folder} is {state} and has {'a' if 'encoder' in about else 'no'} vocabulary: there are no words to ask."
        )
    kind = (read_json(folder / "summary.json") or {}).get("weights", "best")
    weights = load_weights(folder / "checkpoints" / f"{kind}.safetensors")
    if "words.weight" not in weights:
        raise UserError(f"{folder} has no trained embedding with the name words.")
    return Words(encoder_of(about["encoder"]).words, weights["words.weight"])


@dataclass
class Analogies(Procedure):
    """Ask word vectors, or the embedding of a finished text run, and show them in the projector.

    Args:
        relations: The questions; see `ask`.
        vectors: The word vectors; None takes those of `run`.
        run: The text run, by its folder or id.
        outputs: The folder in which an id is looked up.
        neighbours_of: Words whose nearest neighbours are listed.
        n_neighbours: How many of them.
        rules: The rules to ask by.
    """

    relations: Sequence[Mapping[str, Any]]
    vectors: WordVectors | None = None
    run: str | None = None
    outputs: str = "outputs"
    neighbours_of: Sequence[str] = ()
    n_neighbours: int = 10
    rules: Sequence[Rule] = ("pair_direction", "3cosadd")

    def __post_init__(self) -> None:
        """Raise ValueError unless exactly one of `vectors` and `run` is given."""
        if (self.vectors is None) == (self.run is None):
            raise ValueError(
                "the words come from vectors (vectors=glove) or a run (procedure.run=RUN): give one of them"
            )

    def __call__(self, run: Run) -> Metrics:
        """Ask every question; return the shares of right answers."""
        if self.vectors is not None:
            words = Words(self.vectors.words, self.vectors.vectors)
            label = self.vectors.label
            name = "word vectors"
        else:
            folder = find_run(str(self.run), Path(self.outputs))
            data = (read_json(folder / "summary.json") or {}).get("dataset", {})
            words = read_words(folder)
            label = data.get("label", "part")
            name = f"embedding of {folder.name}"
        metrics = {"words": float(len(words.words)), **ask(run, words, self.relations, self.rules)}
        list_neighbours(run, words, self.neighbours_of, self.n_neighbours)
        project(run, words)
        run.log(metrics, 0, 0)
        note = f"{len(words.words):,} words"
        run.finish(metrics, dataset={"name": name, "label": label, "note": note})
        return metrics
