"""Sound files: read with one sample rate and one channel, and turned into log-mel features."""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dl_lab.datasets.speech.containers import Incomplete, read_wav_header, require_whole
from dl_lab.types import UserError

if TYPE_CHECKING:
    from soundfile import SoundFile
    from torch import nn

DECADES = 8.0  # decades of power below the loudest point of a clip that are kept
LEAST_POWER = 1e-10
BLOCK = 1 << 20  # samples that are decoded at a time
ONE_FRAME = 1152  # samples of an MPEG frame: decoders may differ by this many at the ends
LARGEST_FACTOR = 1000  # of a change of rate: exact for all common rates, while 22,051 to 22,050 Hz would take 8 GB


@dataclass(frozen=True)
class LogMel:
    """Samples (n,) -> log-mel features (frames, n_mels) float32, frames = n // hop_length + 1 (centred windows).

    These are the features of the IST course (after log_mel_spectrogram of Whisper, Radford et al. 2022): power
    spectrogram, `n_mels` triangular filters with Slaney's scale and norm, log10 of at least 1e-10, at most 8 below the
    clip's maximum, (x + 4) / 4. Silence follows fewer samples than half a window.

    Args:
        n_fft: Samples of a window.
        hop_length: Samples from one frame to the next.
        n_mels: The number of filters.
        mel_sample_rate: The sample rate that the filters are made for, in Hz. The course leaves torchaudio's default of
            16 kHz on recordings of 22.05 kHz.
    """

    n_fft: int = 400
    hop_length: int = 160
    n_mels: int = 80
    mel_sample_rate: int = 16_000

    def __call__(self, samples: Tensor) -> Tensor:
        """Compute the features."""
        n_frames = self.n_frames(len(samples))
        missing = self.n_fft // 2 + 1 - len(samples)  # the windows at the ends mirror half a window
        if missing > 0:
            samples = torch.nn.functional.pad(samples, (0, missing))
        power = self._filters(self._spectrogram(samples))[:, :n_frames]  # (n_mels, frames)
        levels = power.clamp(min=LEAST_POWER).log10()
        levels = torch.maximum(levels, levels.max() - DECADES)
        return ((levels + 4.0) / 4.0).T.contiguous()

    def n_frames(self, n_samples: int) -> int:
        """Return the number of frames of n_samples samples."""
        return n_samples // self.hop_length + 1

    def to_plain(self) -> dict[str, int]:
        """Return plain JSON values, from which `LogMel(**plain)` makes the same features."""
        return asdict(self)

    @cached_property
    def _spectrogram(self) -> nn.Module:
        from torchaudio.transforms import Spectrogram

        return Spectrogram(n_fft=self.n_fft, hop_length=self.hop_length, power=2)

    @cached_property
    def _filters(self) -> nn.Module:
        from torchaudio.transforms import MelScale

        bins = self.n_fft // 2 + 1
        return MelScale(self.n_mels, self.mel_sample_rate, n_stft=bins, norm="slaney", mel_scale="slaney")


