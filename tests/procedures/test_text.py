"""Text experiments: word vectors, figures, tables, analogies, the projector, prediction."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace

import pytest
import torch

from dl_lab import configs as config
from dl_lab.commands import predict
from dl_lab.datasets.text.glove import WordVectors
from dl_lab.jobs.rehearsal import rehearse
from dl_lab.models.text_recurrent import TextRecurrent
from dl_lab.procedures.analogies import Analogies, Words
from dl_lab.procedures.text import score_classes, start_from, to_probabilities
from dl_lab.types import ConfigError, UserError

pytestmark = pytest.mark.figures

LEARNS = ["dataset.source=generated", "+dataset.n_generated=400", "trainer.device=cpu", "logger=none"]


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


# -- a run that learns, and predicts


@pytest.fixture(scope="module")
def run(execute_in, tmp_path_factory):
    """A small Transformer of news, trained on generated texts, with vectors, attention maps and questions."""
    folder = tmp_path_factory.mktemp("text") / "run"
    words = ["dataset.vocabulary_size=1600", "model.hidden=32", "model.n_layers=1", "model.frozen_words=false"]
    asked = ["procedure.sentences=[word1 word2 and never]", "procedure.neighbours_of=[word1]", "procedure.project=true"]
    relation = "procedure.relations=[{a: word1, b: word2, c: word3, expected: word4}]"
    metrics = execute_in(
        folder,
        "experiment=glove_transformer",
        *LEARNS[:-1],
        "vectors.source=generated",
        "optimizer.lr=0.003",
        "trainer.max_epochs=4",
        *words,
        *asked,
        relation,
    )
    return folder, metrics


def test_learns_and_leaves_tables_and_figures(run):
    folder, metrics = run
    assert metrics["test/accuracy"] > 0.9
    assert metrics["test/f1"] == pytest.approx(metrics["test/accuracy"], abs=0.05)
    assert metrics["vectors/words_found"] > 1000
    assert metrics["vectors/words_missing"] >= 2  # <unk> and <pad>
    assert 0 <= metrics["vectors/tokens_missing"] < 0.1
    for name in ("roc", "attention_0", "confusion_matrix"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 1000
        assert rows(folder / "tables" / f"{name}.csv")
    weights = rows(folder / "tables" / "attention_0.csv")
    assert {row["key"] for row in weights} == {"word1", "word2", "and", "never"}
    for query in ("word1", "never"):
        of_one = [float(r["weight"]) for r in weights if (r["head"], r["query"]) == ("1", query)]
        assert sum(of_one) == pytest.approx(1, abs=1e-3)
    assert [row["class"] for row in rows(folder / "tables" / "classes.csv")] == [
        "World",
        "Sports",
        "Business",
        "Sci/Tech",
    ]


def test_the_projector_finds_the_words(run):
    from google.protobuf import text_format
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    folder, _ = run
    about = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (embedding,) = about.embeddings
    vectors = (folder / embedding.tensor_path).read_text().splitlines()
    labels = (folder / embedding.metadata_path).read_text().splitlines()
    assert (
        len(vectors) == len(labels) == len(json.loads((folder / "preprocessing.json").read_text())["encoder"]["words"])
    )
    assert labels[:2] == ["<unk>", "<pad>"]
    assert len(vectors[0].split("\t")) == 100


def test_predicts_a_text_and_a_file(run, tmp_path, capsys):
    import io

    folder, _ = run
    own = [f"word{100 + i}" for i in range(12)]  # words of the third class in the generated texts
    assert predict.main([str(folder), " ".join(own)]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    shares = [float(row[f"p({name})"]) for name in ("World", "Sports", "Business", "Sci/Tech")]
    assert row["label"] == "Business"
    assert max(shares) == shares[2]
    assert sum(shares) == pytest.approx(1, abs=1e-3)
    (tmp_path / "texts.txt").write_text("word1 word2 word3 word4\n" + " ".join(own) + "\n")
    assert predict.main([str(folder), str(tmp_path / "texts.txt")]) == 0
    found = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [r["label"] for r in found] == ["World", "Business"]
    assert found[1]["p(Business)"] == row["p(Business)"], "other texts beside it change nothing"


@pytest.mark.data_file(
    "Text", kind="a byte order mark, HTML tags", loader="predict", outcome="treated as in training, and said"
)
def test_a_file_is_read_as_in_training(run, execute, tmp_path, capsys):
    folder, _ = run
    texts = "word1 word2 word3\nnever heard\n"
    answers = {}
    for encoding in ("utf-8", "utf-8-sig"):
        (tmp_path / "texts.txt").write_text(texts, encoding=encoding)
        assert predict.main([str(folder), str(tmp_path / "texts.txt")]) == 0
        answers[encoding], notes = capsys.readouterr()
        assert "note: 1 text without a single word that the run knows" in notes
    assert answers["utf-8"] == answers["utf-8-sig"]
    reviews, _ = execute("experiment=imdb_lstm", "profile=smoke", "logger=none")
    assert predict.main([str(reviews), "word1<br /><b>word2</b>"]) == 0
    tagged, notes = capsys.readouterr()
    assert "note: HTML tags were removed from 1 text" in notes
    assert predict.main([str(reviews), "word1 word2"]) == 0
    assert tagged.splitlines()[1].split(",")[1:] == capsys.readouterr().out.splitlines()[1].split(",")[1:]


def test_what_cannot_be_predicted_is_said(run, tmp_path):
    folder, _ = run
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"fine\ncaf\xe9\n")
    with pytest.raises(UserError, match=r"bad.txt, line 2: byte 4 is not valid UTF-8"):
        predict.main([str(folder), str(bad)])
    bad.write_text("fine\n\nfine\n")
    with pytest.raises(UserError, match=r"bad.txt, line 2: the text is empty"):
        predict.main([str(folder), str(bad)])
    bad.write_text("")
    with pytest.raises(UserError, match=r"bad.txt is empty"):
        predict.main([str(folder), str(bad)])
    with pytest.raises(UserError, match="The text is empty"):
        predict.main([str(folder), "  "])
    for name in ("reviews.txt", "folder/reviews"):
        with pytest.raises(UserError, match="is not a file"):
            predict.main([str(folder), name])


@pytest.mark.parametrize("name", ["ag_news_feedforward", "ag_news_attention", "imdb_transformer"])
def test_every_kind_of_text_run_predicts(name, execute, capsys):
    folder, _ = execute(f"experiment={name}", "profile=smoke", "logger=none")
    assert predict.main([str(folder), "word1 never seen"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.startswith("text,label,p(")
    assert row.startswith("word1 never seen,")


def test_asks_the_embedding_of_a_finished_run(run, execute):
    folder, _ = run
    relation = "procedure.relations=[{a: word1, b: word2, c: word3, expected: word4}]"
    outcome, metrics = execute(
        "experiment=word_analogies", "vectors=null", f"procedure.run='{folder}'", relation, "logger=none"
    )
    assert metrics["words"] > 1000
    own = {(r["rule"], r["among"]): r["answer"] for r in rows(folder / "tables" / "analogies.csv")}
    again = {(r["rule"], r["among"]): r["answer"] for r in rows(outcome / "tables" / "analogies.csv")}
    assert again == own


# -- the parts


def test_vectors_of_another_width_are_refused():
    vectors = WordVectors(("a",), torch.zeros(1, 3), "generated")
    split = SimpleNamespace(batches=lambda size: iter(()))
    with pytest.raises(UserError, match=r"3 numbers, but the model's embedding has 10: set model.dim=3"):
        start_from(TextRecurrent(5, 1), ["a"], vectors, "zeros", split)  # pyright: ignore[reportArgumentType]


def test_probabilities_of_one_logit_and_of_many():
    two = to_probabilities(torch.tensor([[0.0], [2.0]]))
    torch.testing.assert_close(two.sum(dim=1), torch.ones(2))
    torch.testing.assert_close(two[1, 1], torch.tensor(2.0).sigmoid())
    torch.testing.assert_close(to_probabilities(torch.zeros(1, 4)), torch.full((1, 4), 0.25))


def test_class_scores_by_hand():
    chosen = torch.tensor([0, 0, 1, 1])
    probabilities = torch.nn.functional.one_hot(chosen, 2).float()
    metrics, table = score_classes(probabilities, torch.tensor([0, 1, 1, 1]), ["a", "b"])
    assert (table[1]["precision"], table[1]["recall"]) == (1, pytest.approx(2 / 3))
    assert metrics["test/f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)


SQUARE = Words(
    ["man", "woman", "king", "queen", "apple"],
    torch.tensor([[1.0, 0, 0], [1, 1, 0], [5, 0, 1], [5, 1, 1], [0, 0.1, -3]]),
)


def test_a_parallelogram_answers_by_both_rules():
    for rule in ("3cosadd", "pair_direction"):
        assert SQUARE.answer("man", "woman", "king", rule=rule)[0][0] == "queen"
        assert SQUARE.answer("man", "woman", "king", ["apple", "queen"], rule)[0][0] == "queen"
    assert "king" not in dict(SQUARE.answer("man", "woman", "king"))
    assert SQUARE.neighbours("king", 1)[0][0] == "queen"


def test_a_check_needs_no_files(monkeypatch, tmp_path):
    """`dl-lab check` uses generated vectors and texts; a sweep notices when the files of either change."""
    from dl_lab.configs.identity import data_fingerprint

    monkeypatch.setenv("DL_LAB_DATA", str(tmp_path))
    composed = config.Composer().compose(["experiment=glove_transformer"])
    rehearse(composed.config)
    before = data_fingerprint(composed.config)
    (tmp_path / "glove.6B").mkdir()
    (tmp_path / "glove.6B" / "glove.6B.100d.txt").write_text("the 1\n")
    assert data_fingerprint(composed.config) != before


def test_questions_about_words_without_a_vector_are_not_counted(tmp_path):
    from dl_lab.runs.board import NoBoard
    from dl_lab.runs.recorder import Run

    vectors = WordVectors(SQUARE.words, SQUARE.vectors, "part")
    asked = [
        {"a": "man", "b": "woman", "c": "king", "expected": "queen", "candidates": ["apple", "queen"]},
        {"a": "man", "b": "woman", "c": "boy", "expected": "girl"},
    ]
    recorder = Run.create(tmp_path / "run", {}, {}, NoBoard(), {})
    metrics = Analogies(asked, vectors, neighbours_of=["king", "never"])(recorder)
    assert metrics["analogies/3cosadd/candidates"] == 1
    assert metrics["analogies/3cosadd/vocabulary/asked"] == 1
    few = [{**asked[0], "candidates": ["apple", "prophet", "queen"]}]
    assert Analogies(few, vectors)(recorder)["analogies/3cosadd/candidates"] == 1
    assert {row["note"] for row in rows(tmp_path / "run" / "tables" / "analogies.csv")} == {"no vector: prophet", ""}
    Analogies(asked, vectors)(recorder)
    notes = [row["note"] for row in rows(tmp_path / "run" / "tables" / "analogies.csv")]
    assert "no vector: boy, girl" in notes


def test_words_come_from_one_place():
    with pytest.raises(ValueError, match="give one"):
        Analogies([])
    with pytest.raises(ConfigError, match="give one"):
        composed = config.Composer().compose(["experiment=word_analogies", "vectors=null"])
        config.build(composed.config, "procedure")


def test_a_run_without_words(execute):
    folder, _ = execute("profile=smoke", "logger=none")
    with pytest.raises(UserError, match="no words to ask"):
        Analogies([], run=str(folder))(SimpleNamespace())  # pyright: ignore[reportArgumentType]
