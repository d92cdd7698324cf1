"""Folders of sounds: classes, lengths and splits are found; damaged and overlong files are named."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
import soundfile
import torch

from dl_lab import configs
from dl_lab.commands import predict
from dl_lab.types import UserError

COMPOSER = configs.Composer()
RATE = 16_000


def tone(frequency, seconds, seed=0):
    time = np.arange(round(seconds * RATE)) / RATE
    return 0.3 * np.sin(2 * np.pi * frequency * time) + np.random.default_rng(seed).normal(0, 0.01, len(time))


def fill(folder, n=12):
    for name, frequency in (("low", 300), ("high", 2000)):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            suffix = "wav" if i % 2 else "flac"
            soundfile.write(folder / name / f"{i:02}.{suffix}", tone(frequency, 0.2 + 0.01 * i, i), RATE)
    return folder


@pytest.fixture
def sounds(tmp_path):
    return fill(tmp_path / "sounds")


@pytest.fixture
def words_for(tmp_path):
    def words(folder, *overrides):
        return ["dataset=audio_folder", f"dataset.path={folder}", f"paths.cache_dir={tmp_path}/cache", *overrides]

    return words


@pytest.fixture
def load(words_for):
    return lambda *words: configs.build(COMPOSER.compose(words_for(*words)).config, "dataset")


def test_classes_and_lengths_are_found(sounds, load):
    (sounds / "low" / "notes.txt").write_text("x")
    dataset = load(sounds)
    assert dataset.class_names == ("high", "low")
    assert dataset.summary()["sizes"] == {"train": 16, "val": 4, "test": 4}
    batch = next(dataset.train.batches(4))
    assert batch.x.shape == (4, 1, 64, round(0.31 * RATE) // 160 + 1)
    assert dataset.note == "1 other file left out"
    assert "high 12, low 12" in dataset.about[0]


def test_folders_may_be_the_splits(tmp_path, load):
    for split, n in (("train", 6), ("val", 2), ("test", 3)):
        fill(tmp_path / "splits" / split, n)
    assert load(tmp_path / "splits").summary()["sizes"] == {"train": 12, "val": 4, "test": 6}


@pytest.mark.data_file(
    "Speech", kind="half a sound file", loader="audio_folder", outcome="refused; `clips.unreadable=skip`"
)
def test_a_damaged_file_is_named_or_skipped(sounds, load):
    path = sounds / "low" / "03.wav"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"03.wav is not a readable sound file.*truncated.*clips.unreadable=skip"):
        load(sounds)
    dataset = load(sounds, "dataset.clips.unreadable=skip")
    assert (dataset.label, dataset.note) == ("part", "1 damaged file skipped")


def test_a_file_whose_samples_are_damaged_is_named_or_skipped(sounds, load):
    path = sounds / "low" / "03.wav"
    samples = tone(300, 0.2)
    samples[100] = np.nan
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    with pytest.raises(UserError, match=r"03.wav holds samples that are no finite numbers .*clips.unreadable=skip"):
        load(sounds)
    for _ in range(2):  # computed, and from the cache
        dataset = load(sounds, "dataset.clips.unreadable=skip")
        assert (dataset.label, dataset.note) == ("part", "1 damaged file skipped")
        assert sum(dataset.summary()["sizes"].values()) == 23
    with pytest.raises(UserError, match="no finite numbers"):
        load(sounds)


@pytest.mark.data_file(
    "Speech",
    kind="another sample rate, several channels, silence",
    loader="audio_folder",
    outcome="converted, mixed to one; counted in the note",
)
def test_sounds_that_are_changed_or_silent_are_counted(sounds, load):
    low = sounds / "low"
    soundfile.write(low / "01.wav", tone(300, 0.2), 44_100)
    soundfile.write(low / "03.wav", np.stack([tone(300, 0.2)] * 2, axis=1), 8_000)
    soundfile.write(low / "05.wav", np.zeros(3000), RATE)
    left = tone(300, 0.2)
    soundfile.write(low / "07.wav", np.stack([left, -left], axis=1), RATE)  # the mean of the channels is silence
    dataset = load(sounds)
    assert dataset.note == (
        "2 sounds converted from 8,000, 44,100 Hz, channels of 2 sounds mixed to one, 2 sounds without any signal"
    )
    assert dataset.label == "full"


@pytest.mark.data_file(
    "Speech", kind="a sound longer than the others", loader="audio_folder", outcome="refused above a limit"
)
def test_lengths_are_limited(sounds, load):
    soundfile.write(sounds / "low" / "long.wav", tone(300, 40), RATE)
    with pytest.raises(UserError, match=r"long.wav lasts 40.0 s, more than dataset.clips.longest=30"):
        load(sounds)
    with pytest.raises(UserError, match=r"long.wav lasts 40.00 s, more than dataset.clips.seconds=0.5"):
        load(sounds, "dataset.clips.seconds=0.5")
    batch = next(load(sounds, "dataset.clips.seconds=0.5", "dataset.clips.longer=cut").train.batches(1))
    assert batch.x.shape[3] == 0.5 * RATE // 160 + 1


def test_a_folder_without_classes_is_refused(tmp_path, load):
    with pytest.raises(UserError, match="there is no folder"):
        load(tmp_path / "nowhere")
    (tmp_path / "flat").mkdir()
    with pytest.raises(UserError, match="has no class folders"):
        load(tmp_path / "flat")
    (tmp_path / "flat" / "one").mkdir()
    with pytest.raises(UserError, match="one has no sounds"):
        load(tmp_path / "flat")
    soundfile.write(tmp_path / "flat" / "one" / "a.wav", tone(300, 0.2), RATE)
    with pytest.raises(UserError, match="has one class, one"):
        load(tmp_path / "flat")


def test_trains_and_predicts_files_and_folders(sounds, words_for, execute, capsys):
    more = ["model=linear", "logger=none", "trainer.max_epochs=20", "trainer.batch_size=8"]
    folder, metrics = execute(*words_for(sounds, *more))
    assert metrics["test/accuracy"] == 1
    path = sounds / "low" / "new.wav"
    soundfile.write(path, np.stack([tone(300, 1.0)] * 2, axis=1), 44_100)
    assert predict.main([str(folder), str(path)]) == 0
    out, notes = capsys.readouterr()
    assert list(next(csv.DictReader(io.StringIO(out)))) == ["file", "label", "p(high)", "p(low)"]
    assert "the first 0.31 of its 0.36 s are judged" in notes
    assert predict.main([str(folder), str(sounds / "high")]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {row["label"] for row in rows} == {"high"}
    assert len(rows) == 12


def test_generated_sounds_have_the_shape_of_the_real_ones(sounds, load):
    real, made = load(sounds), load(sounds, "dataset.source=generated", "dataset.n_generated=8")
    assert next(made.train.batches(2)).x.shape == next(real.train.batches(2)).x.shape
    assert torch.isfinite(next(made.train.batches(8)).x).all()