class AudioFault(UserError):
    """A sound file cannot be used as it is.

    Args:
        kind: The kind of fault. A data set may skip faults by their kind.
        message: What is wrong, with the name of the file.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def inspect_wav(path: Path, sample_rate: int) -> int:
    """Return the number of samples of a mono WAV file, from its header.

    Integers, floats and extensible headers are read.

    Args:
        path: The file.
        sample_rate: The sample rate that the file must have, in Hz.

    Raises:
        AudioFault: The file is "damaged" or of another "sample_rate"; the message names it.
    """
    try:
        with open(path, "rb") as file:
            wav = read_wav_header(file, path.stat().st_size)
    except Incomplete as error:
        raise AudioFault("damaged", f"{path} is not a readable WAV file: {error}.") from error
    except OSError as error:
        raise AudioFault("damaged", f"{path} cannot be read: {error.strerror}.") from error
    n_samples = wav.n_samples or len(read_wav(path))
    if not n_samples:
        raise AudioFault("damaged", f"{path} holds no samples.")
    if wav.channels != 1:
        raise AudioFault("damaged", f"{path} has {wav.channels} channels instead of one.")
    if wav.rate != sample_rate:
        raise AudioFault("sample_rate", f"{path} has {wav.rate} samples a second instead of {sample_rate}.")
    return n_samples


def read_wav(path: Path) -> np.ndarray:
    """Read the samples (n,) float32 in [-1, 1] of a mono file that has passed `inspect_wav`."""
    return _decode(path)[0][:, 0]


def read_any(path: Path, sample_rate: int) -> Tensor:
    """Read the samples of a sound file at a sample rate, as the mean of its channels.

    The formats are WAV (also of unknown size, from a pipe), RF64, AIFF, AU, FLAC, Ogg and MP3. The ratio of the two
    rates is rounded to one of small numbers (from 4 kHz on, by at most 0.05 %).

    Args:
        path: The file.
        sample_rate: The sample rate of the result, in Hz.

    Returns:
        The samples (n,) float32.

    Raises:
        AudioFault: The file is not whole, cannot be decoded, holds no samples, or holds values that are not finite.
    """
    from torchaudio.functional import resample

    samples, rate = _decode(path)
    if not len(samples):
        raise AudioFault("damaged", f"{path} holds no samples.")
    mono = torch.from_numpy(samples.mean(axis=1))
    # Both parts of the ratio stay small, or the filter of a damaged rate of billions would take all memory.
    largest = min(LARGEST_FACTOR, max(2 * LARGEST_FACTOR * sample_rate // rate, 1))
    ratio = max(Fraction(rate, sample_rate).limit_denominator(largest), Fraction(1, LARGEST_FACTOR))
    return mono if ratio == 1 else resample(mono, ratio.numerator, ratio.denominator)


class Sound(NamedTuple):
    """What the header of a sound file says.

    Attributes:
        n_samples: The samples that `read_any` gives.
        channels: The channels of the file.
        rate: The sample rate of the file, in Hz.
    """

    n_samples: int
    channels: int
    rate: int


def inspect_any(path: Path, sample_rate: int) -> Sound:
    """Read the header of a sound file, without decoding the file.

    Args:
        path: The file.
        sample_rate: The sample rate of the result, in Hz.

    Raises:
        AudioFault: The file is not whole, cannot be read, or holds no samples.
    """
    import soundfile

    try:
        about = soundfile.info(io.BytesIO(require_whole(path.read_bytes())))
    except OSError as error:
        raise AudioFault("damaged", f"{path} cannot be read: {error.strerror}.") from error
    except Incomplete as error:
        raise AudioFault("damaged", f"{path} is not a readable sound file: {error}.") from error
    except (RuntimeError, TypeError) as error:  # libsndfile's own errors are RuntimeErrors
        raise AudioFault("damaged", f"{path} is not a readable sound file ({_find_cause(error)}).") from error
    if not about.frames:
        raise AudioFault("damaged", f"{path} holds no samples.")
    return Sound(-(-about.frames * sample_rate // about.samplerate), about.channels, about.samplerate)


def _decode(path: Path) -> tuple[np.ndarray, int]:
    """Return samples (n, channels) float32 and their rate. Raise an AudioFault for a file that ends early."""
    import soundfile

    try:
        raw = require_whole(path.read_bytes())
        with soundfile.SoundFile(io.BytesIO(raw)) as file:
            promised = file.frames
            samples = _read_blocks(file)
            rate = file.samplerate
    except OSError as error:
        raise AudioFault("damaged", f"{path} cannot be read: {error.strerror}.") from error
    except Incomplete as error:
        raise AudioFault("damaged", f"{path} is not a readable sound file: {error}.") from error
    except (RuntimeError, TypeError) as error:  # libsndfile's own errors are RuntimeErrors
        raise AudioFault("damaged", f"{path} is not a readable sound file ({_find_cause(error)}).") from error
    if promised - len(samples) > ONE_FRAME:
        raise AudioFault("damaged", f"{path} is truncated: it has {len(samples)} of {promised} samples.")
    if not np.isfinite(samples).all():
        raise AudioFault("damaged", f"{path} holds samples that are no finite numbers.")
    return samples, rate


def _read_blocks(file: SoundFile) -> np.ndarray:
    """Read samples (n, channels) block by block: a damaged header may promise more than the memory can hold."""
    blocks: list[np.ndarray] = []
    while True:
        block = file.read(BLOCK, dtype="float32", always_2d=True)
        blocks.append(block)
        if len(block) < BLOCK:
            return np.concatenate(blocks) if len(blocks) > 1 else block


def _find_cause(error: Exception) -> str:
    return str(getattr(error, "error_string", error)).strip().rstrip(".") or "it ends within the header"
