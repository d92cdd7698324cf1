"""Random truncations and changed bytes of every binary format that image data sets read.

Each damaged file ends in its right values or in one sentence: never in another exception or in a label "full". Where a
format has no checksum, the right values are those that an independent reader finds in the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dl_lab.datasets.archives import extract
from dl_lab.datasets.images.decoding import Broken, Decoder, Decoding, Unfit
from dl_lab.datasets.sets.cifar10 import CLASS_NAMES, decode_copy
from dl_lab.datasets.sets.mnist import mnist
from dl_lab.datasets.sets.octmnist import octmnist
from dl_lab.datasets.storage import Storage
from dl_lab.types import UserError

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),  # Pillow also warns of what it then raises
    pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning"),
]
DECODER = Decoder((3, 9, 11), Decoding("none", None, True, "white", None, "error"))


def damage(content: bytes, n: int, seed: int) -> Iterator[bytes]:
    """n copies, one half cut short, the other with one to four changed bytes."""
    rng = np.random.default_rng(seed)
    for i in range(n):
        if i % 2:
            yield content[: rng.integers(0, len(content))]
            continue
        changed = bytearray(content)
        for place in rng.integers(0, len(content), rng.integers(1, 5)):
            changed[place] ^= int(rng.integers(1, 256))
        yield bytes(changed)


def require_one_sentence(error: Exception, name: str = "") -> None:
    """The message names the file and has no second line."""
    assert name in str(error)
    assert "\n" not in str(error)


def noise(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 11, 3), dtype=np.uint8))


def encode(kind: str, seed: int = 0) -> bytes:
    file = io.BytesIO()
    noise(seed).save(file, kind, **({"lossless": True} if kind == "WEBP" else {}))
    return file.getvalue()


# -- single images --


@pytest.mark.data_file(
    "Images",
    kind="PNG, cut short or changed at random",
    loader="image_folder",
    outcome="right values, or refused by name",
)
def test_a_damaged_png_is_right_or_refused():
    right = np.asarray(noise()).transpose(2, 0, 1)
    refused = 0
    for content in damage(encode("PNG"), 40, seed=1):
        try:
            np.testing.assert_array_equal(DECODER(content).pixels, right)
        except (Broken, Unfit) as error:
            refused += 1
            require_one_sentence(error)
    assert refused > 30


@pytest.mark.data_file(
    "Images", kind="JPEG, GIF, TIFF, WebP, BMP, PPM, cut short or changed at random", loader="image_folder",
    outcome="as Pillow reads these bytes, or refused by name",
)  # fmt: skip
@pytest.mark.parametrize("kind", ["JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM"])
def test_a_damaged_image_is_what_pillow_reads_or_refused(kind):
    refused = 0
    for content in damage(encode(kind), 16, seed=2):
        try:
            pixels = DECODER(content).pixels
        except (Broken, Unfit) as error:
            refused += 1
            require_one_sentence(error)
            continue
        with Image.open(io.BytesIO(content)) as image:
            np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")).transpose(2, 0, 1))
    assert refused >= 3


# -- arrays --


def npz_arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = rng.integers(0, 256, (4, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(4).reshape(4, 1)
    return arrays


@pytest.mark.data_file(
    "Arrays", kind="`.npz`, cut short or changed at random", loader="octmnist",
    outcome='right values and the label "part", or refused by name',
)  # fmt: skip
def test_a_damaged_npz_is_right_or_refused(tmp_path, settings):
    file = io.BytesIO()
    np.savez_compressed(file, **npz_arrays())
    official = "md5:" + hashlib.md5(file.getvalue()).hexdigest()
    path = tmp_path / "octmnist.npz"
    files = [{"path": path.name, "checksum": official}]
    arguments = {
        **settings("octmnist"),
        "source": "real",
        "test_set": "all",
        "storage": Storage(str(tmp_path), "", files),
    }
    path.write_bytes(file.getvalue())
    whole = octmnist(**arguments)
    assert whole.label == "full"
    for content in damage(file.getvalue(), 30, seed=3):
        path.write_bytes(content)
        try:
            data = octmnist(**arguments)
        except (UserError, ValueError) as error:
            require_one_sentence(error, "octmnist.npz")
            continue
        assert data.label == "part" and data.fingerprint == whole.fingerprint


@pytest.mark.data_file(
    "Arrays", kind="IDX, cut short or changed at random", loader="mnist", outcome='refused by name, or labelled "part"'
)
def test_a_damaged_idx_file_is_never_full(tmp_path, settings):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    contents: dict[str, bytes] = {}
    files = []
    for seed, part in enumerate(("train", "test")):
        images = np.random.default_rng(seed).integers(0, 256, (20, 28, 28), dtype=np.uint8)
        contents[f"{part}-images"] = bytes([0, 0, 8, 3]) + np.array([20, 28, 28], ">u4").tobytes() + images.tobytes()
        contents[f"{part}-labels"] = bytes([0, 0, 8, 1, 0, 0, 0, 20]) + bytes(i % 10 for i in range(20))
    for name, content in contents.items():
        (raw / name).write_bytes(content)
        files.append({"path": f"MNIST/raw/{name}", "checksum": "md5:" + hashlib.md5(content).hexdigest()})
    arguments = {**settings("mnist", "dataset.held_out.n_val=5"), "source": "real"}
    arguments["storage"] = Storage(str(tmp_path), "", files)
    assert mnist(**arguments).label == "full"
    for name, content in contents.items():
        for changed in damage(content, 8, seed=4):
            (raw / name).write_bytes(changed)
            try:
                assert mnist(**arguments).label == "part"
            except (UserError, ValueError) as error:
                require_one_sentence(error, "MNIST")
        (raw / name).write_bytes(content)


# -- archives --


def tar_of_images(path: Path, mode: str) -> None:
    with tarfile.open(path, mode) as archive:
        for split in ("train", "test"):
            for i, name in enumerate(CLASS_NAMES[:3]):
                file = io.BytesIO()
                Image.new("RGB", (32, 32), (i * 40, 9, 9)).save(file, "JPEG")
                member = tarfile.TarInfo(f"copy/{split}/{name}/{i}.jpg")
                member.size = len(file.getvalue())
                archive.addfile(member, io.BytesIO(file.getvalue()))


@pytest.mark.data_file(
    "Archives and downloads", kind="`.tar.xz` of JPEG files, cut short or changed at random", loader="cifar10",
    outcome="right values, or refused by name",
)  # fmt: skip
def test_a_damaged_archive_of_images_is_right_or_refused(tmp_path):
    path = tmp_path / "copy.tar.xz"
    tar_of_images(path, "w:xz")
    whole = decode_copy(path, None, tmp_path / "cache")
    for i, content in enumerate(damage(path.read_bytes(), 20, seed=5)):
        path.write_bytes(content)
        try:
            data = decode_copy(path, None, tmp_path / f"cache{i}")
        except UserError as error:
            require_one_sentence(error, "copy.tar.xz")
            continue
        for split, right in zip(data, whole, strict=True):
            np.testing.assert_array_equal(split[0], right[0])


@pytest.mark.data_file(
    "Archives and downloads", kind="`.tar`, `.tar.gz` and `.zip`, cut short or changed at random",
    loader="data fetch, data sets that unpack", outcome="unpacked whole, or refused by name and nothing is left",
)  # fmt: skip
@pytest.mark.parametrize("suffix", ["tar.gz", "zip", "tar"])
def test_a_damaged_archive_is_unpacked_whole_or_not_at_all(tmp_path, suffix):
    contents = {f"data/{i}.bin": np.random.default_rng(i).bytes(300) for i in range(4)}
    path = tmp_path / f"data.{suffix}"
    if suffix == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz" if suffix == "tar.gz" else "w") as archive:
            for name, content in contents.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    for i, changed in enumerate(damage(path.read_bytes(), 16, seed=6)):
        path.write_bytes(changed)
        folder = tmp_path / f"unpacked{i}"
        try:
            extract(path, folder)
        except UserError as error:
            require_one_sentence(error, path.name)
            assert not folder.exists()
            continue
        found = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
        if suffix == "tar":  # no checksum of the content: a file is whole, its bytes are as they were read
            assert all(file.stat().st_size <= 300 for file in found.values())
        else:
            assert {name: file.read_bytes() for name, file in found.items()} == contents
