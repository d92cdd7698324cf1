"""The files of a folder that belong to a data set: every real file once, no silent omission, tables of paths."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dl_lab.datasets.images.layout import Splits
from dl_lab.datasets.images.walk import find_images
from dl_lab.datasets.sets.image_folder import image_folder
from dl_lab.datasets.storage import Storage
from dl_lab.types import UserError

SHARES = {"train": 0.5, "val": 0.25, "test": 0.25}
FOLDERS = {"train": "train", "val": "val", "test": "test"}


def save(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "PNG" if path.suffix not in (".avif", ".gif", ".webp") else None)
    return path


@pytest.fixture
def pets(tmp_path) -> Path:
    """Two classes of eight images."""
    for label, name in enumerate(("cat", "dog")):
        for i in range(8):
            save(tmp_path / "pets" / name / f"{i}.png", 8 * label + i)
    return tmp_path / "pets"


@pytest.fixture
def in_splits(tmp_path) -> Path:
    """Two classes in three split folders."""
    for number, split in enumerate(FOLDERS):
        for label, name in enumerate(("cat", "dog")):
            for i in range(4):
                save(tmp_path / "pets" / split / name / f"{i}.png", 100 * number + 10 * label + i)
    return tmp_path / "pets"


@pytest.fixture
def build(settings):
    """Build the data set of a folder; settings of a group may be given by their own names."""

    def build(root: Path, **options):
        arguments = settings("image_folder", "dataset.folder=pets", "dataset.n_classes=2", "dataset/normalise=none")
        arguments |= {"source": "real", "input_shape": [3, 8, 8]}
        arguments["storage"] = Storage(str(root.parent), str(root.parent / "cache"), ())
        arguments["splits"] = Splits(**{**SHARES, "seed": 42, **options.pop("splits", {})})
        for group in ("layout", "decoding"):
            names = {field.name for field in fields(arguments[group])}
            own = {name: options.pop(name) for name in names & set(options)}
            arguments[group] = replace(arguments[group], **own)
        return image_folder(**{**arguments, **options})

    return build


def sizes(data) -> list[int]:
    return [len(split) for split in (data.train, data.val, data.test)]


# -- links --


@pytest.mark.data_file(
    "Links and folders",
    kind="link that leads back to its own folder",
    loader="image_folder",
    outcome="not followed, and noted",
)
def test_a_link_that_leads_back_is_not_followed(pets, build):
    before = build(pets)
    (pets / "dog" / "again").symlink_to(pets / "dog")
    (pets / "dog" / "all").symlink_to(pets)
    data = build(pets)
    assert sizes(data) == sizes(before) and data.fingerprint == before.fingerprint
    assert data.label == "full" and "2 links that lead back to their own folder are not followed" in data.note


@pytest.mark.data_file(
    "Links and folders",
    kind="two names of one file in a class",
    loader="image_folder",
    outcome="counted once, and noted",
)
def test_each_real_file_counts_once(pets, build):
    (pets / "dog" / "copy.png").symlink_to(pets / "dog" / "0.png")
    (pets / "dog" / "hard.png").hardlink_to(pets / "dog" / "1.png")
    data = build(pets)
    assert sum(sizes(data)) == 16 and "2 links to images that are counted already" in data.note


@pytest.mark.data_file(
    "Links and folders", kind="one file in two classes", loader="image_folder", outcome="refused by name"
)
def test_a_file_of_two_classes_is_refused(pets, build):
    (pets / "dog" / "cat.png").symlink_to(pets / "cat" / "0.png")
    with pytest.raises(UserError, match=r"dog/cat.png is the same file as .*cat/0.png: an image belongs to one class"):
        build(pets)


@pytest.mark.data_file(
    "Links and folders", kind="class, split or data folder that is a link", loader="image_folder", outcome="read"
)
def test_folders_may_be_links(in_splits, build, tmp_path):
    before = build(in_splits, splits=FOLDERS)
    (in_splits / "val").rename(tmp_path / "elsewhere")
    (in_splits / "val").symlink_to(tmp_path / "elsewhere")
    (in_splits / "train" / "cat").rename(tmp_path / "cats")
    (in_splits / "train" / "cat").symlink_to(tmp_path / "cats")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "pets").symlink_to(in_splits)
    assert build(tmp_path / "data" / "pets", splits=FOLDERS).fingerprint == before.fingerprint


@pytest.mark.data_file(
    "Links and folders", kind="link to a file that does not exist", loader="image_folder",
    outcome="refused by name; left out with `decoding.unreadable=skip`",
)  # fmt: skip
def test_a_link_to_nothing_is_named_or_skipped(pets, build):
    (pets / "dog" / "gone.png").symlink_to(pets / "nowhere.png")
    with pytest.raises(UserError, match=r"dog/gone.png is a link to a file that does not exist"):
        build(pets)
    with pytest.warns(UserWarning, match="Left out 1 image "):
        assert sum(sizes(build(pets, unreadable="skip"))) == 16


def test_a_link_to_itself_is_no_folder(pets, build):
    (pets / "dog" / "self").symlink_to(pets / "dog" / "self")
    assert sum(sizes(build(pets))) == 16


# -- kinds of files --


@pytest.mark.data_file(
    "Images", kind="`.jfif` `.gif` `.avif` `.webp` `.tif` `.jp2` and other suffixes that Pillow reads",
    loader="image_folder", outcome="read",
)  # fmt: skip
def test_all_suffixes_of_readable_images_are_read(pets, build):
    for i, suffix in enumerate((".jfif", ".JPG", ".gif", ".avif", ".webp", ".tif")):
        save(pets / "dog" / f"other{suffix}", 50 + i)
    assert sum(sizes(build(pets, convert=True))) == 22


@pytest.mark.data_file(
    "Images", kind="image without a suffix, or with an unknown one", loader="image_folder", outcome="read"
)
def test_an_image_is_known_by_its_content_too(pets, build):
    save(pets / "dog" / "IMG_0001", 50)
    save(pets / "dog" / "photo.jpg_large", 51)
    data = build(pets)
    assert sum(sizes(data)) == 18 and data.note == ""


@pytest.mark.data_file(
    "Images", kind="`.heic` `.svg` `.dng` and others that are not read", loader="image_folder",
    outcome='counted in the note; the data are a "part"',
)  # fmt: skip
def test_images_that_are_not_read_are_counted(pets, build):
    for name in ("a.heic", "b.HEIC", "c.svg"):
        (pets / "dog" / name).write_bytes(b"x")
    data = build(pets)
    assert data.label == "part" and "2 .heic, 1 .svg left out (unreadable format)" in data.note
    for path in (pets / "cat").iterdir():
        path.rename(path.with_suffix(".heic"))
    with pytest.raises(UserError, match=r"cat has no image \(8 .heic cannot be read\)"):
        build(pets)


@pytest.mark.data_file("Images", kind="files that are no images", loader="image_folder", outcome="counted in the note")
def test_other_files_are_named_in_the_note(pets, build):
    (pets / "dog" / "notes.txt").write_text("no image")
    (pets / "dog" / "Thumbs.db").write_bytes(b"x")
    data = build(pets)
    assert data.label == "full" and data.note == "passed over files that are no images: 1 .db, 1 .txt"


@pytest.mark.data_file(
    "Links and folders", kind="images beside the class folders", loader="image_folder",
    outcome='counted in the note; the data are a "part"',
)  # fmt: skip
def test_stray_images_are_counted(pets, build):
    save(pets / "stray.png", 77)
    data = build(pets)
    assert data.label == "part" and "1 image outside of class folders left out (stray.png, ...)" in data.note


# -- classes and splits --


@pytest.mark.data_file(
    "Links and folders", kind="class that is only in `test/`", loader="image_folder", outcome="refused by name"
)
def test_a_class_that_is_only_in_test_is_refused(in_splits, build):
    save(in_splits / "test" / "eel" / "0.png", 90)
    with pytest.raises(UserError, match="has 3 classes"):
        build(in_splits, splits=FOLDERS)
    with pytest.raises(UserError, match="the training split has no image of class 'eel'"):
        build(in_splits, splits=FOLDERS, n_classes=3)
    data = build(in_splits, splits=FOLDERS, class_names=["cat", "dog"])
    assert data.label == "part" and "classes left out: eel" in data.note


def test_a_class_that_val_lacks_is_noted(in_splits, build):
    for path in (in_splits / "val" / "dog").iterdir():
        path.unlink()
    (in_splits / "val" / "dog").rmdir()
    assert "no val image of class dog" in build(in_splits, splits=FOLDERS).note


@pytest.mark.data_file(
    "Images", kind="training image again in val or test", loader="image_folder", outcome="counted, warned of, and noted"
)
def test_training_images_in_test_are_counted(in_splits, build):
    for i, split in enumerate(("val", "test", "test")):
        content = (in_splits / "train" / "cat" / f"{i}.png").read_bytes()
        (in_splits / split / "cat" / f"again{i}.png").write_bytes(content)
    with pytest.warns(UserWarning, match="1 val image is also in train, 2 test images are also in train"):
        data = build(in_splits, splits=FOLDERS)
    assert "1 val image is also in train, 2 test images are also in train" in data.note


def test_val_may_be_a_share_of_the_training_images(in_splits, build):
    whole = build(in_splits, splits=FOLDERS)
    data = build(in_splits, splits={"train": "train", "val": 0.25, "test": "test"})
    assert sizes(data) == [6, 2, 8]
    assert data.val.columns.y.tolist() == [0, 1], "one of each class"
    assert data.test.columns.x.equal(whole.test.columns.x)


# -- tables --


def write_table(pets: Path, with_split: bool, more: str = "") -> None:
    lines = ["path,label,split" if with_split else "path,label"]
    for name in ("cat", "dog"):
        for i in range(8):
            split = "train" if i < 4 else "val" if i < 6 else "test"
            lines.append(f"{name}/{i}.png,{name}" + (f",{split}" if with_split else ""))
    (pets / "images.csv").write_text("\n".join([*lines, more]), encoding="utf-8-sig")


@pytest.mark.data_file(
    "Images", kind="CSV of paths and labels", loader="image_folder", outcome="read with `layout.table=images.csv`"
)
def test_a_table_of_paths_and_labels(pets, build):
    write_table(pets, with_split=False)
    by_table = build(pets, table="images.csv")
    assert by_table.fingerprint == build(pets).fingerprint and by_table.class_names == ("cat", "dog")
    mixed = build(pets, table="images.csv", stratified=False)
    assert sizes(mixed) == [8, 4, 4]


def test_a_table_may_give_the_splits(pets, build):
    write_table(pets, with_split=True)
    data = build(pets, table="images.csv", splits=FOLDERS)
    assert sizes(data) == [8, 4, 4]
    first = np.asarray(Image.open(pets / "cat" / "4.png")).transpose(2, 0, 1)
    np.testing.assert_array_equal(data.val.columns.x[0].numpy(), first)


@pytest.mark.data_file(
    "Images", kind="CSV with a missing column, cell or file, or a file twice", loader="image_folder",
    outcome="refused with file and line",
)  # fmt: skip
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("cat/9.png,cat,train", r"images.csv, line 18: the file .*cat/9.png does not exist"),
        ("cat/0.png,cat,train", r"line 18: cat/0.png is already in line 2"),
        ("cat/0.png,cat", "line 18: the row does not have one cell for each of the 3 columns"),
        ("cat/0.png,cat,train,x", "line 18: the row does not have one cell for each of the 3 columns"),
        ("cat/0.png,,train", "line 18: the row does not have one cell"),
        ("cat/0.png,NA,train", "line 18: 'NA' in the column label stands for no value"),
        ("cat/0.png,cat,dev", r"line 18: the split 'dev' is not one of train, val, test \(dataset.splits\)"),
        ('"cat/0.png', "The table .*images.csv cannot be read"),
    ],
)
def test_a_bad_row_is_named(pets, build, more, message):
    write_table(pets, with_split=True, more=more)
    with pytest.raises(UserError, match=message):
        build(pets, table="images.csv", splits=FOLDERS)


def test_a_table_without_its_columns(pets, build):
    (pets / "images.csv").write_text("file,class\n")
    with pytest.raises(UserError, match="line 1: there is no column 'path'; the header has file, class"):
        build(pets, table="images.csv")
    with pytest.raises(UserError, match=r"The table .*none.csv cannot be read"):
        build(pets, table="none.csv")


# -- the cache --


@pytest.mark.data_file(
    "Images", kind="folder renamed after an unreadable image was skipped", loader="image_folder",
    outcome="the same images; no black one",
)  # fmt: skip
def test_a_skipped_image_stays_skipped_after_a_rename(pets, build):
    (pets / "dog" / "3.png").write_bytes(b"broken")
    for name in ("dog", "dogs", "aardvark"):
        if name != "dog":
            next(path for path in pets.iterdir() if path.name != "cat").rename(pets / name)
        with pytest.warns(UserWarning, match=f"{name}/3.png is not a readable image file"):
            data = build(pets, unreadable="skip")
        assert sum(sizes(data)) == 15
        assert all((split.columns.x > 0).any(dim=(1, 2, 3)).all() for split in (data.train, data.val, data.test))


def test_16_bit_images_beside_8_bit_ones_are_on_one_scale(pets, build):
    """A class in 16 bits and one in 8 keep the same brightness."""
    for path in (pets / "dog").iterdir():
        grey = np.asarray(Image.open(path).convert("L")).astype(np.uint16) * 257
        Image.fromarray(grey).save(path)
    data = build(pets, input_shape=[1, 8, 8], convert=True)
    assert data.label == "full" and "8 images 16-bit, scaled by 65,535" in data.note
    means = [float(data.train.columns.x[data.train.columns.y == label].mean()) for label in (0, 1)]
    assert abs(means[0] - means[1]) < 15


def test_deep_images_that_are_black_throughout_are_refused(pets, build):
    for path in (pets / "dog").iterdir():
        Image.fromarray(np.asarray(Image.open(path).convert("L")).astype(np.uint16)).save(path)
    with pytest.raises(UserError, match=r"8 images of 16-bit values: the brightest, .*max_value .*: 255"):
        build(pets, input_shape=[1, 8, 8], convert=True)
    data = build(pets, input_shape=[1, 8, 8], convert=True, max_value=255)
    assert float(data.train.columns.x.max()) > 200
    assert float(build(pets, input_shape=[1, 8, 8], convert=True, max_value=65_535).train.columns.x.max()) < 256


def test_found_files_are_sorted(pets):
    paths = find_images(pets).paths
    assert paths == sorted(paths) and len(paths) == 16
