"""IMDB from an archive and from a folder: the same reviews, read once; a fault is named and leaves no cache."""

from __future__ import annotations

import io
import tarfile

import numpy as np
import pytest

from dl_lab import configs as config
from dl_lab.datasets.sets import imdb as module
from dl_lab.datasets.sets.imdb import imdb, read_corpus, split_rows
from dl_lab.datasets.storage import Storage
from dl_lab.datasets.text.texts import HeldOut, Texts
from dl_lab.types import UserError

FILES = [{"path": "aclImdb_v1.tar.gz"}, {"path": "aclImdb/labeled.tar.xz"}]
N = 8  # of each half


def reviews():
    for half in ("train", "test"):
        for kind in ("neg", "pos"):
            for i in range(N // 2):
                yield f"aclImdb/{half}/{kind}/{i}_{3 if kind == 'neg' else 8}.txt", f"{half}{i} a <br /> {kind} film"


def pack(path, changes=None, left_out=()):
    contents = {**dict(reviews()), **(changes or {}), "aclImdb/README": b"\xff not a review"}
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:xz") as packed:
        for name, text in contents.items():
            data = text.encode() if isinstance(text, str) else text
            member = tarfile.TarInfo(name)
            member.size = len(data)
            if name not in left_out:
                packed.addfile(member, io.BytesIO(data))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(module, "SIZE", N)


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "data" / "aclImdb" / "labeled.tar.xz"
    pack(path)
    return path


def build(tmp_path, length=6, texts=None, held_out=None):
    arguments = {"vocabulary_size": 100, "length": length, "n_classes": 2}
    storage = Storage(str(tmp_path / "data"), str(tmp_path / "cache"), FILES)
    groups = {
        "texts": Texts(**{"clean_html": True, **(texts or {})}),
        "held_out": HeldOut(**{"n_val": 4, **(held_out or {})}),
    }
    return imdb(**arguments, storage=storage, **groups)


def test_splits_labels_and_vocabulary(archive, tmp_path):
    dataset = build(tmp_path)
    assert (len(dataset.train), len(dataset.val), len(dataset.test), dataset.label) == (8, 4, 4, "full")
    words = dataset.content.vocabulary
    assert "train0" in words and not any(word.startswith("test") for word in words)
    for batch in (next(iter(part.batches(8))) for part in (dataset.train, dataset.val, dataset.test)):
        for row, label in zip(batch.x.tolist(), batch.y.tolist(), strict=True):
            assert ("pos" if label else "neg") in [words[number] for number in row]
    assert "<br" not in words
    assert "br" not in words


def test_the_folder_holds_the_same(archive, tmp_path):
    packed = read_corpus(archive, clean_html=True)
    for name, text in reviews():
        path = tmp_path / "folder" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    unpacked = read_corpus(tmp_path / "folder" / "aclImdb", clean_html=True)
    assert unpacked.texts == packed.texts
    assert all((unpacked.labels[half] == packed.labels[half]).all() for half in ("train", "test"))


def test_reviews_are_read_once(archive, tmp_path, monkeypatch):
    first = build(tmp_path)
    monkeypatch.setattr(module, "read_corpus", lambda *_: pytest.fail("read again"))
    again = build(tmp_path, length=3)  # another layout of the same tokens
    assert again.content.vocabulary == first.content.vocabulary
    assert build(tmp_path).fingerprint == first.fingerprint
    with pytest.raises(pytest.fail.Exception, match="read again"):
        build(tmp_path, texts={"tokenizer": "whitespace"})
    (tokens,) = (tmp_path / "cache").glob("imdb_*/train.numbers.npy")
    tokens.write_bytes(b"short")
    with pytest.raises(pytest.fail.Exception, match="read again"):  # a damaged cache is made again
        build(tmp_path)


def test_a_part_says_so(archive, tmp_path):
    dataset = build(tmp_path, held_out={"n_train": 5})
    assert (dataset.label, len(dataset.train)) == ("part", 5)
    assert "5 of 8 training reviews" in dataset.note


@pytest.mark.parametrize(
    ("changes", "left_out", "message"),
    [
        ({"aclImdb/train/neg/0_3.txt": b"caf\xe9 noir"}, (), r"train/neg/0_3.txt, line 1: byte 4 is not valid UTF-8"),
        ({"aclImdb/test/pos/1_8.txt": " <br /> "}, (), r"test/pos/1_8.txt: the review is empty"),
        ({"aclImdb/../../etc/x_1.txt": "x"}, (), r"'aclImdb/../../etc/x_1.txt' leaves the archive's folder"),
        ({"/aclImdb/train/neg/9_1.txt": "x"}, (), r"leaves the archive's folder"),
        ({}, ("aclImdb/train/pos/2_8.txt",), r"train half has 4 negative and 3 positive reviews instead of 4 each"),
    ],
)
def test_a_fault_is_named_and_nothing_is_cached(tmp_path, changes, left_out, message):
    pack(tmp_path / "data" / "aclImdb" / "labeled.tar.xz", changes, left_out)
    with pytest.raises(UserError, match=message):
        build(tmp_path)
    assert not list((tmp_path / "cache").glob("imdb_*/*"))
    assert not (tmp_path / "etc").exists()


def test_a_truncated_archive(archive, tmp_path):
    archive.write_bytes(archive.read_bytes()[:200])
    with pytest.raises(UserError, match=r"cannot be read|part of it is missing"):
        build(tmp_path)


def test_no_archive_at_all(tmp_path):
    with pytest.raises(UserError, match=r"aclImdb_v1.tar.gz does not exist"):
        build(tmp_path)


def test_rows_of_the_train_half_are_held_out_by_class():
    labels = {half: np.arange(100) % 2 for half in ("train", "test")}
    rows = split_rows(labels, HeldOut(n_val=20, val_from="train", seed=42))
    (_, kept), (_, val) = rows["train"], rows["val"]
    assert labels["train"][val].sum() == 10
    assert sorted([*kept, *val]) == list(range(100))
    assert len(rows["test"][1]) == 100
    with pytest.raises(ValueError, match="ask for more"):
        split_rows(labels, HeldOut(n_train=90, n_val=20, val_from="train", seed=42))


def test_real_reviews(real_data, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SIZE", 25_000)
    composed = config.Composer().compose(["dataset=imdb", f"paths.cache_dir={tmp_path}", "model=text_recurrent"])
    files = [real_data / file["path"] for file in composed.config["dataset"]["storage"]["files"]]
    if not any(path.exists() for path in files):
        pytest.skip("needs an IMDB archive")
    corpus = read_corpus(next(path for path in files if path.exists()), clean_html=True)
    assert [len(corpus.texts[half]) for half in ("train", "test")] == [25_000, 25_000]
    assert not any("<br" in text for text in corpus.texts["train"])
