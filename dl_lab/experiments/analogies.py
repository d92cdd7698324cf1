"""Word analogies and nearest neighbours: of a trained embedding, or of ready word vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from dl_lab.datasets.glove import WordVectors
from dl_lab.datasets.text import encoder_of
from dl_lab.run import Run, find_run, read_json, state_of
from dl_lab.training.checkpoints import load_weights
from dl_lab.types import Metrics, UserError

Rule = Literal["pair_direction", "3cosadd"]
PROJECTED = 10_000  # words in the projector at most: what a browser still turns


class Words:
    """Words with a vector each: vectors (n_words, dim)."""

    def __init__(self, words: Sequence[str], vectors: Tensor) -> None:
        self.words, self.vectors = tuple(words), vectors.detach().float().cpu()[: len(words)]
        self.numbers = {word: number for number, word in enumerate(self.words)}

    def answer(
        self, a: str, b: str, c: str, candidates: Sequence[str] | None = None, rule: Rule = "3cosadd"
    ) -> list[tuple[str, float]]:
        """a is to b as c is to ...: candidates (None: every other word) by score, best first.

        3cosadd: cos(w, b - a + c) (Mikolov et al. 2013); pair_direction: cos(w - c, b - a) (Levy and Goldberg 2014).
        """
        va, vb, vc = (self.vectors[self.numbers[word]] for word in (a, b, c))
        asked = {a, b, c}
        chosen = [w for w in (candidates if candidates is not None else self.words) if w not in asked]
        w = self.vectors[torch.tensor([self.numbers[word] for word in chosen])]
        left, right = (w, vb - va + vc) if rule == "3cosadd" else (w - vc, vb - va)
        return _ranked(chosen, F.cosine_similarity(left, right[None], dim=1))

    def neighbours(self, word: str, k: int = 10) -> list[tuple[str, float]]:
        """The k words of greatest cosine to a word, without itself."""
        scores = F.cosine_similarity(self.vectors, self.vectors[self.numbers[word]][None], dim=1)
        return [found for found in _ranked(self.words, scores, k + 1) if found[0] != word][:k]


def _ranked(words: Sequence[str], scores: Tensor, k: int | None = None) -> list[tuple[str, float]]:
    top = scores.topk(min(k or len(words), len(words)))
    return [(words[int(i)], float(score)) for i, score in zip(top.indices, top.values, strict=True)]


def ask(run: Run, words: Words, relations: Sequence[Mapping[str, Any]], rules: Sequence[Rule]) -> Metrics:
    """Table analogies: each relation {a, b, c, expected, candidates} by each rule, among its candidates and among all
    words. A question with a word without a vector is listed and not counted; a candidate without one is left out.

    Metrics: asked, and the share answered as expected.
    """
    rows, metrics = [], {}
    for relation in relations:
        a, b, c, expected = (relation[name] for name in ("a", "b", "c", "expected"))
        for rule in rules:
            for among in ("candidates", "vocabulary"):
                candidates = relation.get("candidates") if among == "candidates" else None
                if among == "candidates" and not candidates:
                    continue
                unknown = [word for word in (a, b, c, expected) if word not in words.numbers]
                left_out = [word for word in candidates or () if word not in words.numbers]
                candidates = [word for word in candidates if word not in left_out] if candidates else None
                row = {"a": a, "b": b, "c": c, "expected": expected, "rule": rule, "among": among}
                if unknown:
                    rows.append({**row, "answer": "", "note": f"no vector: {', '.join(unknown)}"})
                    continue
                ranked = words.answer(a, b, c, candidates, rule)
                place = [word for word, _ in ranked].index(expected) + 1
                answer = {"answer": ranked[0][0], "cosine": round(ranked[0][1], 4), "rank_of_expected": place}
                rows.append({**row, **answer, "note": f"no vector: {', '.join(left_out)}" if left_out else ""})
    run.table("analogies", rows)
    run.board.text("analogies", as_markdown(rows))
    for rule in rules:
        for among in ("candidates", "vocabulary"):
            asked = [row for row in rows if (row["rule"], row["among"]) == (rule, among) and row["answer"]]
            right = sum(row["answer"] == row["expected"] for row in asked)
            if asked:
                metrics[f"analogies/{rule}/{among}"] = right / len(asked)
                metrics[f"analogies/{rule}/{among}/asked"] = float(len(asked))
    return metrics


def list_neighbours(run: Run, words: Words, of: Sequence[str], k: int = 10) -> None:
    """Table neighbours: the nearest words of each word that has a vector."""
    rows = [
        {"word": word, "rank": rank, "neighbour": neighbour, "cosine": round(cosine, 4)}
        for word in of
        if word in words.numbers
        for rank, (neighbour, cosine) in enumerate(words.neighbours(word, k), 1)
    ]
    run.table("neighbours", rows)
    short = [{"word": w, "nearest": ", ".join(r["neighbour"] for r in rows if r["word"] == w)} for w in of]
    run.board.text("neighbours", as_markdown(short))


def project(run: Run, words: Words) -> None:
    run.embedding("words", words.vectors[:PROJECTED].tolist(), words.words[:PROJECTED])


def as_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns), *[[str(row.get(key, "")) for key in columns] for row in rows]]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def trained_words(folder: Path) -> Words:
    """The embedding of a finished text run. Raises UserError for a run that has none."""
    state, about = state_of(folder), read_json(folder / "preprocessing.json") or {}
    if state != "done" or "encoder" not in about:
        raise UserError(
            f"{folder} is {state} and has {'a' if 'encoder' in about else 'no'} vocabulary: no words to ask."
        )
    kind = (read_json(folder / "summary.json") or {}).get("weights", "best")
    weights = load_weights(folder / "checkpoints" / f"{kind}.safetensors")
    if "words.weight" not in weights:
        raise UserError(f"{folder} has trained no embedding named words.")
    return Words(encoder_of(about["encoder"]).words, weights["words.weight"])


@dataclass
class Analogies:
    """Ask word vectors, or the embedding of a finished text run (its folder or id), and show them in the projector."""

    relations: Sequence[Mapping[str, Any]]
    vectors: WordVectors | None = None
    run: str | None = None
    outputs: str = "outputs"
    neighbours_of: Sequence[str] = ()
    n_neighbours: int = 10
    rules: Sequence[Rule] = ("pair_direction", "3cosadd")

    def __post_init__(self) -> None:
        if (self.vectors is None) == (self.run is None):
            raise ValueError("the words come from vectors (vectors=glove) or from a run (procedure.run=RUN): give one")

    def __call__(self, run: Run) -> Metrics:
        if self.vectors is not None:
            words, label, name = Words(self.vectors.words, self.vectors.vectors), self.vectors.label, "word vectors"
        else:
            folder = find_run(str(self.run), Path(self.outputs))
            data = (read_json(folder / "summary.json") or {}).get("dataset", {})
            words, label, name = trained_words(folder), data.get("label", "part"), f"embedding of {folder.name}"
        metrics = {"words": float(len(words.words)), **ask(run, words, self.relations, self.rules)}
        list_neighbours(run, words, self.neighbours_of, self.n_neighbours)
        project(run, words)
        run.log(metrics, 0, 0)
        note = f"{len(words.words):,} words"
        run.finish(metrics, dataset={"name": name, "label": label, "note": note})
        return metrics
