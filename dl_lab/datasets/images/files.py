"""Image files as one array: decoded once by all cores, then read from the cache.

The key of the cache is a hash of the bytes of every file, in order, and of the settings of the decoder. To rename or
touch a file changes nothing; to change a file decodes all files again. The cache remembers broken files by their place
in that order, so that keys and content always agree.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dl_lab.datasets.cache import Writer, key_of, load_or_fill
from dl_lab.datasets.images.decoding import Broken, Decoded, Decoder, Decoding, Unfit
from dl_lab.datasets.progress import show_progress
from dl_lab.runs.machine import cores
from dl_lab.types import UserError, count

VERSION = 1  # version of the decoder: raise it when a change of the code changes the pixels of a file
NAMED = 10  # the most broken files that an error lists
DARKEST = 0.25  # share of white: if no deep image is brighter, their white is probably another number (12-bit camera)


@dataclass(frozen=True)
class Images:
    """Decoded images.

    Attributes:
        pixels: (n, channels, height, width) from 0 to 255: uint8, or float32 if a file has more than 8 bits in a
            channel.
        digests: (n,) a hash of the pixels of each image, as 16 bytes.
        broken: The place of a file that cannot be decoded -> the reason. Its pixels are 0.
        changes: A change that the decoder made, in words -> the number of files.
    """

    pixels: np.ndarray
    digests: np.ndarray
    broken: dict[int, str]
    changes: dict[str, int]

    def remarks(self) -> list[str]:
        """Return words for the data set's note."""
        return [f"{count(n, 'image')} {words}" for words, n in self.changes.items()]


def read_images(
    paths: Sequence[Path], input_shape: tuple[int, int, int], decoding: Decoding, cache_dir: Path
) -> Images:
    """Decode files, or read them from the cache.

    Args:
        paths: The files.
        input_shape: Channels, height and width of every image.
        decoding: How files become pixels.
        cache_dir: The folder of the cache.

    Raises:
        UserError: Images do not fit the shape and the settings, or cannot be decoded although decoding.unreadable is
            not "skip". The message names the files.
    """
    import PIL

    decoder = Decoder(input_shape, decoding)
    with ThreadPoolExecutor(cores()) as pool:  # reading, hashing, decoding and resizing all release the GIL
        digests = list(show_progress(pool.map(_digest, paths), len(paths), f"reading {count(len(paths), 'image')}"))
        key = key_of(VERSION, PIL.__version__, decoding.to_plain(input_shape), b"".join(digests))
        entry = load_or_fill(cache_dir, "images", key, lambda writer: _decode_all(writer, paths, decoder, pool))
    broken = {int(place): reason for place, reason in entry.facts["broken"].items()}
    _refuse_broken(broken, paths, decoding)
    pixels = entry.arrays["exact"] if "exact" in entry.arrays else entry.arrays["pixels"]
    return Images(pixels, entry.arrays["digests"].view("V16").ravel(), broken, entry.facts["changes"])


def _digest(path: Path) -> bytes:
    """Return a hash of a file. A link to a missing file has the hash of nothing; the decoder reports the link."""
    return hashlib.sha256(_read(path) or b"").digest()


def _read(path: Path) -> bytes | None:
    """Return the bytes of a file; None for a link to a missing file. Raise a UserError for an unreadable file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}.") from error


def _decode_all(writer: Writer, paths: Sequence[Path], decoder: Decoder, pool: ThreadPoolExecutor) -> None:
    """Fill a new cache entry: pixels, digests, broken files and changes."""
    shape = (len(paths), *decoder.input_shape)
    pixels = writer.array("pixels", shape, np.uint8)
    digests = writer.array("digests", (len(paths), 16), np.uint8)
    deep: dict[int, tuple[float, int]] = {}  # files of more than 8 bits in a channel: the brightest pixel, and white
    broken: dict[int, str] = {}
    unfit: dict[int, str] = {}

    def decode(i: int) -> list[str]:
        try:
            result = _decode(paths[i], decoder)
        except Unfit as problem:
            unfit[i] = str(problem)
            return []
        except Broken as problem:
            broken[i] = str(problem)
            return []
        digests[i] = np.frombuffer(hashlib.blake2b(result.pixels.tobytes(), digest_size=16).digest(), np.uint8)
        if result.brightest is None:
            pixels[i] = result.pixels
        else:
            deep[i] = (result.brightest, result.white)
        return result.changes

    changes: Counter[str] = Counter()
    for own in show_progress(pool.map(decode, range(len(paths))), len(paths), f"decoding {count(len(paths), 'image')}"):
        changes.update(own)
    if unfit:
        raise UserError(f"{_list_problems(unfit, paths)}.")
    _refuse_broken(broken, paths, decoder.how)
    if deep:
        if decoder.how.max_value is None:
            _refuse_dark(deep, paths)
        exact = writer.array("exact", shape, np.float32)
        exact[:] = pixels

        def decode_again(i: int) -> None:
            exact[i] = _decode(paths[i], decoder).pixels

        what = f"decoding {count(len(deep), 'image')} of 16 bits and more"
        for _ in show_progress(pool.map(decode_again, deep), len(deep), what):
            pass
        writer.remove("pixels")
    writer.facts = {
        "broken": {str(place): broken[place] for place in sorted(broken)},
        "changes": dict(sorted(changes.items())),
    }


def _decode(path: Path, decoder: Decoder) -> Decoded:
    content = _read(path)
    if content is None:
        raise Broken("is a link to a file that does not exist")
    return decoder(content)


def _refuse_dark(deep: Mapping[int, tuple[float, int]], paths: Sequence[Path]) -> None:
    """Raise a UserError if all deep images are nearly black: the range of the type is not that of the camera."""
    place = max(deep, key=lambda i: deep[i][0] / deep[i][1])
    brightest, white = deep[place]
    if brightest >= DARKEST * white:
        return
    depth = f"{white.bit_length()}-bit" if white > 1 else "float"
    likely = 2 ** int(np.ceil(np.log2(max(brightest, 1) + 1))) - 1
    raise UserError(
        f"{count(len(deep), 'image')} of {depth} values: the brightest, {paths[place]}, reaches only {brightest:,g} of "
        f"{white:,}: scaled by the whole range, all of them would be nearly black. Set dataset.decoding.max_value to "
        f"the number that means white: {likely} (a camera of {likely.bit_length()} bits?), or {white} if they are "
        "meant to be dark."
    )


def _refuse_broken(broken: Mapping[int, str], paths: Sequence[Path], decoding: Decoding) -> None:
    if not broken or (decoding.unreadable == "skip" and len(broken) < len(paths)):
        return
    advice = "Mend or delete them"
    if len(broken) < len(paths):
        advice += ", or leave them out with dataset.decoding.unreadable=skip"
    problems = _list_problems(broken, paths)
    raise UserError(f"{len(broken)} of {len(paths):,} images cannot be read: {problems}. {advice}.")


def _list_problems(problems: Mapping[int, str], paths: Sequence[Path]) -> str:
    places = sorted(problems)
    more = f"; and {len(places) - NAMED:,} more" if len(places) > NAMED else ""
    return "; ".join(f"{paths[place]} {problems[place]}" for place in places[:NAMED]) + more
