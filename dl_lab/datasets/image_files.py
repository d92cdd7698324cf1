"""Image files as one uint8 tensor: decoded once by all cores, kept under the content of the files.

The cache is an .npy file that is mapped, not read, and a .json beside it with what could not be decoded. Its name is
a hash of the bytes of every file, in order, and of how they are decoded: renaming or touching a file changes nothing,
changing one decodes all of them again.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from filelock import FileLock

from dl_lab.datasets.progress import shown
from dl_lab.run import to_json, write_atomic
from dl_lab.types import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # torchvision's ImageFolder
NAMED = 10  # broken files that an error lists
MODES = {1: "L", 3: "RGB"}  # channels -> Pillow's name

Resize = Literal["none", "stretch", "crop"]
Unreadable = Literal["error", "skip"]


class _Unfit(Exception):
    """A whole image, but not of the declared shape; the message says how, and which setting would take it."""


@dataclass(frozen=True)
class Decoding:
    """How a file becomes a tensor of `input_shape` (channels, height, width), channels 1 or 3.

    resize: "none" takes only images of that size; "stretch" changes both sides, "crop" keeps the aspect: the shorter
    side to `shorter_side` (default: just enough), then the middle. Bilinear with antialiasing, as torchvision's
    Resize of a PIL image. convert: whether grey, palette or transparent images become the wanted channels.
    Raises ValueError for a shape or side that makes no sense.
    """

    input_shape: tuple[int, int, int]
    resize: Resize = "none"
    shorter_side: int | None = None
    convert: bool = False

    def __post_init__(self) -> None:
        if len(self.input_shape) != 3 or self.input_shape[0] not in MODES or min(self.input_shape) < 1:
            raise ValueError(f"input_shape {list(self.input_shape)} is not [1 or 3, height, width]")
        if self.shorter_side is not None and (self.resize != "crop" or self.shorter_side < max(self.input_shape[1:])):
            raise ValueError(
                f"shorter_side {self.shorter_side} needs resize=crop and at least {max(self.input_shape[1:])} pixels"
            )

    def __call__(self, content: bytes) -> np.ndarray:
        """uint8 (channels, height, width). Raises _Unfit, or what Pillow raises for a file that is no image."""
        from PIL import Image

        with Image.open(io.BytesIO(content)) as image:
            image.load()
            fitted = self._sized(self._in_mode(image))
        array = np.asarray(fitted)
        return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)

    def _in_mode(self, image: Any) -> Any:
        if image.mode in ("P", "1"):  # a palette is a way to store colours, a bit one to store grey
            image = image.convert("L" if image.mode == "1" else "RGBA" if "transparency" in image.info else "RGB")
        wanted = MODES[self.input_shape[0]]
        if image.mode == wanted:
            return image
        if not self.convert:
            raise _Unfit(
                f"has {len(image.getbands())} channels ({image.mode}), not {self.input_shape[0]} ({wanted}): "
                "dataset.convert=true would convert it"
            )
        return image.convert(wanted)

    def _sized(self, image: Any) -> Any:
        from PIL.Image import Resampling

        (width, height), (_, to_height, to_width) = image.size, self.input_shape
        if self.resize == "none":
            if (width, height) != (to_width, to_height):
                raise _Unfit(
                    f"is {width}x{height} pixels, not {to_width}x{to_height}: dataset.resize=crop or stretch would "
                    "take it"
                )
            return image
        if self.resize == "stretch":
            return image.resize((to_width, to_height), Resampling.BILINEAR)
        if self.shorter_side is None:
            scale = max(to_width / width, to_height / height)
            size = (max(to_width, round(width * scale)), max(to_height, round(height * scale)))
        else:  # as torchvision rounds
            side, short = self.shorter_side, min(width, height)
            size = (side * width // short, side * height // short)
        left, top = round((size[0] - to_width) / 2), round((size[1] - to_height) / 2)
        return image.resize(size, Resampling.BILINEAR).crop((left, top, left + to_width, top + to_height))


def find_images(folder: Path) -> list[Path]:
    """All image files below a folder by their suffix, sorted; hidden ones left out. Raises UserError: none."""
    found = []
    for place, folders, names in os.walk(folder, followlinks=True, onerror=_cannot_list):
        folders[:] = [name for name in folders if not name.startswith(".")]  # os.walk enters what is left
        found += [Path(place, name) for name in names if name.lower().endswith(SUFFIXES) and name[0] != "."]
    if not found:
        raise UserError(f"{folder} has no image ({', '.join(SUFFIXES)}).")
    return sorted(found)


def _cannot_list(error: OSError) -> None:
    raise UserError(f"{error.filename} cannot be listed: {error.strerror}.") from error


def read_images(
    paths: Sequence[Path], root: Path, decoding: Decoding, cache_dir: Path, unreadable: Unreadable = "error"
) -> tuple[np.ndarray, dict[str, str]]:
    """uint8 (n, channels, height, width), mapped from the cache, and what is wrong with a file by its path under root.

    Raises UserError naming the files for images of another shape and, unless unreadable is "skip", for files that
    cannot be decoded; skipped ones are black.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as pool:  # reading, hashing, decoding and resizing all release the GIL
        key = _key(paths, decoding, pool)
        cached = cache_dir.expanduser() / f"images_{key}.npy"
        _folder(cached.parent)
        with FileLock(cached.with_suffix(".lock")):  # the jobs of a sweep start together
            held = _held(cached, (len(paths), *decoding.input_shape))
            if held is None:
                _decode_all(paths, root, decoding, cached, pool, unreadable)
                held = _held(cached, (len(paths), *decoding.input_shape))
    if held is None:
        raise UserError(f"The cache {cached} cannot be read back.")
    images, broken = held
    _refuse(broken, len(paths), root, unreadable)
    return images, broken


