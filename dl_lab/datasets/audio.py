"""Sound: reading files, one sample rate and one channel, log-mel features."""

from __future__ import annotations

import wave
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dl_lab.types import UserError

if TYPE_CHECKING:
    from torch import nn

DECADES = 8.0  # of power below the loudest point of a clip that are kept
LEAST_POWER = 1e-10
LARGEST_FACTOR = 1000  # that samples are multiplied by: all common rates are exact, 22,051 to 22,050 Hz would take 8 GB


@dataclass(frozen=True)
class LogMel:
    """Samples (n,) -> log-mel features (frames, n_mels) float32, frames = n // hop_length + 1 (centred windows).

    As the IST course computes them (after Whisper, Radford et al. 2022, its log_mel_spectrogram): power spectrogram,
    `n_mels` triangular filters with slaney's scale and norm, log10 of at least 1e-10, floored 8 below the clip's
    maximum, (x + 4) / 4. mel_sample_rate: the rate the filters are laid out for; the course leaves torchaudio's
    default of 16 kHz on recordings of 22.05 kHz. Fewer samples than half a window are followed by silence.
    """

    n_fft: int = 400
    hop_length: int = 160
    n_mels: int = 80
    mel_sample_rate: int = 16_000

    def __call__(self, samples: Tensor) -> Tensor:
        n_frames = self.n_frames(len(samples))
        missing = self.n_fft // 2 + 1 - len(samples)  # the windows at the ends mirror half a window
        if missing > 0:
            samples = torch.nn.functional.pad(samples, (0, missing))
        power = self._filters(self._spectrogram(samples))[:, :n_frames]  # (n_mels, frames)
        levels = power.clamp(min=LEAST_POWER).log10()
        levels = torch.maximum(levels, levels.max() - DECADES)
        return ((levels + 4.0) / 4.0).T.contiguous()

    def n_frames(self, n_samples: int) -> int:
        return n_samples // self.hop_length + 1

    def to_plain(self) -> dict[str, Any]:
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
    """A sound file that cannot be used as it is; `kind` is what a data set may be asked to skip."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def inspect_wav(path: Path, sample_rate: int) -> int:
    """The number of samples of a mono PCM WAV file, from its header.

    Raises AudioFault ("damaged", "sample_rate") naming the file.
    """
    import soundfile

    try:
        with wave.open(str(path), "rb") as file:
            declared, rate, channels = file.getnframes(), file.getframerate(), file.getnchannels()
        found = soundfile.info(str(path)).frames
    except (wave.Error, EOFError, soundfile.LibsndfileError) as error:
        raise AudioFault("damaged", f"{path} is no PCM WAV file that can be read ({_cause(error)}).") from error
    except OSError as error:
        raise AudioFault("damaged", f"{path} cannot be read: {error.strerror}.") from error
    if found < declared:
        raise AudioFault("damaged", f"{path} is truncated: {found} of {declared} samples are there.")
    if not declared:
        raise AudioFault("damaged", f"{path} holds no samples.")
    if channels != 1:
        raise AudioFault("damaged", f"{path} has {channels} channels instead of one.")
    if rate != sample_rate:
        raise AudioFault("sample_rate", f"{path} has {rate} samples a second instead of {sample_rate}.")
    return declared


def _cause(error: Exception) -> str:
    return str(getattr(error, "error_string", error)).strip().rstrip(".") or "it ends within the header"


def read_wav(path: Path) -> np.ndarray:
    """Samples (n,) float32 in [-1, 1] of a mono file that `inspect_wav` found fine."""
    import soundfile

    try:
        samples, _ = soundfile.read(str(path), dtype="float32")
    except (OSError, soundfile.LibsndfileError) as error:
        raise AudioFault("damaged", f"{path} cannot be read ({_cause(error)}).") from error
    return samples


def read_any(path: Path, sample_rate: int) -> Tensor:
    """Samples (n,) float32 of any file that libsndfile knows, its channels averaged, at `sample_rate`.

    A rate without a small ratio to it is taken for the next one that has one (from 4 kHz on, .05 % away at most).
    Raises AudioFault for a file that cannot be decoded, a truncated WAV, values that are not finite, and no samples.
    """
    import soundfile
    from torchaudio.functional import resample

    try:
        samples, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except (OSError, soundfile.LibsndfileError) as error:
        raise AudioFault("damaged", f"{path} is no sound file that can be read ({_cause(error)}).") from error
    if path.suffix.lower() == ".wav" and (declared := _declared(path)) > len(samples):
        raise AudioFault("damaged", f"{path} is truncated: {len(samples)} of {declared} samples are there.")
    if not len(samples):
        raise AudioFault("damaged", f"{path} holds no samples.")
    if not np.isfinite(samples).all():
        raise AudioFault("damaged", f"{path} holds samples that are no finite numbers.")
    mono = torch.from_numpy(samples.mean(axis=1))
    ratio = max(Fraction(rate, sample_rate).limit_denominator(LARGEST_FACTOR), Fraction(1, LARGEST_FACTOR))
    return mono if ratio == 1 else resample(mono, ratio.numerator, ratio.denominator)


def _declared(path: Path) -> int:
    """What a PCM WAV's header says it holds; 0 where the standard library cannot tell."""
    try:
        with wave.open(str(path), "rb") as file:
            return file.getnframes()
    except (wave.Error, EOFError):
        return 0
