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
    assert CORPUS.state(tmp_path) == "unpacked"
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


# -- links --


@pytest.mark.data_file(
    "Links and folders", kind="file or folder of a data set that is a link to elsewhere", loader="all", outcome="read"
)
def test_a_file_may_be_a_link_to_anywhere(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a.bin").write_bytes(b"a")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "folder").symlink_to(tmp_path / "disk")
    (tmp_path / "linked").symlink_to(tmp_path / "data")
    file = DataFile("folder/a.bin")
    for data_dir in (tmp_path / "data", tmp_path / "linked"):
        assert ensure(file, data_dir).read_bytes() == b"a" and file.state(data_dir) == "unchecked"


@pytest.mark.data_file(
    "Links and folders", kind="download into a linked folder outside of the data folder", loader="data fetch",
    outcome="refused; nothing is written",
)  # fmt: skip
def test_nothing_is_written_through_a_link_that_leaves_the_data_folder(archive, tmp_path):
    (tmp_path / "disk").mkdir()
    data = tmp_path / "data"
    data.mkdir()
    (data / "out").symlink_to(tmp_path / "disk")
    download = DataFile("out/a.bin", checksum="md5:" + "0" * 32, url="http://127.0.0.1:9/a.bin")
    with pytest.raises(UserError, match=r"out/a.bin leads by a link to .*disk/a.bin, outside of the data folder"):
        ensure(download, data)
    archive()
    (tmp_path / CORPUS.path).rename(data / CORPUS.path)
    (data / "corpus").symlink_to(tmp_path / "disk" / "not_there")
    with pytest.raises(UserError, match="outside of the data folder"):
        ensure(CORPUS, data)
    assert list((tmp_path / "disk").iterdir()) == []


@pytest.mark.data_file(
    "Archives and downloads", kind="archive that a user put there", loader="all", outcome="kept after unpacking"
)
def test_a_users_own_archive_is_kept(archive, tmp_path):
    import gzip
    import hashlib

    archive()
    ensure(CORPUS, tmp_path)
    assert (tmp_path / CORPUS.path).exists()
    packed = gzip.compress(b"content")
    (tmp_path / "a.bin.gz").write_bytes(packed)
    checksum = "md5:" + hashlib.md5(packed).hexdigest()
    file = DataFile("a.bin", url="http://127.0.0.1:9/a.bin.gz", packed_checksum=checksum)
    assert ensure(file, tmp_path).read_bytes() == b"content"
    assert (tmp_path / "a.bin.gz").exists()
