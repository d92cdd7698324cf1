"""Image folders: files are read, cached and split; a refusal names the file."""

from __future__ import annotations

import os
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dl_lab.datasets.images import files as image_files
from dl_lab.datasets.images.decoding import Decoder, Decoding
from dl_lab.datasets.images.files import read_images
from dl_lab.datasets.images.layout import Splits
from dl_lab.datasets.images.walk import find_images
from dl_lab.datasets.sets.image_folder import image_folder
from dl_lab.datasets.storage import Storage
from dl_lab.types import ConfigError, UserError

SHARES = {"train": 0.5, "val": 0.25, "test": 0.25}
PLAIN = ("dataset/decoding=exact", "dataset/normalise=none")
EXACT = Decoding("none", None, False, None, None, "error")


def save(path: Path, seed: int, size=(12, 10), mode: str = "RGB", **options) -> Path:
    """A noise image of `size` (width, height)."""
    channels = {"L": 1, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels, mode=None).save(path, **options)
    return path


def save_cmyk(path: Path) -> Path:
    Image.new("CMYK", (12, 10), (1, 2, 3, 4)).save(path)
    return path


@pytest.fixture
def pets(tmp_path) -> Path:
    """Two classes of eight PNG images (no loss) at 12x10; a nested folder, a hidden file and a text are in the way."""
    for label, name in enumerate(("cat", "dog")):
        for i in range(8):
            save(tmp_path / "pets" / name / ("deep" if i == 7 else "") / f"{i}.png", 8 * label + i)
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "pets" / "cat" / ".hidden.png").write_bytes(b"")
    (tmp_path / "pets" / ".ipynb_checkpoints").mkdir()
    return tmp_path / "pets"


@pytest.fixture
def build(settings):
    """Build the data set of a folder; settings of a group may be given by their own names."""

    def build(root: Path, **options):
        arguments = settings("image_folder", "dataset.folder=pets", "dataset.n_classes=2", *PLAIN)
        arguments |= {"source": "real", "input_shape": [3, 10, 12]}
        arguments["storage"] = Storage(str(root.parent), str(root.parent / "cache"), ())
        arguments["splits"] = Splits(**{**SHARES, "seed": 42, **options.pop("splits", {})})
        for group in ("layout", "decoding", "normalise"):
            names = {field.name for field in fields(arguments[group])}
            own = {name: options.pop(name) for name in names & set(options)}
            arguments[group] = replace(arguments[group], **own)
        return image_folder(**{**arguments, **options})

    return build


def pixels(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.asarray(Image.open(path)).transpose(2, 0, 1).copy())


# -- reading ------------------------------------------------------------------------------------------------------


