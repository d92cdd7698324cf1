"""OCTMNIST files: full or part by the published md5, the coursework's 529, and every way a file can be broken."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from dl_lab import configs as config
from dl_lab.datasets.sets.octmnist import CLASS_NAMES, MATCHED_TEST_SIZES, octmnist
from dl_lab.datasets.storage import Storage
from dl_lab.types import UserError

FILE = {"path": "octmnist.npz", "checksum": "md5:" + "0" * 32}


def arrays(n_train: int = 40, n_test: int = 40, seed: int = 0) -> dict[str, np.ndarray]:
    """medmnist's layout, in little."""
    rng, content = np.random.default_rng(seed), {}
    for split, n in (("train", n_train), ("val", 12), ("test", n_test)):
        content[f"{split}_images"] = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        content[f"{split}_labels"] = rng.permutation(np.arange(n) % 4).astype(np.uint8).reshape(n, 1)
    return content


@pytest.fixture
def build(settings):
    def build(folder: Path, file: dict = FILE, **options):
        changes = {"source": "real", "storage": Storage(str(folder), "", [file]), "test_set": "all", **options}
        return octmnist(**{**settings("octmnist"), **changes})

    return build


@pytest.fixture
def folder(tmp_path) -> Path:
    np.savez_compressed(tmp_path / "octmnist.npz", **arrays())
    return tmp_path


def test_the_published_md5_decides_between_full_and_part(build, folder):
    md5 = hashlib.md5((folder / "octmnist.npz").read_bytes()).hexdigest()
    assert build(folder, {**FILE, "checksum": f"md5:{md5}"}).label == "full"
    part = build(folder)
    assert (part.label, part.note) == ("part", "octmnist.npz")
    assert build(folder, {"path": "octmnist.npz"}).label == "part", "no published checksum: never called full"


def test_content_is_the_files(build, folder):
    dataset, content = build(folder), arrays()
    batch = next(dataset.val.batches(12))
    assert np.array_equal(batch.x.numpy(), content["val_images"][:, None].astype("float32") / 256)
    assert batch.y.tolist() == content["val_labels"].ravel().tolist()


def test_the_matched_test_set_is_the_courseworks_529(build, tmp_path):
    """Per class the first 182, 55, 42 and 250 in file order, stacked by class (EXPERIMENTS.md 1.0)."""
    content = arrays(n_test=1000)
    np.savez(tmp_path / "octmnist.npz", **content)
    images, labels = content["test_images"], content["test_labels"].ravel()
    wanted = [i for c, size in enumerate((182, 55, 42, 250)) for i in [j for j in range(1000) if labels[j] == c][:size]]
    batch = next(build(tmp_path, test_set="matched").test.batches(1000))
    assert len(wanted) == len(batch.y) == 529
    assert batch.y.tolist() == labels[wanted].tolist()
    assert np.array_equal((batch.x[:, 0] * 256).numpy(), images[wanted])
    assert batch.y.bincount().tolist() == list(MATCHED_TEST_SIZES)
    assert max(batch.y.bincount().tolist()) / 529 == pytest.approx(0.4726, abs=1e-4)
    assert len(build(tmp_path).test) == 1000


def test_a_part_too_small_for_the_matched_test_set_says_so(build, folder):
    with pytest.raises(UserError, match=r"has \(10, 10, 10, 10\).*use dataset.test_set=all"):
        build(folder, test_set="matched")


@pytest.mark.data_file(
    "Arrays",
    kind="splits of different types in one `.npz`",
    loader="octmnist",
    outcome="brought to one scale, and noted",
)
def test_train_and_test_are_on_one_scale(build, tmp_path):
    content = arrays()
    right = build_from(build, tmp_path, content)
    content["test_images"] = content["test_images"].astype(np.uint16) * 257
    content["val_images"] = content["val_images"] / 255
    data = build_from(build, tmp_path, content)
    for split in ("train", "val", "test"):
        batches = [next(getattr(each, split).batches(100)) for each in (data, right)]
        np.testing.assert_allclose(batches[0].x, batches[1].x, atol=1e-5)
    assert data.note == ("octmnist.npz, val: float64 pixels scaled by 1, test: uint16 pixels scaled by 65,535")


def build_from(build, folder: Path, content: dict[str, np.ndarray]):
    np.savez(folder / "octmnist.npz", **content)
    return build(folder)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3000])


