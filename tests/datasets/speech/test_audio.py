"""Log-mel features equal the course's transforms; files of every kind are read or refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

from dl_lab.datasets.speech.audio import AudioFault, LogMel, inspect_wav, read_any, read_wav
from dl_lab.datasets.speech.containers import mpeg_frame

RATE = 22_050


@pytest.fixture
def noise():
    return np.random.default_rng(0).normal(scale=0.1, size=4000).astype(np.float32)


@pytest.fixture
def wav(tmp_path, noise):
    """Write a WAV file; returns its path."""

    def write(name="clip.wav", samples=noise, rate=RATE, subtype="PCM_16"):
        soundfile.write(tmp_path / name, samples, rate, subtype=subtype)
        return tmp_path / name

    return write


def test_log_mel_is_the_pipeline_of_the_course(noise):
    import torchaudio

    samples = torch.from_numpy(noise)
    power = torchaudio.transforms.Spectrogram(
        n_fft=400, hop_length=160, power=2, center=True, normalized=False, onesided=None
    )(samples)
    mel = torchaudio.transforms.MelScale(n_mels=80, n_stft=201, norm="slaney", mel_scale="slaney")(power)
    levels = torch.clamp(mel, min=1e-10).log10()
    levels = torch.maximum(levels, levels.max() - 8.0)
    assert torch.equal(LogMel()(samples), ((levels + 4.0) / 4.0).T)


def test_a_tone_is_where_its_filter_is():
    """With filters laid out for the true rate, a 1 kHz tone peaks in the filter around 1 kHz."""
    from torchaudio.functional import melscale_fbanks

    time = torch.arange(RATE) / RATE
    features = LogMel(mel_sample_rate=RATE)(torch.sin(2 * torch.pi * 1000 * time))
    filters = melscale_fbanks(201, 0.0, RATE / 2, 80, RATE, norm="slaney", mel_scale="slaney")
    loudest = int(features[len(features) // 2].argmax())
    assert loudest == int(filters[round(1000 / RATE * 400)].argmax())


@pytest.mark.parametrize("n", [1, 100, 159, 160, 200, 201, 1000])
def test_any_length_has_features(n):
    settings = LogMel()
    features = settings(torch.randn(n, generator=torch.Generator().manual_seed(0)))
    assert features.shape == (settings.n_frames(n), 80) == (n // 160 + 1, 80)
    assert torch.isfinite(features).all()


def test_silence_has_finite_features():
    assert torch.equal(LogMel()(torch.zeros(1000)), torch.full((7, 80), -1.5))


def test_inspect_counts_samples_and_reading_gives_them(wav, noise):
    path = wav()
    assert inspect_wav(path, RATE) == len(noise)
    np.testing.assert_allclose(read_wav(path), noise, atol=1 / 32768)


@pytest.mark.parametrize(
    ("write", "kind", "words"),
    [
        (lambda wav, noise: wav(rate=16_000), "sample_rate", "16000 samples a second instead of 22050"),
        (lambda wav, noise: cut(wav(subtype="FLOAT"), 5000), "damaged", "truncated: .* of 4000"),
        (lambda wav, noise: cut(wav(subtype="ULAW"), 3000), "damaged", "truncated: .* of 4000"),
        (lambda wav, noise: wav(samples=np.stack([noise, noise], axis=1)), "damaged", "2 channels"),
        (lambda wav, noise: wav(samples=noise[:0]), "damaged", "no samples"),
        (lambda wav, noise: cut(wav(), 5000), "damaged", "truncated: it has 2478 of 4000"),
        (lambda wav, noise: cut(wav(), 30), "damaged", "ends within the header"),
        (lambda wav, noise: cut(wav(), 0), "damaged", "ends within the header"),
    ],
)
def test_an_unfit_recording_is_named(wav, noise, write, kind, words):
    path = write(wav, noise)
    with pytest.raises(AudioFault, match=words) as caught:
        inspect_wav(path, RATE)
    assert caught.value.kind == kind
    assert str(path) in str(caught.value)


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])
    return path


def test_other_rates_and_stereo_are_converted(wav):
    time = np.arange(44_100) / 44_100
    left, right = np.sin(2 * np.pi * 440 * time), np.sin(2 * np.pi * 880 * time)
    samples = read_any(wav(samples=np.stack([left, right], axis=1), rate=44_100), RATE)
    assert len(samples) == RATE
    spectrum = torch.fft.rfft(samples).abs()
    assert sorted(spectrum.topk(2).indices.tolist()) == [440, 880]
    assert abs(float(samples.abs().max()) - 0.88) < 0.02  # the mean of both


@pytest.mark.parametrize("rate", [22_049, 44_101, 11_127, 7, 1])
def test_a_rate_without_a_small_ratio_is_converted_too(wav, rate):
    """Exactly, 22,049 Hz would take a filter of gigabytes."""
    samples = read_any(wav(samples=np.sin(2 * np.pi * 440 * np.arange(rate) / rate), rate=rate), RATE)
    if rate > 1000:
        assert len(samples) == pytest.approx(RATE, rel=1e-3)
        assert int(torch.fft.rfft(samples, n=RATE).abs().argmax()) == 440


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 32_000, 44_100, 48_000, 96_000, 192_000])
def test_common_rates_are_converted_exactly(wav, noise, rate):
    from torchaudio.functional import resample

    path = wav(rate=rate)
    assert torch.equal(read_any(path, RATE), resample(torch.from_numpy(read_wav(path)), rate, RATE))


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "FLOAT", "ULAW"])
def test_a_recording_may_have_any_encoding_of_wav(wav, noise, subtype):
    assert inspect_wav(wav(subtype=subtype), RATE) == len(noise)


FORMATS = {
    "WAV": "PCM_16",
    "WAVEX": "PCM_16",
    "RF64": "PCM_16",
    "AIFF": "PCM_16",
    "AU": "PCM_16",
    "FLAC": "PCM_16",
    "OGG": "VORBIS",
    "MP3": "MPEG_LAYER_III",
}


@pytest.mark.data_file("Speech", kind="half a WAV: integers, floats, extensible", loader="predict", outcome="refused")
@pytest.mark.data_file("Speech", kind="half an AIFF, AU, FLAC, Ogg or MP3 file", loader="predict", outcome="refused")
@pytest.mark.data_file("Speech", kind="AIFF, AU, FLAC, Ogg, MP3", loader="predict", outcome="read as soundfile does")
@pytest.mark.parametrize("container", FORMATS)
def test_half_a_file_of_any_format_is_refused(tmp_path, container):
    path = tmp_path / "clip.sound"
    time = np.arange(RATE) / RATE
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * 440 * time), RATE, format=container, subtype=FORMATS[container])
    whole = read_any(path, RATE)
    np.testing.assert_allclose(whole, soundfile.read(path, dtype="float32")[0], atol=1e-6)
    size = path.stat().st_size
    raw = path.read_bytes()
    for share in (0.96, 0.5, 0.1):
        path.write_bytes(raw[: int(size * share)])
        with pytest.raises(AudioFault, match=r"clip.sound"):
            read_any(path, RATE)


@pytest.mark.data_file("Speech", kind="WAV of unknown size, from a pipe", loader="predict", outcome="read to its end")
@pytest.mark.data_file("Speech", kind="WAV of unknown size, from a pipe", loader="lj_speech", outcome="read to its end")
@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_recording_from_a_pipe_has_no_size(wav, noise, size):
    path = wav()
    raw = path.read_bytes()
    place = raw.index(b"data") + 4
    path.write_bytes(raw[:place] + size.to_bytes(4, "little") + raw[place + 4 :])
    assert inspect_wav(path, RATE) == len(noise)
    np.testing.assert_allclose(read_wav(path), noise, atol=1 / 32768)
    assert len(read_any(path, RATE)) == len(noise)


def test_an_mp3_without_a_table_of_its_frames_ends_with_a_whole_frame(tmp_path):
    path = tmp_path / "clip.mp3"
    soundfile.write(path, np.zeros(RATE), RATE, format="MP3", subtype="MPEG_LAYER_III")
    raw = path.read_bytes()
    first = mpeg_frame(raw[:4])
    bare = raw[first:]  # the first frame holds the table
    path.write_bytes(bare)
    assert len(read_any(path, RATE)) > 0.9 * RATE
    path.write_bytes(bare[:-50])
    with pytest.raises(AudioFault, match="its last frame is cut"):
        read_any(path, RATE)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "FLOAT", "ULAW"])
def test_a_new_file_may_have_any_encoding(wav, noise, subtype):
    assert len(read_any(wav(subtype=subtype), RATE)) == len(noise)


def test_a_new_file_that_is_broken_is_refused(wav, tmp_path, noise):
    (tmp_path / "text.wav").write_text("hello")
    for path, words in (
        (tmp_path / "text.wav", "not a readable sound file"),
        (cut(wav(), 5000), "truncated"),
        (wav("empty.wav", samples=noise[:0]), "no samples"),
        (wav("nan.wav", samples=noise * np.nan, subtype="FLOAT"), "no finite numbers"),
    ):
        with pytest.raises(AudioFault, match=words):
            read_any(path, RATE)
