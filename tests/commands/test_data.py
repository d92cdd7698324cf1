"""dl-lab data."""

from __future__ import annotations

import hashlib

import pytest

CONTENT = b"the official content"


@pytest.fixture
def own_data(tmp_path, monkeypatch):
    """A data set of a user's own with one file that has a checksum and one that has none."""
    (tmp_path / "own" / "dataset").mkdir(parents=True)
    (tmp_path / "own" / "dataset" / "mine.yaml").write_text(
        "_target_: dl_lab.datasets.octmnist.octmnist\n"
        "data_dir: ${paths.data_dir}\n"
        "files:\n"
        f"  - {{path: mine/a.bin, checksum: 'sha256:{hashlib.sha256(CONTENT).hexdigest()}', size: 1500000}}\n"
        "  - {path: mine/b.bin}\n"
    )
    folder = tmp_path / "data" / "mine"
    folder.mkdir(parents=True)
    monkeypatch.setenv("DL_LAB_DATA", str(tmp_path / "data"))
    return folder


def states(out: str) -> dict[str, str]:
    return {line.rsplit("/", 1)[1].partition(": ")[0]: line.rsplit(": ", 1)[1] for line in out.splitlines()}


def test_word_vectors_are_listed_and_verified_too(command, tmp_path, monkeypatch):
    monkeypatch.setenv("DL_LAB_DATA", str(tmp_path))
    status, out, _ = command("data", "verify", "glove")
    assert status == 1
    assert "glove.6B.100d.txt: missing" in out


def test_verify(command, own_data):
    words = ("data", "verify", "mine", "--config-dir", "own")
    status, out, _ = command(*words)
    assert (status, states(out)) == (1, {"a.bin": "missing", "b.bin": "missing"})
    (own_data / "a.bin").write_bytes(CONTENT)
    (own_data / "b.bin").write_bytes(CONTENT)
    status, out, _ = command(*words)
    assert (status, states(out)) == (0, {"a.bin": "official", "b.bin": "here (no official checksum)"})
    (own_data / "a.bin").write_bytes(b"something else")
    status, out, _ = command(*words)
    assert (status, states(out)["a.bin"]) == (1, "differs from the official file")


def test_list(command, own_data):
    (own_data / "b.bin").write_bytes(CONTENT)
    status, out, _ = command("data", "list", "--config-dir", "own")
    lines = out.splitlines()
    mine = next(i for i, line in enumerate(lines) if line.startswith("mine "))
    assert status == 0
    assert lines[mine].split() == ["mine", "missing", "1.5", "MB", "mine/a.bin", "no", "public", "download"]
    assert lines[mine + 1].split()[:4] == ["here", "20", "B", "mine/b.bin"]
    assert any(line.split()[:2] == ["digits", "ready"] for line in lines)
    assert lines[-1].startswith(f"Data folder: {own_data.parent}")


def test_list_fits_the_terminal(command, own_data, monkeypatch):
    monkeypatch.setenv("COLUMNS", "70")
    lines = command("data", "list")[1].splitlines()
    assert max(len(line) for line in lines if not line.startswith("Data folder")) <= 70
    assert "Left out at this width: source. All of it: a wider terminal." in " ".join(lines)


def test_fetch_keeps_what_is_there_and_says_what_cannot_be_fetched(command, own_data):
    (own_data / "a.bin").write_bytes(b"a part of it")
    status, out, err = command("data", "fetch", "mine", "--config-dir", "own")
    assert status == 1
    assert out == f"mine: {own_data / 'a.bin'}\n"
    assert "b.bin does not exist, and there is no public download" in err
    assert (own_data / "a.bin").read_bytes() == b"a part of it"


def test_a_data_set_without_files(command):
    assert command("data", "verify", "digits") == (0, "digits needs no files.\n", "")
    assert command("data", "fetch", "digits") == (0, "digits needs no files.\n", "")


def test_an_unknown_data_set(command):
    status, _, err = command("data", "verify", "octmnis")
    assert status == 2
    assert "There is no dataset 'octmnis'. Did you mean octmnist?" in err


def test_without_torch(cost):
    assert "torch" not in cost("data", "verify", "digits")[1]