def flipped(path: Path) -> None:
    """Damaged compressed data in the middle of a member."""
    content = bytearray(path.read_bytes())
    for i in range(len(content) // 3, len(content) // 3 + 50):
        content[i] ^= 0xFF
    path.write_bytes(content)


def flipped_deflate(path: Path) -> None:
    """The same in data that deflate could shrink: its own codes become invalid."""
    np.savez_compressed(path, **{**arrays(), "train_images": np.arange(40 * 784).reshape(40, 28, 28) % 251})
    flipped(path)


def without_validation(path: Path) -> None:
    np.savez(path, **{key: value for key, value in arrays().items() if not key.startswith("val")})


def one_array(path: Path) -> None:
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))


def pickled(path: Path) -> None:
    np.savez(path, **{**arrays(), "val_images": np.array([{}, {}], dtype=object)})


def strange_compression(path: Path) -> None:
    """A method that Python does not know (its number patched into the first member's headers)."""
    np.savez(path, **arrays())
    content = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        at = content.find(signature) + offset
        content[at : at + 2] = (99).to_bytes(2, "little")
    path.write_bytes(content)


@pytest.mark.parametrize(
    "break_it",
    [
        truncated,
        flipped,
        flipped_deflate,
        without_validation,
        one_array,
        pickled,
        strange_compression,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("<html>404</html>"),
    ],
)
def test_a_broken_file_is_one_sentence_with_its_name(build, folder, break_it):
    break_it(folder / "octmnist.npz")
    with pytest.raises(UserError, match=r"octmnist\.npz is not a readable OCTMNIST file") as error:
        build(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train_labels", np.full((40, 1), 7), "train split: image 0 has label 7"),
        ("train_labels", np.zeros((40, 1), int), "no training image of class 1, 2, 3"),
        ("val_images", np.zeros((12, 64, 64), np.uint8), r"images of shape \(64, 64\) are not the declared"),
        ("val_images", np.full((12, 28, 28), np.nan), "image 0 has pixels that are not finite"),
    ],
)
def test_wrong_content_names_the_file_the_split_and_the_row(build, tmp_path, key, value, message):
    np.savez(tmp_path / "octmnist.npz", **{**arrays(), key: value})
    with pytest.raises((ValueError, UserError), match=message) as error:
        build(tmp_path)
    assert "octmnist.npz" in str(error.value)


def test_a_missing_file_without_a_download_says_what_to_do(build, tmp_path):
    with pytest.raises(UserError, match=r"does not exist.*DL_LAB_DATA"):
        build(tmp_path, {"path": "octmnist.npz"})


def test_a_path_outside_the_data_folder_is_refused(build, tmp_path):
    with pytest.raises(UserError, match="outside the data folder"):
        build(tmp_path, {"path": "../octmnist.npz"})


def test_generated_needs_no_file(build, tmp_path):
    dataset = build(tmp_path / "nowhere", source="generated", n_generated=16)
    assert dataset.label == "generated" and len(dataset.train) == 16


def test_the_yaml_says_what_medmnist_says():
    from medmnist import INFO

    official = INFO["octmnist"]
    described = config.Composer().compose(["dataset=octmnist"]).config["dataset"]
    file = described["storage"]["files"][0]
    assert file["checksum"] == "md5:" + official["MD5"]
    assert file["url"] == official["url"]
    assert described["n_classes"] == len(official["label"]) == len(CLASS_NAMES)
    assert described["input_shape"][0] == official["n_channels"]
    for mine, theirs in zip(CLASS_NAMES, official["label"].values(), strict=True):
        abbreviations = {"CNV": "choroidal neovascularization", "DME": "diabetic macular edema"}
        assert abbreviations.get(mine, mine) == theirs


def test_the_real_part(build, real_data):
    path = real_data / "medmnist_subset" / "octmnist.npz"
    if not path.exists():
        pytest.skip(f"needs {path}")
    with pytest.warns(UserWarning, match="3 val images are also in train"):
        dataset = build(real_data, {**FILE, "path": "medmnist_subset/octmnist.npz"})
    assert dataset.label == "part"
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test)] == [1387, 773, 94]
    assert dataset.train.columns.y.bincount().tolist() == [491, 148, 105, 643]
