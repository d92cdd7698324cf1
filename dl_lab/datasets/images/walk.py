"""The image files below a folder: every real file once; other files are counted and named in the note."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dl_lab.datasets.images.decoding import FORMATS
from dl_lab.types import UserError

Identity = tuple[int, int]  # device and inode of a file
SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".gif", ".webp", ".avif", ".avifs", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".jp2", ".j2k", ".mpo",
)  # fmt: skip
# Images that Pillow or this loader does not read. The data set's note counts them.
NOT_READ = (
    ".heic", ".heif", ".jxl", ".svg", ".psd", ".eps", ".exr", ".hdr", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf",
    ".rw2", ".raw", ".dcm", ".nii", ".fits", ".djvu", ".pdf", ".npy", ".tga", ".ico", ".dib",
)  # fmt: skip


@dataclass
class Found:
    """The image files below one folder, and the numbers of other files.

    Attributes:
        paths: The image files.
        not_read: Images of formats that are not read, by suffix.
        others: Files that are no images, by suffix.
        loops: Links that lead back to their own folder.
        again: Links to images that are counted already.
    """

    paths: list[Path] = field(default_factory=list)
    not_read: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    loops: int = 0
    again: int = 0

    def add(self, other: Found) -> None:
        """Add the files of another folder."""
        self.paths += other.paths
        self.not_read += other.not_read
        self.others += other.others
        self.loops += other.loops
        self.again += other.again

    def describe_omissions(self) -> list[str]:
        """Return words for the note about images that are not read."""
        if not self.not_read:
            return []
        return [f"{count_kinds(self.not_read)} left out (unreadable format)"]

    def remarks(self) -> list[str]:
        """Return words for the note about files that are no images, and about links."""
        remarks: list[str] = []
        if self.others:
            remarks.append(f"passed over files that are no images: {count_kinds(self.others)}")
        if self.loops:
            remarks.append(f"{self.loops} links that lead back to their own folder are not followed")
        if self.again:
            remarks.append(f"{self.again} links to images that are counted already")
        return remarks


def find_images(folder: Path) -> Found:
    """Find all image files below a folder, each real file once, sorted by path, without hidden files.

    A file counts as an image by its suffix. A file with an unknown suffix counts if its content is an image.

    Raises:
        UserError: A folder cannot be listed.
    """
    found = Found()
    seen: set[Identity] = set()
    for path in sorted(_walk(folder, (), found)):
        if path.suffix.lower() in NOT_READ:
            found.not_read[path.suffix.lower()] += 1
            continue
        if path.suffix.lower() not in SUFFIXES and not _is_image(path):
            found.others[path.suffix.lower() or "(no suffix)"] += 1
            continue
        identity = identity_of(path)
        if identity is not None and identity in seen:
            found.again += 1
            continue
        if identity is not None:
            seen.add(identity)
        found.paths.append(path)
    return found


def _walk(folder: Path, above: tuple[Identity, ...], found: Found) -> Iterator[Path]:
    """Yield every file below a folder. Links are followed, but not back to a folder that holds them.

    Args:
        folder: The folder.
        above: The identities of the folders that hold it.
        found: Counts the links that lead back.
    """
    try:
        about = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder} cannot be listed: {error.strerror}.") from error
    own = (about.st_dev, about.st_ino)
    if not above:
        identities = [identity_of(parent) for parent in folder.resolve().parents]
        above = tuple(identity for identity in identities if identity is not None)
    if own in above:
        found.loops += 1
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if is_folder(entry):
            yield from _walk(Path(entry.path), (*above, own), found)
        else:
            yield Path(entry.path)


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def identity_of(path: Path) -> Identity | None:
    """Return device and inode: equal for two names of one file; None for a link to a missing file."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino


def _is_image(path: Path) -> bool:
    """Return whether the content of a file is an image of a readable format."""
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS):
            return True
    except Exception:  # Pillow raises errors of many kinds for a file that is no image
        return False


def count_kinds(kinds: Counter[str]) -> str:
    """Return the counts in words: {".heic": 2} gives "2 .heic"."""
    return ", ".join(f"{n:,} {kind}" for kind, n in sorted(kinds.items()))
