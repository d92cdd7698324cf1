"""AG News: rows as published, splits as the source draws them, and messages about bad files."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dl_lab import configs as config
from dl_lab.datasets.sets.ag_news import CLASS_NAMES, News, ag_news, read_rows, split_rows
from dl_lab.datasets.storage import Storage
from dl_lab.datasets.text.texts import HeldOut
from dl_lab.types import UserError

GOOD = b'"1","Peace","Talks ""resume"", today"\n"2","Cup","A\\goal"\n"3","Oil","up"\n"4","Chip","\xc3\xa9t\xc3\xa9"\n'


@pytest.fixture
def files(tmp_path):
    """Writes ag_news_csv/{train,test}.csv under tmp_path; returns ag_news' arguments."""

    def write(train=GOOD * 5, test=GOOD * 3, **arguments):
        (tmp_path / "ag_news_csv").mkdir(exist_ok=True)
        for name, content in (("train", train), ("test", test)):
            (tmp_path / "ag_news_csv" / f"{name}.csv").write_bytes(content)
        entries = [{"path": f"ag_news_csv/{name}.csv", "checksum": "md5:" + "0" * 32} for name in ("train", "test")]
        held_out = HeldOut(n_train=8, n_val=4, n_test=8)
        return {
            "input_shape": [12],
            "n_classes": 4,
            "storage": Storage(str(tmp_path), "", entries),
            "held_out": held_out,
            **arguments,
        }

    return write


def test_rows(tmp_path):
    path = tmp_path / "train.csv"
    path.write_bytes(GOOD)
    rows = read_rows(path)
    assert rows[0] == News(0, 'Peace Talks "resume", today')
    assert rows[3] == News(3, "Chip été")
    assert len(rows) == 4


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (b'"1","only a title"\n', r"line 5: 2 columns instead of 3"),
        (b'"1","a","b","c"\n', r"line 5: 4 columns"),
        (b'"5","a","b"\n', r"line 5: label '5' is not one of 1, 2, 3, 4"),
        (b'"x","a","b"\n', r"line 5: label 'x'"),
        (b"\n", r"line 5: 0 columns"),
        (b'"1","a" b","c"\n', r"line 5: the row that starts here has broken quotes"),
        (b'"1","never closed,"b"\n"2","c","d"\n', r"line 5: the row that starts here has broken quotes"),
        (b'"1","\xff","b"\n', r"line 5: byte 6 is not valid UTF-8"),
    ],
)
def test_a_bad_row_is_named(tmp_path, bad, message):
    path = tmp_path / "train.csv"
    path.write_bytes(GOOD + bad)
    with pytest.raises(UserError, match=message) as raised:
        read_rows(path)
    assert str(path) in str(raised.value)


@pytest.mark.data_file("Text", kind="a byte order mark", loader="ag_news", outcome="read without it")
@pytest.mark.data_file(
    "Text", kind="a header, as in Kaggle's copy", loader="ag_news", outcome="refused: `dataset.header=true` reads it"
)
def test_a_byte_order_mark_and_a_header_are_no_rows(tmp_path):
    path = tmp_path / "train.csv"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD)
    assert read_rows(path)[0] == News(0, 'Peace Talks "resume", today')
    path.write_bytes(b"Class Index,Title,Description\n" + GOOD)
    with pytest.raises(UserError, match=r"line 1 \(Class Index,Title,Description\) is a header.*dataset.header=true"):
        read_rows(path)
    assert len(read_rows(path, header=True)) == 4
    path.write_bytes(GOOD)
    with pytest.raises(UserError, match=r"is no header: set dataset.header=false"):
        read_rows(path, header=True)


def test_a_file_cut_short_is_noticed(tmp_path):
    path = tmp_path / "train.csv"
    path.write_bytes(GOOD[:-4])
    with pytest.raises(UserError, match="line 4: the row that starts here has broken quotes"):
        read_rows(path)


def test_an_empty_class_is_named(tmp_path):
    path = tmp_path / "test.csv"
    path.write_bytes(GOOD.replace(b'"3"', b'"1"'))
    with pytest.raises(UserError, match=r"test.csv has no row of class Business"):
        read_rows(path)


def test_splits_are_those_of_the_source():
    """One generator shuffles the training list, then the test list; val comes before test."""
    train = [News(i % 4, f"train {i}") for i in range(50)]
    test = [News(i % 4, f"test {i}") for i in range(30)]
    rng = np.random.default_rng(4242)
    shuffled_train, shuffled_test = list(train), list(test)
    rng.shuffle(shuffled_train)
    rng.shuffle(shuffled_test)
    rows = split_rows(train, test, HeldOut(n_train=10, n_val=7, n_test=9))
    assert rows == {"train": shuffled_train[:10], "val": shuffled_test[:7], "test": shuffled_test[7:16]}
    whole = split_rows(train, test, HeldOut(n_val=7))
    assert [len(whole[s]) for s in ("train", "val", "test")] == [50, 7, 23]
    with pytest.raises(ValueError, match="more than the 50 rows"):
        split_rows(train, test, HeldOut(n_train=51, n_val=7, n_test=9))


def test_vocabulary_is_of_the_training_rows_only(files):
    unseen = GOOD.replace(b"Oil", b"Unseen")
    dataset = ag_news(**files(test=unseen * 3))
    assert "oil" in ag_news(**files()).content.vocabulary
    assert "unseen" not in dataset.content.vocabulary
    batch = next(dataset.test.batches(8))
    strange = batch.y == CLASS_NAMES.index("Business")
    assert batch.x[strange][:, 0].eq(1).all(), "<unk> is feature 0"
    assert batch.x.dtype == torch.float32
    assert batch.x.shape == (8, 12)


def test_label_says_how_much_it_is(files):
    dataset = ag_news(**files())
    assert (dataset.label, dataset.note) == ("part", "8 of 20 training rows, drawn with seed 4242")
    assert dataset.summary()["sizes"] == {"train": 8, "val": 4, "test": 8}


def test_a_missing_file_says_what_to_do(tmp_path):
    entries = [{"path": f"ag_news_csv/{name}.csv"} for name in ("train", "test")]
    with pytest.raises(UserError, match=r"dataset.source=generated"):
        ag_news([10], 4, Storage(str(tmp_path), "", entries))


def test_the_twin_has_the_same_shapes_and_every_class():
    composed = config.Composer().compose(["dataset=ag_news", "dataset.source=generated", "+dataset.n_generated=40"])
    dataset = config.build(composed.config, "dataset")
    for split in (dataset.train, dataset.val, dataset.test):
        batch = next(split.batches(1000))
        assert batch.x.shape[1:] == (1000,)
        assert set(batch.y.tolist()) == {0, 1, 2, 3}
    assert dataset.label == "generated"


def test_the_twin_can_be_learned(execute):
    _, metrics = execute(
        "experiment=ag_news_feedforward", "dataset.source=generated", "+dataset.n_generated=1024", "logger=none",
        "trainer.max_epochs=8", "optimizer.lr=1e-3", "trainer.batch_size=64",
    )  # fmt: skip
    assert metrics["test/accuracy"] > 0.8


def test_real_files(real_data):
    composed = config.Composer().compose(["dataset=ag_news", f"paths.data_dir={real_data}"])
    if not (real_data / "ag_news_csv" / "train.csv").exists():
        pytest.skip("AG News is not in the data folder")
    dataset = config.build(composed.config, "dataset")
    assert dataset.summary()["sizes"] == {"train": 10_000, "val": 1_000, "test": 1_000}
    assert dataset.content.vocabulary[:4] == ("<unk>", ".", "the", ",")
