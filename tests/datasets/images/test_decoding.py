"""Kinds of image files: the pixels that Pillow reads, on one scale, or one sentence that says what to do."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageOps

from dl_lab.datasets.images.decoding import Broken, Decoder, Decoding, Unfit

EXACT = Decoding("none", None, False, None, None, "error")
CONVERTING = replace(EXACT, convert=True)
GREY = (1, 6, 8)
COLOUR = (3, 6, 8)
RNG = np.random.default_rng(0)


def encode(pixels: np.ndarray | Image.Image, kind: str = "PNG", **options) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(channels: int, dtype=np.uint8, high: int = 256) -> np.ndarray:
    shape = (6, 8) if channels == 1 else (6, 8, channels)
    return RNG.integers(0, high, shape).astype(dtype)


def pillow(content: bytes, mode: str) -> np.ndarray:
    """The independent reader: (channels, height, width)."""
    array = np.asarray(Image.open(io.BytesIO(content)).convert(mode))
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


# -- 8 bits --


@pytest.mark.data_file("Images", kind="8-bit grey or colour", loader="image_folder", outcome="read as it is")
@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP", "GIF", "JPEG", "JPEG2000", "AVIF"])
@pytest.mark.parametrize("channels", [1, 3])
def test_plain_images_have_the_pixels_that_pillow_reads(kind, channels):
    options = {"lossless": True} if kind == "WEBP" else {}
    content = encode(noise(channels), kind, **options)
    mode = "L" if channels == 1 else "RGB"
    how = EXACT if Image.open(io.BytesIO(content)).mode in (mode, "P") else CONVERTING  # WebP and AVIF know no grey
    result = Decoder((channels, 6, 8), how)(content)
    assert result.pixels.dtype == np.uint8 and result.brightest is None
    np.testing.assert_array_equal(result.pixels, pillow(content, mode))


@pytest.mark.data_file("Images", kind="palette", loader="image_folder", outcome="its colours; grey where all are grey")
def test_a_palette_gives_its_colours():
    colours = encode(Image.fromarray(noise(3)).quantize(7))
    np.testing.assert_array_equal(Decoder(COLOUR, EXACT)(colours).pixels, pillow(colours, "RGB"))
    greys = encode(Image.fromarray(noise(1)).convert("P"))
    np.testing.assert_array_equal(Decoder(GREY, EXACT)(greys).pixels, pillow(greys, "L"))
    with pytest.raises(Unfit, match=r"has 3 channels \(RGB\), not 1"):
        Decoder(GREY, EXACT)(colours)


@pytest.mark.data_file("Images", kind="1 bit", loader="image_folder", outcome="0 and 255")
def test_bits_are_black_and_white():
    content = encode(Image.fromarray(noise(1) > 128))
    assert set(np.unique(Decoder(GREY, EXACT)(content).pixels)) == {0, 255}


@pytest.mark.data_file(
    "Images", kind="CMYK, or grey where colour is wanted", loader="image_folder",
    outcome="refused; converted and noted with `decoding.convert=true`",
)  # fmt: skip
def test_other_channels_are_refused_or_converted():
    content = encode(Image.fromarray(noise(4), "CMYK"), "TIFF")
    with pytest.raises(Unfit, match=r"has 4 channels \(CMYK\), not 3 \(RGB\): dataset.decoding.convert=true"):
        Decoder(COLOUR, EXACT)(content)
    result = Decoder(COLOUR, CONVERTING)(content)
    np.testing.assert_array_equal(result.pixels, pillow(content, "RGB"))
    assert result.changes == ["converted from CMYK to RGB"]
    grey = encode(noise(1))
    with pytest.raises(Unfit, match=r"has 1 channel \(L\), not 3"):
        Decoder(COLOUR, EXACT)(grey)
    np.testing.assert_array_equal(Decoder(COLOUR, CONVERTING)(grey).pixels, pillow(grey, "RGB"))


# -- transparency --


def over(content: bytes, colour: str) -> np.ndarray:
    """Pillow's own compositing."""
    image = Image.open(io.BytesIO(content)).convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, colour), image).convert("RGB"))


