"""Texts from a table: classes are found, the vocabulary comes from training rows, HTML is treated as in training."""

from __future__ import annotations

import csv
import io
import random
import re

import pytest

from dl_lab import configs
from dl_lab.commands import predict
from dl_lab.types import UserError

COMPOSER = configs.Composer()
GOOD, BAD, OTHER = (
    ["great", "lovely", "superb"],
    ["awful", "boring", "dull"],
    ["film", "the", "plot", "was", "a", "and"],
)


def reviews(n=80):
    rng = random.Random(0)
    for i in range(n):
        words = rng.choices(OTHER, k=5) + rng.choices(GOOD if i % 2 else BAD, k=3)
        yield f"<p>{' '.join(words)}, yes</p>", "pos" if i % 2 else "neg"


@pytest.fixture
def write(tmp_path):
    def to_file(rows, header=("review", "stars")):
        path = tmp_path / "reviews.csv"
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        return str(path)

    return to_file


def words_for(path, *overrides):
    return ["dataset=text_table", f"dataset.path={path}", "dataset.text=review", "dataset.label=stars", *overrides]


def load(path, *overrides):
    return configs.build(COMPOSER.compose(words_for(path, *overrides)).config, "dataset")


def test_classes_are_the_values_of_the_label(write):
    dataset = load(write(reviews()))
    assert dataset.class_names == ("neg", "pos")
    assert dataset.summary()["sizes"] == {"train": 56, "val": 12, "test": 12}
    assert dataset.about == ["review: texts", "stars: labels, 2 classes (neg 40, pos 40)"]


def test_the_vocabulary_is_of_the_training_rows(write):
    rows = [*reviews(), ("unheard words", "pos")]
    dataset = load(write(rows), "dataset/rows=in_order")
    assert "unheard" not in dataset.content.vocabulary
    assert "lovely" in dataset.content.vocabulary


FAULTS = {
    "an empty text": ([("", "pos")], "line 82: the column review is empty"),
    "no label": ([("fine", "")], "line 82: the column stars is empty"),
    "a label that means none": ([("fine", "None")], "line 82: 'None' in the column stars stands for no value"),
    "more cells": ([("fine", "pos", "x")], "line 82: 3 cells where the header has 2"),
    "a class of one": ([("fine", "odd")], "the class 'odd' has no training row"),
}


@pytest.mark.data_file("Tables", kind="labels that look the same", loader="all", outcome="refused")
@pytest.mark.parametrize(("one", "other"), [("pos", "pos\u200b"), ("caf\u00e9", "cafe\u0301")])
def test_labels_that_look_the_same_are_refused(write, one, other):
    rows = [(text, {"pos": one}.get(label, label)) for text, label in reviews()]
    path = write([*rows, *[("fine", other)] * 30])
    first, second = sorted([one, other])
    with pytest.raises(UserError, match=re.escape(f"The classes {first!a} and {second!a} look the same")) as raised:
        load(path)
    assert str(raised.value).isascii()


@pytest.mark.data_file(
    "Tables", kind="a text or a label is missing", loader="text_table", outcome="refused with the line"
)
@pytest.mark.parametrize("kind", FAULTS)
def test_faults_name_file_and_row(write, kind):
    more, message = FAULTS[kind]
    path = write([*reviews(), *more])
    with pytest.raises(UserError, match=message) as raised:
        load(path)
    assert path in str(raised.value)


def test_one_class_or_too_many_are_refused(write):
    with pytest.raises(UserError, match="'x' in every row"):
        load(write([(text, "x") for text, _ in reviews()]))
    with pytest.raises(UserError, match="80 different labels in 80 rows"):
        load(write([(text, i) for i, (text, _) in enumerate(reviews())]))


def test_trains_and_predicts_texts_and_tables(write, execute, capsys):
    path = write(reviews(200))
    more = ["dataset.texts.clean_html=true", "logger=none", "trainer.max_epochs=4", "optimizer.lr=3e-3"]
    folder, metrics = execute(*words_for(path, *more))
    assert metrics["test/accuracy"] > 0.9
    assert predict.main([str(folder), "<b>superb</b>, a great film"]) == 0
    out, notes = capsys.readouterr()
    assert next(csv.DictReader(io.StringIO(out)))["label"] == "pos"
    assert "HTML tags were removed from 1 text" in notes
    assert predict.main([str(folder), path]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 200
    assert sum(row["label"] == ("pos" if i % 2 else "neg") for i, row in enumerate(rows)) > 180