def test_every_image_is_in_one_split_with_its_pixels_and_class(build, pets):
    data = build(pets)
    found = {}
    for split in (data.train, data.val, data.test):
        assert torch.bincount(split.columns.y).tolist() == [len(split) // 2] * 2, "each class has its share"
        for x, y in zip(split.columns.x, split.columns.y, strict=True):
            found[x.numpy().tobytes()] = int(y)
    wanted = {pixels(p).numpy().tobytes(): int(p.is_relative_to(pets / "dog")) for p in find_images(pets).paths}
    assert found == wanted and len(found) == 16
    assert [len(split) for split in (data.train, data.val, data.test)] == [8, 4, 4]
    assert (data.label, data.class_names) == ("full", ("cat", "dog"))
    assert data.summary()["class_counts"]["train"] == {"cat": 4, "dog": 4}


def test_the_split_depends_on_its_seed_alone(build, pets):
    one, same, other = build(pets), build(pets), build(pets, splits={"seed": 1})
    assert torch.equal(one.test.columns.x, same.test.columns.x) and one.fingerprint == same.fingerprint
    assert not torch.equal(one.test.columns.x, other.test.columns.x)


def test_pixels_are_normalised_by_channel(build, pets):
    mean, std = [0.5, 0.4, 0.3], [0.5, 0.25, 0.2]
    plain, normalised = build(pets), build(pets, mean=mean, std=std)
    x, y = (next(iter(data.train.batches(8))).x for data in (plain, normalised))
    assert float(x.min()) >= 0 and float(x.max()) <= 1
    for channel in range(3):
        torch.testing.assert_close(y[:, channel], (x[:, channel] - mean[channel]) / std[channel])


def test_classes_are_those_asked_for_in_that_order(build, pets):
    assert build(pets, class_names=["dog"], n_classes=1).class_names == ("dog",)
    assert build(pets, class_names=["dog", "cat"]).class_names == ("dog", "cat")


def test_a_part_of_each_class_is_labelled_a_part(build, pets):
    data = build(pets, n_per_class=4, n_official=99)
    assert (data.label, data.note) == (
        "part",
        "at most 4 images of each class, 8 of 99 images, passed over files that are no images: 1 .txt",
    )
    assert build(pets, n_official=16).label == "full"


def test_splits_may_be_folders(build, pets, tmp_path):
    for split in ("training", "validation", "evaluation"):
        save(tmp_path / "foods" / split / "Bread" / "a.png", len(split))
        save(tmp_path / "foods" / split / "Soup" / "b.png", -len(split) % 97)
    folders = {"train": "training", "val": "validation", "test": "evaluation"}
    data = build(pets, folder="foods", splits=folders)
    assert torch.equal(data.val.columns.x[0], pixels(tmp_path / "foods" / "validation" / "Bread" / "a.png"))
    assert data.test.columns.y.tolist() == [0, 1]
    with pytest.raises(UserError, match="foods has no folder 'dev' for the val split"):
        build(pets, folder="foods", splits={**folders, "val": "dev"})
    with pytest.raises(UserError, match="would lie outside"):
        build(pets, folder="foods", splits={**folders, "val": "../pets"})
    (tmp_path / "foods" / "evaluation" / "Soup" / "b.png").unlink()
    with pytest.raises(UserError, match=r"evaluation/Soup has no image"):
        build(pets, folder="foods", splits=folders)


def test_generated_images_need_no_folder(build, tmp_path):
    data = build(tmp_path / "nowhere", source="generated", n_generated=12)
    assert (data.label, len(data.train)) == ("generated", 12)


# -- resizing -----------------------------------------------------------------------------------------------------


def test_crop_is_torchvisions_resize_and_centre_crop(tmp_path):
    from torchvision.transforms import v2

    for seed, size in enumerate([(37, 23), (23, 37), (384, 511), (30, 30)]):
        path = save(tmp_path / f"{seed}.png", seed, size)
        preset = v2.Compose([v2.Resize(20), v2.CenterCrop((16, 14)), v2.PILToTensor()])
        mine = Decoder((3, 16, 14), replace(EXACT, resize="crop", shorter_side=20))(path.read_bytes()).pixels
        assert torch.equal(torch.from_numpy(mine.copy()), preset(Image.open(path)))


def test_just_enough_and_stretch_give_the_declared_size(tmp_path):
    path = save(tmp_path / "a.png", 1, (37, 23))
    for resize in ("crop", "stretch"):
        assert Decoder((3, 9, 30), replace(EXACT, resize=resize))(path.read_bytes()).pixels.shape == (3, 9, 30)
    grey = save(tmp_path / "b.png", 1, (9, 9), "L")
    assert Decoder((1, 9, 9), EXACT)(grey.read_bytes()).pixels.shape == (1, 9, 9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input_shape": (2, 8, 8)}, r"\[2, 8, 8\] is not \[1 or 3, height, width\]"),
        ({"shorter_side": 9}, "shorter_side 9 needs decoding.resize=crop"),
        ({"resize": "crop", "shorter_side": 7}, "shorter_side 7 is less than the image's 8 pixels"),
        ({"background": "wite"}, "background 'wite' is no colour"),
        ({"max_value": 0}, "max_value 0 is not at least 1"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Decoder(settings.pop("input_shape", (3, 8, 8)), replace(EXACT, **settings))


# -- the cache ----------------------------------------------------------------------------------------------------


def forbid_decoding(monkeypatch):
    def refuse(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(image_files, "_decode", refuse)


def test_nothing_is_decoded_a_second_time(build, pets, monkeypatch):
    first = build(pets)
    forbid_decoding(monkeypatch)
    os.utime(pets / "cat" / "0.png", (1, 1))
    (pets / "cat").rename(pets / "Cat")
    assert build(pets).fingerprint == first.fingerprint, "a date and a name are no content"


def test_a_changed_file_is_decoded_again(build, pets):
    before = build(pets)
    save(pets / "cat" / "0.png", 99)
    assert build(pets).fingerprint != before.fingerprint
    with pytest.MonkeyPatch.context() as patch:
        forbid_decoding(patch)
        save(pets / "cat" / "0.png", 0)
        assert build(pets).fingerprint == before.fingerprint, "the old content is still there"


def test_another_way_of_decoding_has_its_own_cache(build, pets):
    build(pets)
    assert build(pets, input_shape=[3, 5, 5], resize="crop").train.columns.x.shape == (8, 3, 5, 5)
    assert build(pets).train.columns.x.shape == (8, 3, 10, 12)


def test_a_damaged_cache_is_made_again(build, pets, tmp_path):
    first = build(pets)
    (cached,) = (tmp_path / "cache").glob("images_*/pixels.npy")
    cached.write_bytes(cached.read_bytes()[:500])
    assert build(pets).fingerprint == first.fingerprint


def test_changes_in_memory_do_not_reach_the_cache(build, pets):
    first = build(pets).fingerprint
    build(pets).train.columns.x.zero_()
    assert build(pets).fingerprint == first


# -- refusals -----------------------------------------------------------------------------------------------------


def break_files(pets: Path) -> None:
    whole = save(pets / "cat" / "whole.jpg", 5, (12, 10)).read_bytes()
    (pets / "cat" / "cut.jpg").write_bytes(whole[:-60])
    (pets / "dog" / "empty.jpg").write_bytes(b"")
    (pets / "dog" / "text.jpg").write_text("no image at all")


def test_broken_files_are_all_named(build, pets, tmp_path):
    break_files(pets)
    with pytest.raises(UserError) as caught:
        build(pets)
    message = str(caught.value)
    assert message.startswith("3 of 20 images cannot be read: ")
    assert f"{pets}/cat/cut.jpg is corrupt (image file is truncated" in message
    assert f"{pets}/dog/empty.jpg is empty (0 bytes)" in message
    assert f"{pets}/dog/text.jpg is not a readable image file" in message
    assert message.endswith("leave them out with dataset.decoding.unreadable=skip.")
    assert not list((tmp_path / "cache").glob("images_*/*")), "nothing half-written"
    assert not list((tmp_path / "cache").glob(".*"))


def test_broken_files_are_left_out_when_asked_and_named_every_time(build, pets):
    break_files(pets)
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"Left out 3 images .*cut.jpg is corrupt.*empty.jpg.*text.jpg"):
            data = build(pets, unreadable="skip")
        assert data.label == "part" and data.note.startswith("3 unreadable images left out")
        assert sum(map(len, (data.train, data.val, data.test))) == 17
        assert not any((split.columns.x == 0).all() for split in (data.train, data.val, data.test))
    with pytest.raises(UserError, match="3 of 20 images cannot be read"):
        build(pets)


def test_a_folder_of_broken_files_is_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jpg").write_bytes(b"")
    paths = find_images(tmp_path).paths
    with pytest.raises(UserError, match=r"2 of 2 images cannot be read.*Mend or delete them.$"):
        read_images(paths, (3, 8, 8), replace(EXACT, unreadable="skip"), tmp_path / "cache")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: save(root / "cat" / "odd.png", 1, (12, 11)), r"cat/odd.png is 12x11 pixels, not 12x10"),
        (lambda root: save(root / "cat" / "grey.png", 1, mode="L"), r"cat/grey.png has 1 channel \(L\), not 3"),
        (lambda root: save(root / "dog" / "glass.png", 1, mode="RGBA"), r"dog/glass.png has transparent pixels"),
        (lambda root: save_cmyk(root / "dog" / "print.jpg"), r"dog/print.jpg has 4 channels \(CMYK\)"),
    ],
)
def test_an_image_of_another_shape_is_named_and_never_skipped(build, pets, make, message):
    make(pets)
    with pytest.raises(UserError, match=message):
        build(pets, unreadable="skip")
    if "channels" in message:
        assert len(build(pets, convert=True).train) == 9