@pytest.mark.data_file(
    "Images", kind="transparent (alpha channel, palette or one colour)", loader="image_folder",
    outcome="refused; put over a colour and noted with `decoding.background=white`",
)  # fmt: skip
@pytest.mark.parametrize(
    "content",
    [
        encode(noise(4)),
        encode(Image.fromarray(noise(2), "LA").convert("RGBA")),
        encode(Image.fromarray(noise(4), "RGBA").quantize(7)),
        encode(Image.fromarray(noise(3) // 128 * 255), transparency=(255, 255, 255)),
    ],
)
@pytest.mark.parametrize("convert", [False, True])
def test_transparent_pixels_need_a_background(content, convert):
    with pytest.raises(Unfit, match=r"transparent pixels .*dataset.decoding.background=white"):
        Decoder(COLOUR, replace(EXACT, convert=convert))(content)
    for colour in ("white", "black", "#8a2be2"):
        result = Decoder(COLOUR, replace(EXACT, convert=convert, background=colour))(content)
        np.testing.assert_array_equal(result.pixels.transpose(1, 2, 0), over(content, colour))
        assert result.changes == [f"put over {colour}"]


@pytest.mark.data_file("Images", kind="opaque alpha channel", loader="image_folder", outcome="the channel is dropped")
def test_an_opaque_alpha_channel_is_dropped():
    pixels = noise(4)
    pixels[..., 3] = 255
    result = Decoder(COLOUR, EXACT)(encode(pixels))
    np.testing.assert_array_equal(result.pixels.transpose(1, 2, 0), pixels[..., :3])
    grey = noise(2)
    grey[..., 1] = 255
    np.testing.assert_array_equal(Decoder(GREY, EXACT)(encode(Image.fromarray(grey, "LA"))).pixels[0], grey[..., 0])


# -- more than 8 bits --


@pytest.mark.data_file(
    "Images", kind="16-bit grey", loader="image_folder", outcome="scaled by 65,535 without loss, and noted"
)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled_by_their_range(kind):
    pixels = noise(1, np.uint16, 65_536)
    pixels[0, 0] = 65_535
    result = Decoder(GREY, EXACT)(encode(pixels, kind))
    assert result.pixels.dtype == np.float32 and result.brightest == result.white == 65_535
    np.testing.assert_allclose(result.pixels[0], pixels / 257, rtol=1e-6)
    assert result.changes == ["16-bit, scaled by 65,535"]
    with pytest.raises(Unfit, match=r"has 1 channel \(16-bit\), not 3"):
        Decoder(COLOUR, EXACT)(encode(pixels, kind))
    assert Decoder(COLOUR, CONVERTING)(encode(pixels, kind)).pixels.shape == COLOUR


@pytest.mark.data_file(
    "Images", kind="12-bit camera, stored in 16 bits", loader="image_folder",
    outcome="refused with the depth; scaled by its own white with `decoding.max_value=4095`",
)  # fmt: skip
def test_the_number_that_means_white_can_be_given():
    pixels = noise(1, np.uint16, 4096)
    result = Decoder(GREY, replace(EXACT, max_value=4095))(encode(pixels))
    np.testing.assert_allclose(result.pixels[0], pixels * (255 / 4095), rtol=1e-6)
    pixels[1, 1] = 5000
    with pytest.raises(Unfit, match=r"has pixels from \d+ to 5000, not from 0 to 4,095"):
        Decoder(GREY, replace(EXACT, max_value=4095))(encode(pixels))


@pytest.mark.data_file(
    "Images", kind="32-bit integers", loader="image_folder", outcome="scaled by the range of the type, and noted"
)
def test_32_bits_are_scaled_by_their_range():
    pixels = RNG.integers(0, 2**31 - 1, (6, 8)).astype(np.int32)
    result = Decoder(GREY, EXACT)(encode(pixels, "TIFF"))
    np.testing.assert_allclose(result.pixels[0], pixels * (255 / (2**31 - 1)), rtol=1e-6)
    with pytest.raises(Unfit, match="has pixels from -5 to"):
        pixels[0, 0] = -5
        Decoder(GREY, EXACT)(encode(pixels, "TIFF"))


@pytest.mark.data_file(
    "Images", kind="float", loader="image_folder", outcome="accepted in [0, 1] and noted; refused beyond"
)
def test_floats_are_scaled_from_0_to_1():
    pixels = RNG.random((6, 8)).astype(np.float32)
    result = Decoder(GREY, EXACT)(encode(pixels, "TIFF"))
    np.testing.assert_allclose(result.pixels[0], pixels * 255, rtol=1e-6)
    assert result.changes == ["float, scaled by 1"]
    for broken, message in ((pixels * 255, "float pixels from .* not from 0 to 1"), (pixels - 0.5, "from -0.*")):
        with pytest.raises(Unfit, match=message):
            Decoder(GREY, EXACT)(encode(broken, "TIFF"))
    pixels[2, 2] = np.nan
    with pytest.raises(Unfit, match="no finite numbers"):
        Decoder(GREY, EXACT)(encode(pixels, "TIFF"))
    high = Decoder(GREY, replace(EXACT, max_value=255))(encode(RNG.random((6, 8)).astype(np.float32) * 200, "TIFF"))
    assert high.pixels.max() <= 200


@pytest.mark.data_file("Images", kind="16-bit colour", loader="image_folder", outcome="upper 8 bits, and noted")
def test_16_bit_colour_keeps_its_upper_bits():
    import struct
    import zlib

    pixels = RNG.integers(0, 65_536, (6, 8, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 8, 6, 16, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    result = Decoder(COLOUR, EXACT)(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    np.testing.assert_array_equal(result.pixels.transpose(1, 2, 0), pixels >> 8)
    assert result.changes == ["16-bit colour, of which the upper 8 bits are used"]


def test_deep_images_are_resized_without_loss():
    pixels = noise(1, np.uint16, 65_536)
    small = Decoder((1, 3, 4), replace(EXACT, resize="stretch"))(encode(pixels)).pixels[0]
    expected = np.asarray(Image.fromarray((pixels / 257).astype(np.float32)).resize((4, 3), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(small, expected, rtol=1e-5)


# -- orientation and frames --


@pytest.mark.data_file("Images", kind="EXIF orientation", loader="image_folder", outcome="turned upright, and noted")
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(noise(3), "JPEG", exif=exif, quality=100)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    result = Decoder((3, *upright.shape[:2]), EXACT)(content)
    np.testing.assert_array_equal(result.pixels.transpose(1, 2, 0), upright)
    assert result.changes == ([] if orientation == 1 else ["turned by their EXIF orientation"])


@pytest.mark.data_file(
    "Images", kind="several frames (GIF, TIFF)", loader="image_folder", outcome="the first, and noted"
)
@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG"])
def test_the_first_of_several_frames_is_used(kind):
    frames = [Image.fromarray(noise(1)) for _ in range(3)]
    content = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    result = Decoder(GREY, EXACT)(content)
    np.testing.assert_array_equal(result.pixels[0], np.asarray(frames[0]))
    assert result.changes == ["of several frames, of which the first is used"]


# -- broken files --


@pytest.mark.data_file("Images", kind="empty, cut short or no image", loader="image_folder", outcome="refused by name")
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"no image", "not a readable image file"),
        (encode(noise(3))[:-20], "corrupt"),
        (encode(noise(3), "JPEG")[:-40], "corrupt"),
        (encode(noise(3), "BMP")[:-1], "corrupt"),
        (encode(noise(3), "TIFF")[:80], "corrupt|not a readable image file"),
    ],
)
@pytest.mark.filterwarnings("ignore:Truncated File Read")  # Pillow warns before it raises
def test_broken_files_are_one_sentence(content, message):
    with pytest.raises(Broken, match=message) as caught:
        Decoder(COLOUR, EXACT)(content)
    assert "\n" not in str(caught.value)


@pytest.mark.data_file("Images", kind="PNG with a changed byte", loader="image_folder", outcome="refused (checksum)")
def test_a_changed_byte_of_a_png_is_found():
    content = bytearray(encode(noise(3)))
    content[len(content) // 2] ^= 1
    with pytest.raises(Broken, match="corrupt"):
        Decoder(COLOUR, EXACT)(bytes(content))


def test_another_size_is_refused_with_the_setting_that_takes_it():
    with pytest.raises(Unfit, match=r"is 8x6 pixels, not 9x6: dataset.decoding.resize=crop or stretch"):
        Decoder((3, 6, 9), EXACT)(encode(noise(3)))
