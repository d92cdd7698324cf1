"""Transcripts while a speech model learns: every few epochs, also after a resume, and the training stays the same."""

from __future__ import annotations

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dl_lab import configs as config
from dl_lab.commands import resume
from dl_lab.datasets.speech.clips import generate_clips
from dl_lab.runs.files import read_records
from dl_lab.training.transcripts import FILE, Transcripts
from dl_lab.types import Interrupted, UserError

pytestmark = pytest.mark.figures

# Dropout and SpecAugment draw while the first one trains.
KINDS = {"attention": ["task=transcription_augmented", "task.mask_padding=true"], "lstm": [], "ctc": []}
SMALL = [
    "dataset.n_generated=32",
    "trainer.max_epochs=3",
    "trainer.batch_size=16",
    "trainer.checkpoint_seconds=0",
    "procedure.n_texts=1",
    "procedure.n_shown=1",
    "callbacks.curves=null",
]
SHOWN = ["callbacks.transcripts.every=2", "callbacks.transcripts.clips=3"]


@pytest.fixture(
    scope="module", params=[pytest.param(kind, marks=pytest.mark.xdist_group(f"transcripts {kind}")) for kind in KINDS]
)
def finished(request, execute_in, tmp_path_factory):
    """(words of the experiment, folder) of three epochs."""
    words = [f"experiment=tone_speech_{request.param}", *KINDS[request.param], *SMALL]
    folder = tmp_path_factory.mktemp("transcripts") / "run"
    execute_in(folder, *words, *SHOWN)
    return words, folder


def texts(folder):
    """(step, markdown) of every text that TensorBoard shows."""
    board = EventAccumulator(str(folder), {"tensors": 0, "images": 0}).Reload()
    (tag,) = (tag for tag in board.Tags()["tensors"] if tag.startswith("val_transcripts"))
    return [(event.step, event.tensor_proto.string_val[0].decode()) for event in board.Tensors(tag)]


def test_the_same_clips_every_few_epochs_and_after_the_last(finished):
    _, folder = finished
    records = read_records(folder / FILE)
    clips = generate_clips(32)["val"][:3]
    assert [record["epoch"] for record in records] == [2, 2, 2, 3, 3, 3]
    assert [(r["clip"], r["spoken"]) for r in records] == [(clip.name, clip.text[:14]) for clip in clips] * 2
    assert all(record["cer"] >= 0 for record in records)
    assert [step for step, _ in texts(folder)] == [4, 6]  # two updates an epoch
    for record in records[:3]:
        assert f"| {record['clip']} | {record['spoken']} | |" in texts(folder)[0][1]
        assert f"| | **{record['written']}** | {record['cer']:.2f} |" in texts(folder)[0][1]


def test_each_set_of_transcripts_has_an_alignment(finished):
    _, folder = finished
    board = EventAccumulator(str(folder), {"images": 0}).Reload()
    assert [event.step for event in board.Images("pictures/val_alignment")] == [4, 6]
    assert (folder / "figures" / "val_alignment.png").stat().st_size > 2000
    assert (folder / "tables" / "val_alignment.csv").read_text().count("epoch 3") > 0


def test_the_training_is_the_same_without_transcripts(finished, execute_in, tmp_path):
    """What is written between epochs draws no random number."""
    words, folder = finished
    execute_in(tmp_path / "run", *words, "callbacks.transcripts=null")
    assert not (tmp_path / "run" / FILE).exists()
    for name in ("weights.jsonl", "losses.f64", "metrics.jsonl", "checkpoints/last.safetensors"):
        assert (folder / name).read_bytes() == (tmp_path / "run" / name).read_bytes(), name


def test_a_resumed_run_shows_each_epoch_once(finished, execute_in, tmp_path, monkeypatch):
    words, folder = finished
    show = Transcripts.epoch_end

    def stop(callback, session, metrics):
        show(callback, session, metrics)
        if session.epoch == 2:  # shown, but no checkpoint has been written since
            raise Interrupted("stop")

    with monkeypatch.context() as patch:
        patch.setattr(Transcripts, "epoch_end", stop)
        with pytest.raises(Interrupted):
            execute_in(tmp_path / "run", *words, *SHOWN)
    assert len(read_records(tmp_path / "run" / FILE)) == 3
    assert resume.main([str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / FILE).read_bytes() == (folder / FILE).read_bytes()
    assert texts(tmp_path / "run") == texts(folder)
    assert (tmp_path / "run" / "checkpoints" / "last.safetensors").read_bytes() == (
        folder / "checkpoints" / "last.safetensors"
    ).read_bytes()


def test_every_speech_experiment_shows_transcripts():
    from dl_lab.configs.catalogue import experiments

    names = [experiment.name for experiment in experiments() if "speech" in experiment.name]
    assert len(names) > 8
    for name in names:
        composed = config.Composer().compose([f"experiment={name}"]).config
        assert composed["callbacks"]["transcripts"]["_target_"].endswith("Transcripts"), name


def test_a_fit_without_speech_is_refused(execute):
    with pytest.raises(UserError, match=r"callbacks\.transcripts=null"):
        execute("callbacks=speech", "dataset.source=generated", "trainer.max_epochs=1")
    with pytest.raises(ValueError, match="every 0"):
        Transcripts(every=0)
    with pytest.raises(ValueError, match="clips 0"):
        Transcripts(clips=0)
