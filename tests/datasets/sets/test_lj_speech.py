"""LJ Speech in its official layout: splits, the feature cache, faults named or skipped and counted, toy speech."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import torch

from dl_lab.datasets.batches import Loading
from dl_lab.datasets.sets.lj_speech import lj_speech, read_metadata
from dl_lab.datasets.speech import features as feature_cache
from dl_lab.datasets.speech.audio import LogMel, read_wav
from dl_lab.datasets.speech.clips import Clip, Limits, Parts, split_clips
from dl_lab.datasets.speech.tones import draw_texts, speak
from dl_lab.datasets.storage import Storage
from dl_lab.datasets.text.characters import decode
from dl_lab.types import UserError

FILES = [{"path": "LJSpeech-1.1.tar.bz2", "unpacks": "LJSpeech-1.1", "checksum": "", "url": ""}]
N = 20


@pytest.fixture
def corpus(tmp_path):
    """N clips of toy speech laid out as the release; returns its folder."""
    folder = tmp_path / "data" / "LJSpeech-1.1"
    (folder / "wavs").mkdir(parents=True)
    rows = []
    for i, text in enumerate(draw_texts(N, seed=0)):
        soundfile.write(folder / "wavs" / f"LJ001-{i:04}.wav", speak(text, seed=i), 22_050, subtype="PCM_16")
        rows.append(f"LJ001-{i:04}|Mr. {text}|Mister {text}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def load(tmp_path):
    def build(features=None, parts=None, limits=None, **changes):
        settings = {"n_symbols": 35, "text_length": 30, "loading": Loading("auto", 0)}
        settings["storage"] = Storage(str(tmp_path / "data"), str(tmp_path / "cache"), FILES)
        groups = {"features": LogMel(**(features or {})), "parts": Parts(**(parts or {}))}
        return lj_speech(**{**settings, **groups, "limits": Limits(**(limits or {})), **changes})

    return build


def test_splits_are_contiguous_and_a_part_says_so(corpus, load):
    dataset = load()
    assert [len(getattr(dataset, split)) for split in ("train", "val", "test")] == [15, 1, 4]
    assert (dataset.label, dataset.note) == ("part", "20 of 13,100 clips, in order 15/1/4")
    names = [clip.name for split in dataset.content.clips.values() for clip in split]
    assert names == [f"LJ001-{i:04}" for i in range(N)]


def test_the_full_set_has_the_splits_of_the_course():
    clips = [Clip(str(i), "a", np.zeros(1)) for i in range(13_100)]
    parts = split_clips(clips, [0.75, 0.05], (None, None, None))
    assert [len(part) for part in parts.values()] == [9825, 655, 2620]
    assert [parts[split][0].name for split in parts] == ["0", "9825", "10480"]


def test_batches_hold_features_lengths_and_normalised_text(corpus, load):
    dataset = load()
    batch = next(dataset.val.batches(4))
    clip = dataset.content.clips["val"][0]
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
    second = load(parts={"n_train": 3})
    assert second.train.columns.tokens.tolist() == first.train.columns.tokens[:3].tolist()
    assert torch.equal(next(second.train.batches(3)).features, next(first.train.batches(3)).features)


def test_the_cache_depends_on_the_settings_and_the_recordings(corpus, load, tmp_path):
    caches = lambda: len(list((tmp_path / "cache").glob("log_mel_*/about.json")))  # noqa: E731
    load()
    assert caches() == 1
    narrow = load(features={"n_mels": 40})
    assert caches() == 2
    assert next(narrow.train.batches(1)).features.shape[2] == 40
    soundfile.write(corpus / "wavs" / "LJ001-0000.wav", speak("other", seed=9), 22_050)
    assert load().fingerprint != narrow.fingerprint
    assert caches() == 3


def test_the_number_of_threads_changes_nothing(corpus, tmp_path):
    paths = sorted((corpus / "wavs").iterdir())
    got = [feature_cache.read_features(paths, LogMel(), 22_050, tmp_path / str(n), (), workers=n) for n in (1, 3)]
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


def test_a_damaged_cache_is_made_again(corpus, load, tmp_path):
    first = load()
    (about,) = (tmp_path / "cache").glob("log_mel_*/about.json")
    about.write_text("{")
    again = load()
    assert torch.equal(next(again.train.batches(3)).features, next(first.train.batches(3)).features)


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
    names = [clip.name for split in dataset.content.clips.values() for clip in split]
    assert name not in names and len(names) == N - 1
    with pytest.raises(UserError, match=name):  # a cache made while skipping does not hide the fault
        load()


@pytest.mark.parametrize("what", ["a link to nothing", "a folder"])
def test_a_file_that_only_looks_like_a_recording_is_ignored(corpus, load, what):
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
    for clip, features, n in zip(dataset.content.clips["train"], batch.features, batch.n_frames, strict=True):
        assert torch.equal(features[:n], LogMel()(torch.from_numpy(read_wav(clip.source)))), clip.name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("LJ001-0000|only two", "2 fields instead of 3"),
        ("LJ001-0000|a|b\nLJ001-0000|a|b", "line 2: .* already has a row"),
    ],
)
def test_a_row_that_is_not_as_published_is_named(corpus, text, words):
    (corpus / "metadata.csv").write_text(text + "\n")
    with pytest.raises(UserError, match=words):
        read_metadata(corpus, skip=("no_row",))


@pytest.mark.data_file(
    "Speech", kind="metadata.csv with a byte order mark", loader="lj_speech", outcome="read without it"
)
def test_a_byte_order_mark_is_no_part_of_the_first_name(corpus, load):
    path = corpus / "metadata.csv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load().content.clips["train"][0].name == "LJ001-0000"


@pytest.mark.data_file(
    "Speech", kind="metadata.csv with a header", loader="lj_speech", outcome="refused: delete the line"
)
def test_a_header_is_no_clip(corpus, load):
    path = corpus / "metadata.csv"
    path.write_text("ID|Transcription|Normalized\n" + path.read_text())
    with pytest.raises(UserError, match=r"line 1: .* is a header.*delete this line"):
        load()


@pytest.mark.data_file(
    "Speech",
    kind="a clip of 60 s",
    loader="lj_speech",
    outcome="refused with its name; `dataset.skip`, `pad_frames` or `limits.longest`",
)
@pytest.mark.data_file(
    "Speech",
    kind="a clip too short for its transcript",
    loader="lj_speech",
    outcome="refused with its name; `dataset.skip` or `limits.frames_per_symbol`",
)
def test_lengths_are_checked_when_the_data_are_loaded(corpus, load):
    path = corpus / "wavs" / "LJ001-0018.wav"  # in the test split
    soundfile.write(path, np.zeros(60 * 22_050), 22_050, subtype="PCM_16")
    with pytest.raises(
        UserError, match=r"LJ001-0018.wav lasts 60.0 s, more than dataset.limits.longest=20; .*dataset.skip"
    ):
        load()
    assert "1 that are too long skipped" in load(skip=["too_long"]).note
    assert len(load(limits={"longest": 61}).test) == 4
    assert len(load(pad_frames=300).test) == 4
    soundfile.write(path, np.zeros(2205), 22_050, subtype="PCM_16")
    with pytest.raises(
        UserError, match=r"LJ001-0018.wav lasts 0.10 s, too short for the \d+ characters of its transcript"
    ):
        load()
    assert "1 that are too short for their transcripts skipped" in load(skip=["too_short"]).note
    assert len(load(limits={"frames_per_symbol": None}).test) == 4


@pytest.mark.data_file(
    "Speech",
    kind="transcripts in another alphabet",
    loader="lj_speech",
    outcome="counted; refused above `dataset.limits.max_unknown`",
)
def test_letters_without_a_symbol_are_counted_and_refused_above_a_share(corpus, load):
    path = corpus / "metadata.csv"
    rows = path.read_text().splitlines()
    path.write_text("\n".join([rows[0] + " é", *rows[1:]]) + "\n", encoding="utf-8")
    assert "1 of 245 letters" in load(limits={"max_unknown": 0.1}).note
    assert "letters have no symbol (é; the first in LJ001-0000)" in load(limits={"max_unknown": 0.1}).note
    path.write_text("\n".join(row.rpartition("|")[0] + "|мир" for row in rows) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"not of this alphabet .*60 of 60 letters .*dataset.limits.max_unknown=0.01"):
        load()


def test_no_data_is_one_clear_sentence(load):
    with pytest.raises(UserError, match="does not exist, and there is no public download"):
        load()


@pytest.mark.parametrize(
    "changes",
    [{"parts": {"fractions": [0.9, 0.2]}}, {"parts": {"n_val": 0}}, {"n_symbols": 30}, {"pad_frames": 0}],
)
def test_impossible_settings_are_refused(corpus, load, changes):
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
    peaks = [int(np.abs(np.fft.rfft(speak(letter * 3, seed=0), n=22_050)).argmax()) for letter in "amz"]
    assert 290 < peaks[0] < 310 < peaks[1] < 3560 < peaks[2] < 3640
    assert np.abs(speak("  ", seed=0)).max() < 0.05
    assert np.abs(speak("a", seed=0)).max() > 0.15


def test_real_clips(real_data, tmp_path):
    """340 clips of the release: their features come out of the cache as they went in."""
    if not (real_data / "LJSpeech-1.1").is_dir():
        pytest.skip("needs real data: no LJSpeech-1.1")
    clips, skipped = read_metadata(real_data / "LJSpeech-1.1", ())
    assert clips[0].text.startswith("Printing, in the only sense with which we are at present concerned")
    paths = [clip.source for clip in clips[:3]]
    features = feature_cache.read_features(paths, LogMel(), 22_050, tmp_path, ())
    for path, start, n in zip(paths, features.starts, features.n_frames, strict=True):
        assert torch.equal(features.values[start : start + n], LogMel()(torch.from_numpy(read_wav(path))))
    assert not skipped
