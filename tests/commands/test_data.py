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
        "_target_: dl_lab.datasets.sets.octmnist.octmnist\n"
        "storage:\n"
        "  files:\n"
        f"    - {{path: mine/a.bin, checksum: 'sha256:{hashlib.sha256(CONTENT).hexdigest()}', size: 1500000}}\n"
        "    - {path: mine/b.bin}\n"
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


def test_verify_compares_with_the_official_checksums(command, own_data):
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


def test_list_shows_every_file_with_its_state(command, own_data):
    (own_data / "b.bin").write_bytes(CONTENT)
    status, out, _ = command("data", "list", "--config-dir", "own")
    lines = out.splitlines()
    mine = next(i for i, line in enumerate(lines) if line.startswith("mine "))
    assert status == 0
    assert lines[mine].split() == ["mine", "missing", "1.5", "MB", "mine/a.bin", "no", "public", "download"]
    assert lines[mine + 1].split()[:4] == ["here", "20", "B", "mine/b.bin"]
    assert any(line.split()[:2] == ["digits", "ready"] for line in lines)
    assert lines[-1].startswith(f"Data folder: {own_data.parent}")


def test_fetch_keeps_existing_files_and_names_those_without_a_download(command, own_data):
    (own_data / "a.bin").write_bytes(b"a part of it")
    status, out, err = command("data", "fetch", "mine", "--config-dir", "own")
    assert status == 1
    assert out == f"mine: {own_data / 'a.bin'}\n"
    assert "b.bin does not exist, and there is no public download" in err
    assert (own_data / "a.bin").read_bytes() == b"a part of it"


def test_a_data_set_without_files_needs_none(command):
    assert command("data", "verify", "digits") == (0, "digits needs no files.\n", "")
    assert command("data", "fetch", "digits") == (0, "digits needs no files.\n", "")


@pytest.mark.data_file(
    "Archives and downloads", kind="CIFAR-10: official batches, or only the JPEG copy",
    loader="data fetch, data verify",
    outcome="either is enough",
)  # fmt: skip
def test_of_alternatives_one_is_enough(command, tmp_path, monkeypatch):
    monkeypatch.setenv("DL_LAB_DATA", str(tmp_path))
    assert command("data", "verify", "cifar10")[0] == 1
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "CIFAR-10-images-jpeg.tar.xz").write_bytes(b"x")
    status, out, _ = command("data", "verify", "cifar10")
    assert status == 0
    assert "cifar-10-python.tar.gz: missing, but not needed" in out
    assert "train_order.csv: missing, but not needed" in out
    status, out, _ = command("data", "fetch", "cifar10")
    assert status == 0 and f"{tmp_path}/cifar10/CIFAR-10-images-jpeg.tar.xz" in out


@pytest.mark.data_file(
    "Archives and downloads", kind="archive whose unpacked folder is there (CIFAR-10, IMDB, Food-101)",
    loader="data fetch, data verify", outcome="the archive is not needed",
)  # fmt: skip
@pytest.mark.parametrize(
    ("name", "folder"),
    [("cifar10", "cifar-10-batches-py"), ("imdb", "aclImdb/train"), ("food101_part", "food-101/meta")],
)
def test_an_unpacked_folder_stands_for_its_archive(command, tmp_path, monkeypatch, name, folder):
    monkeypatch.setenv("DL_LAB_DATA", str(tmp_path))
    (tmp_path / folder).mkdir(parents=True)
    status, out, err = command("data", "fetch", name)
    assert (status, err) == (0, "") and str(tmp_path / folder) in out
    assert command("data", "verify", name)[0] == 0


@pytest.mark.data_file(
    "Links and folders", kind="link that leads nowhere or to itself", loader="data list", outcome="listed as missing"
)
def test_list_survives_bad_links_and_fits_the_terminal(command, tmp_path, monkeypatch):
    monkeypatch.setenv("DL_LAB_DATA", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "70")
    (tmp_path / "octmnist.npz").symlink_to(tmp_path / "octmnist.npz")
    (tmp_path / "MNIST").symlink_to(tmp_path / "nowhere")
    status, out, err = command("data", "list")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert any("octmnist.npz" in line and ("missing" in line or "unreadable" in line) for line in lines)
    assert max(len(line) for line in lines if not line.startswith("Data folder")) <= 70
    assert "Left out at this width: source. All of it: a wider terminal." in " ".join(lines)


def test_nothing_is_downloaded_to_the_place_of_a_broken_link(command, own_data):
    (own_data / "a.bin").symlink_to(own_data / "nowhere")
    status, _, err = command("data", "fetch", "mine", "--config-dir", "own")
    assert status == 1 and "a.bin is a link to " in err and "which does not exist" in err


@pytest.mark.data_file(
    "Archives and downloads", kind="`files:` entry with a url and no checksum", loader="check, data",
    outcome="refused in one sentence",
)  # fmt: skip
@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{path: a.bin, url: 'https://x.org/a.bin'}", "files[0] (a.bin): the file has a url but no checksum"),
        ("{path: a.bin, checksum: 'md5:12'}", "files[0] (a.bin): checksum: checksum 'md5:12' is neither"),
        ("{path: a.bin, md5: 'x'}", "files[0] (a.bin): there is no key 'md5'. The keys are path, checksum"),
        ("{url: 'https://x.org/a.bin'}", "files[0] (without path): every file needs a path"),
    ],
)
def test_a_bad_entry_of_files_is_one_sentence(command, tmp_path, own_data, entry, message):
    yaml = tmp_path / "own" / "dataset" / "mine.yaml"
    lines = [line for line in yaml.read_text().splitlines() if not line.startswith("    - ")]
    yaml.write_text("\n".join([*lines, f"    - {entry}"]))
    status, _, err = command("data", "verify", "mine", "--config-dir", "own")
    assert status == 2 and message in err and "Traceback" not in err
    yaml.write_text(yaml.read_text() + "\ninput_shape: [1, 8, 8]\nn_classes: 10\n")
    status, out, _ = command("check", "dataset=mine", "--config-dir", "own")
    assert status == 2 and f"dataset.storage.{message}" in out


def test_the_archive_of_glove_can_be_downloaded(command, tmp_path):
    """Its entry has a checksum, and it comes before the text file, which has no download."""
    from dl_lab import configs
    from dl_lab.datasets.files import needed_files

    files = configs.Composer().storage("glove").entries()
    (needed,) = needed_files(files, tmp_path)
    assert needed.path == "glove.6B.zip" and needed.checksum.startswith("sha256:")
    (tmp_path / "glove.6B").mkdir()
    (tmp_path / "glove.6B" / "glove.6B.100d.txt").write_text("")
    (needed,) = needed_files(files, tmp_path)
    assert needed.path == "glove.6B/glove.6B.100d.txt"


def test_an_unknown_data_set_is_named(command):
    status, _, err = command("data", "verify", "octmnis")
    assert status == 2
    assert "There is no dataset 'octmnis'. Did you mean octmnist?" in err


def test_without_torch(cost):
    assert "torch" not in cost("data", "verify", "digits").modules
