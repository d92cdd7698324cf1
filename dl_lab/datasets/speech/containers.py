"""Sound files as containers: whether a file is whole, and how large its samples are.

libsndfile reads half a file as half a recording, without an error. The functions here compare the size that the header
promises with the size of the file, for every format.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

CHUNKS = (b"LIST", b"bext", b"cue ", b"id3 ", b"ID3 ", b"JUNK", b"fact", b"smpl")  # may follow the samples
FORMATS = "WAV, RF64, AIFF, AU, FLAC, Ogg (Vorbis, Opus) and MP3"
_MPEG_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_MPEG_KILOBITS = {
    3: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


class Incomplete(ValueError):
    """The file ends before the size that its header promises, or is of no known format."""


class _Encoding(NamedTuple):
    channels: int
    rate: int
    frame_bytes: int


@dataclass(frozen=True)
class Wav:
    """The header of a WAV file.

    Args:
        channels: The number of channels.
        rate: Samples in a second.
        frame_bytes: Bytes of one sample of all channels; 0 for compressed encodings.
        start: The offset of the samples in the file.
        n_bytes: Bytes of the samples. If the header has no size (a file from a pipe), all bytes to the end of the file.
        size_known: Whether the header has the size.
    """

    channels: int
    rate: int
    frame_bytes: int
    start: int
    n_bytes: int
    size_known: bool

    @property
    def n_samples(self) -> int:
        """The number of samples of each channel; 0 if the encoding is compressed."""
        return self.n_bytes // self.frame_bytes if self.frame_bytes else 0


def read_wav_header(file: BinaryIO, file_size: int) -> Wav:
    """Read the header of a WAV file, and check it against the size of the file.

    Args:
        file: The file, open at its start.
        file_size: The size of the file in bytes.

    Raises:
        Incomplete: The file is no WAV file, or has fewer samples than its header promises.
    """
    head = file.read(12)
    if len(head) < 12:
        raise Incomplete("it ends within the header")
    if head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
        raise Incomplete("it does not start like a WAV file")
    about: _Encoding | None = None
    large_size: int | None = None
    while True:
        chunk = file.read(8)
        if len(chunk) < 8:
            raise Incomplete("it ends within the header")
        name = chunk[:4]
        (size,) = struct.unpack("<I", chunk[4:])
        start = file.tell()
        if name == b"data":
            if about is None:
                raise Incomplete("its samples come before their description")
            promised = large_size if large_size is not None else size
            present = file_size - start
            is_empty = promised == 0 and (present == 0 or file.read(4) in CHUNKS)
            is_known = is_empty or not is_unknown(promised)
            if is_known and promised > present:
                n_present = present // (about.frame_bytes or 1)
                n_promised = promised // (about.frame_bytes or 1)
                raise Incomplete(f"truncated: it has {n_present} of {n_promised} samples")
            return Wav(*about, start, promised if is_known else present, is_known)
        body = file.read(min(size, 64))
        if name == b"ds64" and len(body) >= 16:
            (large_size,) = struct.unpack("<Q", body[8:16])
        if name == b"fmt " and len(body) >= 16:
            encoding, channels, rate, _, frame_bytes, _ = struct.unpack("<HHIIHH", body[:16])
            if encoding not in (1, 3, 6, 7, 0xFFFE):  # compressed: a block has many samples
                frame_bytes = 0
            about = _Encoding(channels, rate, frame_bytes)
        file.seek(start + size + size % 2)


def is_unknown(size: int) -> bool:
    """Return whether programs write this size into a pipe, where they cannot go back to write the true size."""
    return size in (0, 0xFFFFFFFF) or 0x7FFFF000 <= size <= 0x80000000


def require_whole(raw: bytes) -> bytes:
    """Return the content of a sound file ready for libsndfile: whole, and with its size in the header.

    Raises:
        Incomplete: The file ends early, or its format is unknown.
    """
    if raw[:4] in (b"RIFF", b"RF64"):
        return _complete_wav(raw)
    if raw[:4] == b"FORM" and raw[8:12] in (b"AIFF", b"AIFC"):
        _check_aiff(raw)
    elif raw[:4] == b".snd":
        _check_au(raw)
    elif raw[:4] == b"OggS":
        _check_ogg(raw)
    elif raw[:3] == b"ID3" or (len(raw) > 1 and raw[0] == 0xFF and raw[1] & 0xE0 == 0xE0):
        _check_mp3(raw)
    elif raw[:4] != b"fLaC":  # libsndfile itself notices a FLAC file that ends early
        raise Incomplete(f"it is none of the readable formats: {FORMATS}")
    return raw


def _complete_wav(raw: bytes) -> bytes:
    wav = read_wav_header(io.BytesIO(raw), len(raw))
    if wav.size_known:
        return raw
    # libsndfile reads no samples if the header says 0: put in the sizes that the file really has.
    file_size = struct.pack("<I", min(len(raw) - 8, 0xFFFFFFF0))
    size = struct.pack("<I", min(wav.n_bytes, 0xFFFFFFF0))
    return raw[:4] + file_size + raw[8 : wav.start - 4] + size + raw[wav.start :]


def _check_aiff(raw: bytes) -> None:
    place = 12
    while place + 8 <= len(raw):
        (size,) = struct.unpack(">I", raw[place + 4 : place + 8])
        if place + 8 + size > len(raw):
            raise Incomplete(f"truncated: its last part has {len(raw) - place - 8:,} of {size:,} bytes")
        if raw[place : place + 4] == b"SSND":
            return
        place += 8 + size + size % 2
    raise Incomplete("it ends before its samples")


def _check_au(raw: bytes) -> None:
    if len(raw) < 24:
        raise Incomplete("it ends within the header")
    start, size = struct.unpack(">II", raw[4:12])
    if not is_unknown(size) and start + size > len(raw):
        raise Incomplete(f"truncated: it has {max(len(raw) - start, 0):,} of {size:,} bytes of samples")


def _check_ogg(raw: bytes) -> None:
    """Check that the last page of an Ogg stream is whole and says that it is the last one."""
    place = raw.rfind(b"OggS")
    if place + 27 > len(raw):
        raise Incomplete("truncated: its last page is cut")
    n_segments = raw[place + 26]
    sizes = raw[place + 27 : place + 27 + n_segments]
    if len(sizes) < n_segments or place + 27 + n_segments + sum(sizes) > len(raw):
        raise Incomplete("truncated: its last page is cut")
    if not raw[place + 5] & 4:
        raise Incomplete("truncated: the page that ends the stream is missing")


def _check_mp3(raw: bytes) -> None:
    """Check that every MPEG frame is whole. The file may say how many frames it has: `audio.read_any` checks that."""
    place = 0
    if raw[:3] == b"ID3" and len(raw) >= 10:
        place = 10 + (raw[6] << 21 | raw[7] << 14 | raw[8] << 7 | raw[9])
    n_frames = 0
    while place + 4 <= len(raw):
        length = mpeg_frame(raw[place : place + 4])
        if length is None:
            break  # here is a tag at the end, or bytes that the decoder skips
        if place + length > len(raw):
            raise Incomplete("truncated: its last frame is cut")
        n_frames += 1
        place += length
    if not n_frames:
        raise Incomplete("it has no whole MPEG frame")
    if 0 < len(raw) - place < 4:
        raise Incomplete("truncated: its last frame is cut")


def mpeg_frame(head: bytes) -> int | None:
    """Return the length in bytes of the layer III frame that starts with these four bytes; None for other bytes."""
    if head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version = head[1] >> 3 & 3  # 3: MPEG 1, 2: MPEG 2, 0: MPEG 2.5
    layer = head[1] >> 1 & 3  # 1: layer III
    bits = head[2] >> 4
    rate = head[2] >> 2 & 3
    if version == 1 or layer != 1 or bits in (0, 15) or rate == 3:
        return None
    kilobits = _MPEG_KILOBITS[3 if version == 3 else 2][bits]
    samples = 1152 if version == 3 else 576
    return samples * kilobits * 125 // _MPEG_RATES[version][rate] + (head[2] >> 1 & 1)
