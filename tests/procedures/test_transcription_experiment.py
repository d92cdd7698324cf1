"""A speech experiment end to end: its figures, its audio, and `dl-lab predict` on recordings."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
import soundfile
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dl_lab.commands import predict
from dl_lab.datasets.speech.clips import generate_clips
from dl_lab.datasets.speech.tones import speak
from dl_lab.types import UserError

pytestmark = pytest.mark.figures

SMALL = ["profile=smoke", "dataset.n_generated=16", "procedure.n_texts=3", "procedure.n_shown=2"]


EXPERIMENTS = ["tone_speech_attention", "tone_speech_ctc"]


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in EXPERIMENTS]
)
def finished(request, execute_in, tmp_path_factory):
    folder = tmp_path_factory.mktemp("speech") / "run"
    return folder, execute_in(folder, f"experiment={request.param}", *SMALL, "procedure.n_train_texts=16")


def rows(folder, name):
    with open(folder / "tables" / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_target_and_transcript_side_by_side(finished):
    folder, metrics = finished
    clips = generate_clips(16)
    got = rows(folder, "transcripts")
    assert [(row["clip"], row["spoken"]) for row in got] == [(c.name, c.text[:14]) for c in clips["test"][:3]]
    train = rows(folder, "train_transcripts")
    assert [row["clip"] for row in train] == [clip.name for clip in clips["train"]]
    mean = np.mean([float(row["jaccard"]) for row in train])
    assert metrics["train/jaccard"] == pytest.approx(mean)
    assert 0 <= metrics["test/jaccard"] <= 1 and metrics["test/cer"] > 0


def test_pictures_and_sound(finished):
    folder, _ = finished
    for name in ("spectrograms", "alignments", "learning_curves"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 2000
        assert rows(folder, name)
    clip = generate_clips(16)["test"][0]
    samples, rate = soundfile.read(folder / "audio" / f"{clip.name}.wav", dtype="float32")
    assert rate == 22_050
    np.testing.assert_allclose(samples, clip.source, atol=1e-4)


def test_tensorboard_plays_and_shows_them(finished):
    folder, _ = finished
    board = EventAccumulator(str(folder), {"audio": 0, "tensors": 0, "images": 0}).Reload()
    assert len(board.Tags()["audio"]) == 2
    (event,) = board.Audio(board.Tags()["audio"][0])
    samples, rate = soundfile.read(io.BytesIO(event.encoded_audio_string))
    assert (rate, event.sample_rate, event.length_frames) == (22_050, 22_050, len(samples))
    assert {"pictures/spectrograms", "pictures/alignments"} <= set(board.Tags()["images"])
    (text,) = (tag for tag in board.Tags()["tensors"] if tag.startswith("transcripts"))
    assert b"| clip |" in board.Tensors(text)[0].tensor_proto.string_val[0]


@pytest.fixture
def transcribe(finished, tmp_path, capsys):
    """Write samples as a WAV and predict; return the rows."""

    def run(samples, *overrides, rate=22_050):
        soundfile.write(tmp_path / "new.wav", samples, rate, subtype="PCM_16")
        assert predict.main([str(finished[0]), str(tmp_path / "new.wav"), *overrides]) == 0
        return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))

    return run


def test_predict_writes_what_the_run_wrote(finished, transcribe):
    """The prediction equals the transcript in the run's own table."""
    for row in rows(finished[0], "transcripts")[:2]:
        samples, _ = soundfile.read(finished[0] / "audio" / f"{row['clip']}.wav")
        (predicted,) = transcribe(samples)
        assert predicted["text"] == row["written"]
        assert float(predicted["end"]) == pytest.approx(len(samples) / 22_050, abs=1e-3)


@pytest.mark.parametrize(
    ("samples", "rate"),
    [
        (np.zeros(22_050), 22_050),
        (np.zeros(1), 22_050),
        (np.full(1, 0.5), 22_050),
        (np.random.default_rng(0).normal(scale=0.1, size=(16_000, 2)), 16_000),
        (np.random.default_rng(0).normal(scale=0.1, size=(3, 1)), 48_000),
    ],
    ids=["silence", "one sample", "one loud sample", "16 kHz stereo", "three samples at 48 kHz"],
)
def test_odd_recordings_are_transcribed(transcribe, samples, rate):
    (row,) = transcribe(samples, rate=rate)
    assert row.keys() == {"start", "end", "text"}


def test_a_finished_run_predicts_by_beam_search(transcribe):
    """The predictor asks its task, and the task searches."""
    samples = speak("some words", seed=0)
    assert transcribe(samples, "task.beams=1") == transcribe(samples)
    (row,) = transcribe(samples, "task.beams=5")
    assert row.keys() == {"start", "end", "text"}


def test_a_long_recording_comes_in_pieces(transcribe):
    samples = np.concatenate([speak("abc", seed=0)] * 4)
    pieces = transcribe(samples, "seconds=0.5")
    assert len(pieces) == -(-len(samples) // 11_024)
    assert [row["start"] for row in pieces[1:]] == [row["end"] for row in pieces[:-1]]


def test_a_recording_that_cannot_be_read_is_one_sentence(finished, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(UserError, match=r"broken.wav is not a readable sound file"):
        predict.main([str(finished[0]), str(tmp_path / "broken.wav")])
    soundfile.write(tmp_path / "good.wav", np.zeros(100), 22_050)
    for seconds in ("-1", "60"):  # the models have positions for 20 seconds
        with pytest.raises(UserError, match=f"seconds={seconds} must be above 0 and at most 20.0, the model's limit"):
            predict.main([str(finished[0]), str(tmp_path / "good.wav"), f"seconds={seconds}"])
