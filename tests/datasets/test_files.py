"""The files of a data set: an archive that is read as its folder."""

from __future__ import annotations

import tarfile

import pytest

from dl_lab.datasets.files import DataFile, ensure
from dl_lab.types import UserError

CORPUS = DataFile("corpus.tar.bz2", unpacks="corpus")


@pytest.fixture
def archive(tmp_path):
    """corpus.tar.bz2 with one folder of the name given, or that folder alone."""

    def write(name="corpus"):
        (tmp_path / "source" / name).mkdir(parents=True)
        (tmp_path / "source" / name / "a.txt").write_text("a")
        with tarfile.open(tmp_path / CORPUS.path, "w:bz2") as packed:
            packed.add(tmp_path / "source" / name, name)

    return write


def test_an_archive_is_unpacked_once_as_its_folder(archive, tmp_path):
    assert CORPUS.state(tmp_path) == "missing"
    archive()
    folder = ensure(CORPUS, tmp_path)
    assert folder == (tmp_path / "corpus").resolve()
    assert (folder / "a.txt").read_text() == "a"
    (tmp_path / CORPUS.path).unlink()  # the folder is enough
    assert CORPUS.state(tmp_path) == "unchecked"
    (folder / "a.txt").write_text("kept")
    assert (ensure(CORPUS, tmp_path) / "a.txt").read_text() == "kept"
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock") == ["corpus", "source"]


def test_another_archive_is_refused_and_leaves_nothing(archive, tmp_path):
    archive("something_else")
    with pytest.raises(UserError, match="has no folder corpus"):
        ensure(CORPUS, tmp_path)
    assert not (tmp_path / "corpus").exists()


def test_a_truncated_archive_leaves_nothing(archive, tmp_path):
    archive()
    path = tmp_path / CORPUS.path
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UserError, match="could not be unpacked"):
        ensure(CORPUS, tmp_path)
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize("file", [DataFile("a.tar", unpacks="../a"), DataFile("../a.tar", unpacks="a")])
def test_no_path_leaves_the_data_folder(file, tmp_path):
    with pytest.raises(UserError, match="outside the data folder"):
        ensure(file, tmp_path)