def test_unfit_folders_are_refused(build, pets, tmp_path):
    with pytest.raises(UserError, match=r"has 2 classes \(cat, dog\), but dataset.n_classes is 3"):
        build(pets, n_classes=3)
    with pytest.raises(UserError, match="has no class 'cow'; it has cat, dog"):
        build(pets, class_names=["cow", "cat"])
    (pets / "eel").mkdir()
    with pytest.raises(UserError, match=r"pets/eel has no image. These are read: .jpg"):
        build(pets, n_classes=3)
    with pytest.raises(UserError, match=r"eel has no class folders: images belong in .*eel/<class>/"):
        build(pets, folder="pets/eel")
    with pytest.raises(UserError, match=r"The folder .*nowhere does not exist"):
        build(pets, folder="nowhere")
    save(pets / "eel" / "only.png", 1)
    with pytest.raises(UserError, match="eel has 1 image: too few for splits"):
        build(pets, n_classes=3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"splits": {"train": 0.5, "val": 0.2, "test": 0.1}}, "are not positive shares that add up to 1"),
        ({"splits": {"train": 0.5, "val": "v", "test": 0.1}}, "mixes shares and names"),
        ({"mean": [0.5], "std": [0.5]}, "are not one number for each of 3 channels"),
        ({"mean": [0.5] * 3, "std": [0.5, 0.0, 0.5]}, "is not above 0"),
        ({"n_per_class": 0}, "n_per_class 0 is not at least 1"),
    ],
)
def test_unfit_arguments_are_refused(build, pets, options, message):
    with pytest.raises(ValueError, match=message):
        build(pets, **options)


def test_a_corrupt_image_is_one_sentence_of_the_command(lab, pets):
    break_files(pets)
    done = lab("dataset=image_folder", f"dataset.folder={pets}", "dataset.n_classes=2", f"paths.cache_dir={pets}/../c")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and "cut.jpg is corrupt" in done.stderr


def test_a_class_count_that_is_not_given_is_asked_for(execute_in, tmp_path):
    with pytest.raises(ConfigError, match=r"^dataset.n_classes has no value yet: give it on the command line"):
        execute_in(tmp_path / "run", "dataset=image_folder", "dataset.folder=pets")
