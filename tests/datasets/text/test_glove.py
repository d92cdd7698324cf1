"""GloVe vectors from a text file and from an archive; words without a vector are counted and drawn."""

from __future__ import annotations

import zipfile

import pytest
import torch

from dl_lab.datasets.storage import Storage
from dl_lab.datasets.text import glove as module
from dl_lab.datasets.text.glove import glove, read_vectors
from dl_lab.types import UserError

FILES = [{"path": "glove.3d.txt"}, {"path": "glove.zip"}]
TEXT = "the 0.1 0.2 0.3\nof -1 2e-1 3\né 0 0 1\n"


def build(folder, dim=3, **changes):
    return glove(dim, Storage(str(folder), str(folder / "cache"), FILES), **changes)


def test_words_and_vectors(tmp_path):
    (tmp_path / "glove.3d.txt").write_text(TEXT)
    vectors = build(tmp_path)
    assert vectors.words == ("the", "of", "é")
    torch.testing.assert_close(vectors.vectors[1], torch.tensor([-1.0, 0.2, 3.0]))
    assert vectors.label == "part"


def test_the_archive_holds_the_same(tmp_path):
    with zipfile.ZipFile(tmp_path / "glove.zip", "w") as packed:
        packed.writestr("glove.2d.txt", "a 1 2\n")
        packed.writestr("glove.3d.txt", TEXT)
    assert build(tmp_path).words == ("the", "of", "é")
    assert build(tmp_path, dim=2).words == ("a",)
    with pytest.raises(UserError, match=r"no file \*.50d.txt: it holds glove.2d.txt, glove.3d.txt"):
        build(tmp_path, dim=50)


def test_read_once(tmp_path, monkeypatch):
    (tmp_path / "glove.3d.txt").write_text(TEXT)
    first = build(tmp_path)
    monkeypatch.setattr(module, "read_vectors", lambda *_: pytest.fail("read again"))
    torch.testing.assert_close(build(tmp_path).vectors, first.vectors)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"the 1 2 3\nof 1 2\n", r"line 2: 2 numbers after the word instead of 3"),
        (b"the 1 2 3 4\n", r"line 1: 4 numbers after the word instead of 3"),
        (b"the\n", r"line 1: 0 numbers"),
        (b"the 1 2 3\nof 1 two 3\n", r"line 2: 'two' is not a finite number"),
        (b"the 1 2 nan\n", r"line 1: 'nan' is not a finite number"),
        (b"the 1  2\n", r"line 1: '' is not a finite number"),
        (b"the 1 2 3\nthe 1 2 3\n", r"line 2: the word 'the' comes a second time"),
        (b"caf\xe9 1 2 3\n", r"line 1: byte 4 is not valid UTF-8"),
        (b"", r"is empty"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_cached(tmp_path, text, message):
    (tmp_path / "glove.3d.txt").write_bytes(text)
    with pytest.raises(UserError, match=message):
        build(tmp_path)
    assert not list((tmp_path / "cache").glob("vectors_*/*"))


@pytest.mark.data_file(
    "Text", kind="word2vec and fastText headers, blanks at line ends", loader="glove", outcome="read"
)
@pytest.mark.data_file("Text", kind="words with blanks (840B release)", loader="glove", outcome="read")
def test_headers_marks_and_words_with_blanks(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    assert read_vectors(path, 3)[0] == ("the", "of", "é")
    path.write_text("3 3\n" + TEXT.replace("\n", " \n"))  # fastText: a header, and a blank after each line
    words, vectors = read_vectors(path, 3)
    assert words == ("the", "of", "é")
    torch.testing.assert_close(vectors[0], torch.tensor([0.1, 0.2, 0.3]))
    path.write_text(". . . 1 2 3\nat name@domain.com 4 5 6\n")  # of the 840B release
    words, vectors = read_vectors(path, 3)
    assert words == (". . .", "at name@domain.com")
    assert vectors.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.data_file("Text", kind="a header that promises other numbers", loader="glove", outcome="refused")
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3 2\n" + TEXT, r"line 1: the header says vectors of 2 numbers, not of 3 \(vectors.dim=2\)"),
        ("4 3\n" + TEXT, r"promises 4 words, but the file has 3"),
        ("3 3\nthe 1 2 x\nof 1 2 3\nno 1 2 3\n", r"line 2: 'x' is not a finite number"),
        ("the\t1\t2\t3\n", r"line 1: 0 numbers .* separated by tabs"),
    ],
)
def test_a_header_must_agree_with_its_lines(tmp_path, text, message):
    path = tmp_path / "x.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_vectors(path, 3)


def test_lines_are_counted_across_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 2)
    path = tmp_path / "x.txt"
    path.write_text("".join(f"w{i} {i}\n" for i in range(5)))
    assert read_vectors(path, 1)[1].flatten().tolist() == [0, 1, 2, 3, 4]
    path.write_text("a 1\nb 2\nc 3\nd x\n")
    with pytest.raises(UserError, match="line 4: 'x'"):
        read_vectors(path, 1)


def test_words_without_a_vector(tmp_path):
    (tmp_path / "glove.3d.txt").write_text(TEXT)
    vectors = build(tmp_path)
    torch.manual_seed(0)
    matrix, found = vectors.of(["<unk>", "of", *map(str, range(2000))])
    assert found.tolist()[:3] == [False, True, False]
    torch.testing.assert_close(matrix[1], vectors.vectors[1])
    assert abs(float(matrix[2:].std()) - 0.6) < 0.03
    assert not vectors.of(["never"], missing="zeros")[0].any()


def test_real_vectors(real_data):
    path = real_data / "glove.6B" / "glove.6B.100d.txt"
    if not path.exists():
        pytest.skip("needs the GloVe vectors")
    words, vectors = read_vectors(path, 100)
    assert words[0] == "the"
    assert vectors.shape == (len(words), 100)
