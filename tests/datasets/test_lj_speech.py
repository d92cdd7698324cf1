"""LJ Speech in its official layout: splits, the feature cache, faults named or skipped and counted, toy speech."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

from dl_lab.datasets import feature_cache
from dl_lab.datasets.audio import LogMel, read_wav
from dl_lab.datasets.characters import decode
from dl_lab.datasets.lj_speech import Clip, lj_speech, read_metadata, split_clips
from dl_lab.datasets.tone_speech import random_texts, spoken
from dl_lab.types import UserError

FILES = [{"path": "LJSpeech-1.1.tar.bz2", "unpacks": "LJSpeech-1.1", "checksum": "", "url": ""}]
N = 20


@pytest.fixture
def corpus(tmp_path):
    """N clips of toy speech laid out as the release; returns its folder."""
    folder = tmp_path / "data" / "LJSpeech-1.1"
    (folder / "wavs").mkdir(parents=True)
    rows = []
    for i, text in enumerate(random_texts(N, seed=0)):
        soundfile.write(folder / "wavs" / f"LJ001-{i:04}.wav", spoken(text, seed=i), 22_050, subtype="PCM_16")
        rows.append(f"LJ001-{i:04}|Mr. {text}|Mister {text}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def load(tmp_path):
    def build(**changes):
        settings = {"n_symbols": 35, "text_length": 30, "n_fft": 400, "hop_length": 160, "n_mels": 80}
        settings |= {"mel_sample_rate": 16_000, "data_dir": str(tmp_path / "data"), "files": FILES}
        return lj_speech(**{**settings, "cache_dir": str(tmp_path / "cache"), **changes})

    return build


def test_splits_are_contiguous_and_a_part_says_so(corpus, load):
    dataset = load()
    assert [len(getattr(dataset, split)) for split in ("train", "val", "test")] == [15, 1, 4]
    assert (dataset.label, dataset.note) == ("part", "20 of 13,100 clips, in order 15/1/4")
    names = [clip.name for split in dataset.extras["clips"].values() for clip in split]
    assert names == [f"LJ001-{i:04}" for i in range(N)]


def test_the_full_set_has_the_splits_of_the_course():
    clips = [Clip(str(i), "a", np.zeros(1)) for i in range(13_100)]
    parts = split_clips(clips, [0.75, 0.05], (None, None, None))
    assert [len(part) for part in parts.values()] == [9825, 655, 2620]
    assert [parts[split][0].name for split in parts] == ["0", "9825", "10480"]


def test_batches_hold_features_lengths_and_normalised_text(corpus, load):
    dataset = load()
    batch = next(dataset.val.batches(4))
    clip = dataset.extras["clips"]["val"][0]
    features = LogMel()(torch.from_numpy(read_wav(clip.source)))
    assert torch.equal(batch.features[0], features)
    assert batch.n_frames.tolist() == [len(features)]
    assert decode(batch.tokens[0].tolist()) == clip.text.lower()
    assert clip.text.startswith("Mister")


def test_padding_is_to_the_longest_or_to_a_fixed_length(corpus, load):
    batch = next(load().train.batches(8))
    assert batch.features.shape[1] == int(batch.n_frames.max())
    fixed = next(load(pad_frames=60).train.batches(8))
    assert fixed.features.shape == (8, 60, 80)
    assert torch.equal(fixed.n_frames, batch.n_frames.clamp(max=60))
    assert torch.equal(fixed.features[0, : fixed.n_frames[0]], batch.features[0, :60][: fixed.n_frames[0]])


def test_later_data_sets_never_touch_the_audio(corpus, load, monkeypatch):
    first = load()
    monkeypatch.setattr(feature_cache, "read_wav", None)
    monkeypatch.setattr(feature_cache, "inspect_wav", None)
    second = load(n_train=3)
    assert second.train.columns.tokens.tolist() == first.train.columns.tokens[:3].tolist()
    assert torch.equal(next(second.train.batches(3)).features, next(first.train.batches(3)).features)


def test_the_cache_depends_on_the_settings_and_the_recordings(corpus, load, tmp_path):
    caches = lambda: len(list((tmp_path / "cache").glob("log_mel_*/index.json")))  # noqa: E731
    load()
    assert caches() == 1
    narrow = load(n_mels=40)
    assert caches() == 2
    assert next(narrow.train.batches(1)).features.shape[2] == 40
    soundfile.write(corpus / "wavs" / "LJ001-0000.wav", spoken("other", seed=9), 22_050)
    assert load().fingerprint != narrow.fingerprint
    assert caches() == 3


def test_the_number_of_threads_changes_nothing(corpus, tmp_path):
    paths = sorted((corpus / "wavs").iterdir())
    got = [feature_cache.cached_features(paths, LogMel(), 22_050, tmp_path / str(n), (), workers=n) for n in (1, 3)]
    assert torch.equal(got[0].values, got[1].values)
    assert torch.equal(got[0].n_frames, got[1].n_frames)


def test_a_failure_leaves_no_half_written_cache(corpus, load, tmp_path, monkeypatch):
    def broken(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(feature_cache, "read_wav", broken)
        with pytest.raises(KeyboardInterrupt):
            load()
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert len(load().train) == 15


def test_a_damaged_cache_is_an_error_that_says_what_to_do(corpus, load, tmp_path):
    load()
    (index,) = (tmp_path / "cache").glob("log_mel_*/index.json")
    index.write_text("{")
    with pytest.raises(UserError, match="delete it, it is made again"):
        load()


def damage(corpus, kind):
    """Make one fault; returns the clip it is about."""
    wavs, metadata = corpus / "wavs", corpus / "metadata.csv"
    path = wavs / "LJ001-0004.wav"
    match kind:
        case "no_audio":
            path.unlink()
        case "no_row":
            lines = metadata.read_text().splitlines()
            metadata.write_text("\n".join(line for line in lines if not line.startswith(path.stem)) + "\n")
        case "no_text":
            metadata.write_text(metadata.read_text().replace("LJ001-0004|", "LJ001-0004|x| \nLJ9|", 1))
            lines = [line for line in metadata.read_text().splitlines() if not line.startswith("LJ9")]
            metadata.write_text("\n".join(lines) + "\n")
        case "sample_rate":
            soundfile.write(path, read_wav(path), 16_000)
        case "damaged":
            path.write_bytes(path.read_bytes()[:3001])
    return path.stem


WORDS = {
    "no_audio": "1 without a recording",
    "no_row": "1 without a row in metadata.csv",
    "no_text": "1 without a transcript",
    "sample_rate": "1 of another sample rate",
    "damaged": "1 that cannot be read",
}


@pytest.mark.parametrize("kind", WORDS)
def test_a_fault_names_the_clip_or_is_skipped_and_counted(corpus, load, kind, tmp_path):
    name = damage(corpus, kind)
    with pytest.raises(UserError, match=name) as caught:
        load()
    assert f"dataset.skip=[{kind}]" in str(caught.value)
    assert not list((tmp_path / "cache").glob("log_mel_*/*"))
    dataset = load(skip=[kind])
    assert f"{WORDS[kind]} skipped" in dataset.note
    names = [clip.name for split in dataset.extras["clips"].values() for clip in split]
    assert name not in names and len(names) == N - 1
    with pytest.raises(UserError, match=name):  # a cache made while skipping does not hide the fault
        load()


@pytest.mark.parametrize("what", ["a link to nothing", "a folder"])
def test_what_only_looks_like_a_recording_is_none(corpus, load, what):
    path = corpus / "wavs" / "LJ001-0004.wav"
    path.unlink()
    if what == "a folder":
        path.mkdir()
    else:
        path.symlink_to(corpus / "nothing.wav")
    with pytest.raises(UserError, match=r"there is no wavs/LJ001-0004.wav"):
        load()
    assert "1 without a recording skipped" in load(skip=["no_audio"]).note


def test_after_a_skipped_clip_features_still_belong_to_their_clip(corpus, load):
    damage(corpus, "damaged")
    dataset = load(skip=["damaged"])
    batch = next(dataset.train.batches(len(dataset.train)))
    for clip, features, n in zip(dataset.extras["clips"]["train"], batch.features, batch.n_frames, strict=True):
        assert torch.equal(features[:n], LogMel()(torch.from_numpy(read_wav(clip.source)))), clip.name


@pytest.mark.parametrize(
    ("text", "words"),
    [("LJ001-0000|only two", "2 fields instead of 3"), ("LJ001-0000|a|b\nLJ001-0000|a|b", "line 2: .* a row already")],
)
def test_a_row_that_is_not_as_published_is_named(corpus, text, words):
    (corpus / "metadata.csv").write_text(text + "\n")
    with pytest.raises(UserError, match=words):
        read_metadata(corpus, skip=("no_row",))


def test_no_data_is_one_clear_sentence(load):
    with pytest.raises(UserError, match="does not exist, and there is no public download"):
        load()


@pytest.mark.parametrize("changes", [{"fractions": [0.9, 0.2]}, {"n_val": 0}, {"n_symbols": 30}, {"pad_frames": 0}])
def test_what_cannot_be_is_refused(corpus, load, changes):
    with pytest.raises(ValueError, match=r"fractions|leave none|n_symbols|pad_frames"):
        load(**changes)


def test_generated_speech_is_reproducible_and_says_what_it_is(load):
    one, two = load(source="generated", n_generated=8), load(source="generated", n_generated=8)
    assert one.label == "generated"
    assert one.fingerprint == two.fingerprint
    batch = next(one.train.batches(8))
    assert len(set(map(decode, batch.tokens.tolist()))) > 4
    assert one.preprocessing["features"]["n_mels"] == 80


def test_each_letter_has_its_tone():
    """The dominant frequency of "a" is lowest, and grows with the alphabet; a space is silence."""
    peaks = [int(np.abs(np.fft.rfft(spoken(letter * 3, seed=0), n=22_050)).argmax()) for letter in "amz"]
    assert 290 < peaks[0] < 310 < peaks[1] < 3560 < peaks[2] < 3640
    assert np.abs(spoken("  ", seed=0)).max() < 0.05
    assert np.abs(spoken("a", seed=0)).max() > 0.15


def test_real_clips(real_data, tmp_path):
    """340 clips of the release: their features come out of the cache as they went in."""
    if not (real_data / "LJSpeech-1.1").is_dir():
        pytest.skip("needs real data: no LJSpeech-1.1")
    clips, skipped = read_metadata(real_data / "LJSpeech-1.1", ())
    assert clips[0].text.startswith("Printing, in the only sense with which we are at present concerned")
    paths = [clip.source for clip in clips[:3]]
    features = feature_cache.cached_features(paths, LogMel(), 22_050, tmp_path, ())
    for path, start, n in zip(paths, features.starts, features.n_frames, strict=True):
        assert torch.equal(features.values[start : start + n], LogMel()(torch.from_numpy(read_wav(path))))
    assert not skipped