def _key(paths: Sequence[Path], decoding: Decoding, pool: ThreadPoolExecutor) -> str:
    import PIL

    digest = hashlib.sha256(json.dumps([PIL.__version__, asdict(decoding)]).encode())
    for own in shown(pool.map(_digest, paths), len(paths), f"reading {len(paths):,} images"):
        digest.update(own)
    return digest.hexdigest()[:24]


def _digest(path: Path) -> bytes:
    return hashlib.sha256(_bytes(path)).digest()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error


def _folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot create the cache folder {folder}: {error.strerror}.") from error


def _held(cached: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, dict[str, str]] | None:
    """What the cache has; None where it is missing or damaged."""
    try:
        images = np.load(cached, mmap_mode="c")  # pages are read when used; nothing is written back
        broken = json.loads(cached.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError, EOFError):
        return None
    return (images, broken) if images.shape == shape and images.dtype == np.uint8 else None


def _decode_all(
    paths: Sequence[Path],
    root: Path,
    decoding: Decoding,
    cached: Path,
    pool: ThreadPoolExecutor,
    unreadable: Unreadable,
) -> None:
    """Write the cache; a file that is no image is black, and named in the .json."""
    temporary = cached.with_name(f".{cached.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    unfit: dict[str, str] = {}
    broken: dict[str, str] = {}
    try:
        shape = (len(paths), *decoding.input_shape)
        images = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)

        def decode(i: int) -> None:
            name = str(paths[i].relative_to(root))
            try:
                images[i] = _decoded(paths[i], decoding)
            except _Unfit as problem:
                unfit[name] = str(problem)
            except _Broken as problem:
                broken[name] = str(problem)

        for _ in shown(pool.map(decode, range(len(paths))), len(paths), f"decoding {len(paths):,} images"):
            pass
        if unfit:
            raise UserError(f"{_named(unfit, root)}.")
        _refuse(broken, len(paths), root, unreadable)
        images.flush()
        write_atomic(cached.with_suffix(".json"), to_json(dict(sorted(broken.items()))))
        os.replace(temporary, cached)
    except OSError as error:
        raise UserError(f"Cannot write the cache {cached}: {error.strerror}.") from error
    finally:
        temporary.unlink(missing_ok=True)


class _Broken(Exception):
    """The file cannot be decoded; the message says why."""


def _decoded(path: Path, decoding: Decoding) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    content = _bytes(path)
    if not content:
        raise _Broken("is empty (0 bytes)")
    try:
        return decoding(content)
    except UnidentifiedImageError:
        raise _Broken("is no image file") from None
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise _Broken(f"is corrupt ({error})") from error


def _refuse(broken: dict[str, str], n: int, root: Path, unreadable: Unreadable) -> None:
    if broken and (unreadable == "error" or len(broken) == n):
        advice = "Mend or delete them" if len(broken) == n else "Mend or delete them, or leave them out with"
        advice += "." if len(broken) == n else " dataset.unreadable=skip."
        raise UserError(f"{len(broken)} of {n:,} images cannot be read: {_named(broken, root)}. {advice}")


def _named(problems: dict[str, str], root: Path) -> str:
    names = sorted(problems)
    more = f"; and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return "; ".join(f"{root / name} {problems[name]}" for name in names[:NAMED]) + more
