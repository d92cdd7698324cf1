"""One image file as an array of the wanted shape.

Pixels are numbers from 0 to 255: uint8 for a file of at most 8 bits in a channel, float32 for a file of more, so that
no precision is lost. An integer file is scaled by the range of its own type, a float file by its range [0, 1].
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from dl_lab.types import count

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

MODES = {1: "L", 3: "RGB"}  # channels -> Pillow's name
# Formats with a clear signature, so that a damaged file is not taken for another format, and that run no other program.
# Pillow opens MPO, the format of many phones' photographs, as JPEG.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")  # Pillow's modes of more than 8 bits in a channel

Resize = Literal["none", "stretch", "crop"]
Unreadable = Literal["error", "skip"]


class Unfit(Exception):
    """The settings refuse a whole image; the message says why, and which setting would accept it."""


class Broken(Exception):
    """A file cannot be decoded; the message says why."""


@dataclass(frozen=True)
class Decoding:
    """How a file becomes pixels of the declared shape.

    Args:
        resize: "none" accepts only images of the declared size. "stretch" changes both sides. "crop" keeps the aspect
            ratio: it resizes the shorter side to `shorter_side`, then cuts out the middle. Both are bilinear with
            antialiasing, like torchvision's Resize of a PIL image.
        shorter_side: The shorter side in pixels, for "crop". None resizes as little as possible.
        convert: Whether images of other channels (grey, CMYK, ...) are converted. False refuses them.
        background: The colour behind transparent images ("white", "#8a2be2"). None refuses them.
        max_value: The number that means white in files of more than 8 bits in a channel (4095 for a 12-bit camera).
            None takes the range of the file's own type (65,535 for 16 bits).
        unreadable: "skip" leaves out files that cannot be decoded, and counts them. "error" stops.

    Raises:
        ValueError: A setting makes no sense.
    """

    resize: Resize
    shorter_side: int | None
    convert: bool
    background: str | None
    max_value: int | None
    unreadable: Unreadable

    def __post_init__(self) -> None:
        if self.shorter_side is not None and self.resize != "crop":
            raise ValueError(f"decoding.shorter_side {self.shorter_side} needs decoding.resize=crop")
        if self.max_value is not None and self.max_value < 1:
            raise ValueError(f"decoding.max_value {self.max_value} is not at least 1")
        if self.background is not None:
            _parse_colour(self.background)

    def to_plain(self, input_shape: tuple[int, ...]) -> dict[str, Any]:
        """Return, as plain values, everything that the pixels of a decoded file depend on."""
        kept = ("resize", "shorter_side", "convert", "background", "max_value")
        return {"input_shape": list(input_shape), **{name: getattr(self, name) for name in kept}}


@dataclass
class Decoded:
    """A decoded image.

    Attributes:
        pixels: (channels, height, width), uint8 or float32, from 0 to 255.
        changes: The changes beyond resizing, in words that a note counts ("turned by their EXIF orientation").
        brightest: The greatest number in a file of more than 8 bits in a channel; None for other files.
        white: The number that means white in such a file.
    """

    pixels: np.ndarray
    changes: list[str] = field(default_factory=list)
    brightest: float | None = None
    white: int = 255


class Decoder:
    """Bytes of a file -> `Decoded` of the shape (channels, height, width).

    Args:
        input_shape: Channels (1 or 3), height and width.
        how: The settings.

    Raises:
        ValueError: The shape makes no sense.
    """

    def __init__(self, input_shape: tuple[int, int, int], how: Decoding) -> None:
        if len(input_shape) != 3 or input_shape[0] not in MODES or min(input_shape) < 1:
            raise ValueError(f"input_shape {list(input_shape)} is not [1 or 3, height, width]")
        longest = max(input_shape[1:])
        if how.shorter_side is not None and how.shorter_side < longest:
            raise ValueError(f"decoding.shorter_side {how.shorter_side} is less than the image's {longest} pixels")
        self.input_shape = input_shape
        self.how = how

    def __call__(self, content: bytes) -> Decoded:
        """Decode one file.

        Raises:
            Broken: The file cannot be decoded.
            Unfit: The settings refuse the image.
        """
        from PIL import Image, UnidentifiedImageError

        if not content:
            raise Broken("is empty (0 bytes)")
        try:
            return self._decode(content)
        except UnidentifiedImageError:
            raise Broken("is not a readable image file") from None
        except Image.DecompressionBombError as error:
            raise Broken(f"is too large ({error})") from error
        except (OSError, SyntaxError, ValueError, EOFError, OverflowError, IndexError, KeyError, TypeError) as error:
            raise Broken(f"is corrupt ({_find_reason(error)})") from error
        except (struct.error, MemoryError) as error:
            raise Broken(f"is corrupt ({_find_reason(error)})") from error

    def _decode(self, content: bytes) -> Decoded:
        from PIL import Image, ImageOps

        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.format == "PNG":  # Pillow itself does not compare the checksums of the pixel data
                with Image.open(io.BytesIO(content), formats=["PNG"]) as checked:
                    checked.verify()
            result = Decoded(np.empty(0))
            if getattr(image, "is_animated", False):
                result.changes.append("of several frames, of which the first is used")
                image.seek(0)
            if image.mode not in DEEP and ";16" in str(image.tile):  # the raw mode, RGB;16B
                result.changes.append("16-bit colour, of which the upper 8 bits are used")
            image.load()
            upright = ImageOps.exif_transpose(image)
            if image.getexif().get(0x0112, 1) in range(2, 9):
                result.changes.append("turned by their EXIF orientation")
            if upright.mode in DEEP:
                self._decode_deep(upright, image, result)
                return result
            fitted = self._fit_size(self._fit_mode(upright, result))
        array = np.asarray(fitted)
        result.pixels = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
        return result

    # -- images of 8 bits --

    def _fit_mode(self, image: Image, result: Decoded) -> Image:
        """Return the image in the mode of the wanted channels."""
        if image.mode == "1":  # a bit is one way to store grey
            image = image.convert("L")
        if image.mode == "P":  # a palette is one way to store colours
            transparent = "transparency" in image.info
            if not transparent:
                image = image.convert("L" if self._is_grey(image) else "RGB")
        if "transparency" in image.info or image.mode in WITH_ALPHA:
            image = self._remove_alpha(image, result)
        wanted = MODES[self.input_shape[0]]
        if image.mode == wanted:
            return image
        if not self.how.convert:
            raise Unfit(
                f"has {count(len(image.getbands()), 'channel')} ({image.mode}), not {self.input_shape[0]} ({wanted}): "
                "dataset.decoding.convert=true would convert it"
            )
        try:
            converted = image.convert(wanted)
        except ValueError as error:
            raise Unfit(f"has the colours {image.mode}, which cannot be converted to {wanted}") from error
        result.changes.append(f"converted from {image.mode} to {wanted}")
        return converted

    def _is_grey(self, image: Image) -> bool:
        """Return whether one channel is wanted and every colour of the palette is a grey."""
        if self.input_shape[0] != 1:
            return False
        colours = np.asarray(image.convert("RGB"))
        return bool((colours == colours[..., :1]).all())

    def _remove_alpha(self, image: Image, result: Decoded) -> Image:
        """Return the image over the background. An alpha channel that is opaque everywhere is dropped."""
        from PIL import Image

        grey = image.mode in ("L", "LA", "La")
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        if alpha.getextrema() != (255, 255):
            if self.how.background is None:
                raise Unfit(
                    "has transparent pixels (an alpha channel): dataset.decoding.background=white would put it "
                    "over white"
                )
            colour = _parse_colour(self.how.background)
            behind = Image.new("RGBA", image.size, colour)
            image = Image.alpha_composite(behind, image)
            result.changes.append(f"put over {self.how.background}")
            grey = grey and len(set(colour[:3])) == 1
        image = image.convert("RGB")
        return image.getchannel("R") if grey else image

    # -- images of more than 8 bits --

    def _decode_deep(self, image: Image, file: ImageFile, result: Decoded) -> None:
        white, words = _find_range(image.mode, file)
        stored = np.asarray(image)  # (height, width)
        if white == 2**32 - 1:  # Pillow returns unsigned numbers as signed ones
            stored = stored.view(np.uint32)
        values = stored.astype(np.float64)
        if not np.isfinite(values).all():
            raise Unfit("has pixels that are no finite numbers")
        if white == 1 and self.how.max_value is None and (values.min() < 0 or values.max() > 1):
            raise Unfit(
                f"has float pixels from {values.min():g} to {values.max():g}, not from 0 to 1: save it with pixels in "
                "[0, 1], or set dataset.decoding.max_value to the number that means white"
            )
        white = self.how.max_value or white
        if values.min() < 0 or values.max() > white:
            raise Unfit(
                f"has pixels from {values.min():g} to {values.max():g}, not from 0 to {white:,}: set "
                "dataset.decoding.max_value to the number that means white"
            )
        if self.input_shape[0] != 1 and not self.how.convert:
            raise Unfit(
                f"has 1 channel ({words}), not {self.input_shape[0]} (RGB): "
                "dataset.decoding.convert=true would convert it"
            )
        from PIL import Image

        result.brightest = float(values.max())
        result.white = white
        result.changes.append(f"{words}, scaled by {white:,}")
        scaled = Image.fromarray((values * (255 / white)).astype(np.float32))
        fitted = np.asarray(self._fit_size(scaled), dtype=np.float32)[None].clip(0, 255)
        result.pixels = np.repeat(fitted, self.input_shape[0], axis=0)

    # -- size --

    def _fit_size(self, image: Image) -> Image:
        from PIL.Image import Resampling

        width, height = image.size
        _, to_height, to_width = self.input_shape
        if self.how.resize == "none":
            if (width, height) != (to_width, to_height):
                raise Unfit(
                    f"is {width}x{height} pixels, not {to_width}x{to_height}: dataset.decoding.resize=crop or stretch "
                    "would accept it"
                )
            return image
        if self.how.resize == "stretch":
            return image.resize((to_width, to_height), Resampling.BILINEAR)
        if self.how.shorter_side is None:
            scale = max(to_width / width, to_height / height)
            size = (max(to_width, round(width * scale)), max(to_height, round(height * scale)))
        else:  # rounds like torchvision
            side = self.how.shorter_side
            short = min(width, height)
            size = (side * width // short, side * height // short)
        left = round((size[0] - to_width) / 2)
        top = round((size[1] - to_height) / 2)
        return image.resize(size, Resampling.BILINEAR).crop((left, top, left + to_width, top + to_height))


def _find_range(mode: str, file: ImageFile) -> tuple[int, str]:
    """Return the number that means white in a deep file, and the type in words."""
    if mode == "F":
        return 1, "float"
    if mode.startswith("I;16") or file.format in ("PNG", "PPM"):  # Pillow gives both formats in units of 16 bits
        return 65_535, "16-bit"
    tags = getattr(file, "tag_v2", {})
    bits = int((tags.get(258) or (32,))[0])
    is_signed = int((tags.get(339) or (1,))[0]) == 2
    white = 2 ** (bits - 1) - 1 if is_signed else 2**bits - 1
    return white, f"{bits}-bit"


def _parse_colour(name: str) -> tuple[int, int, int, int]:
    """Return red, green, blue, and 255 for opaque. Raise a ValueError for a name that Pillow does not know."""
    from PIL import ImageColor

    try:
        red, green, blue, *_ = ImageColor.getrgb(name)
    except ValueError:
        raise ValueError(f"decoding.background {name!r} is no colour: white, black, or '#8a2be2'") from None
    return red, green, blue, 255


def _find_reason(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
