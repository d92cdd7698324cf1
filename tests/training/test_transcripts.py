"""What a speech model writes while it learns: shown every few epochs, after a resume too, without changing anything."""

from __future__ import annotations

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dl_lab import config
from dl_lab.commands import resume
from dl_lab.datasets.lj_speech import generated_clips
from dl_lab.run import read_records
from dl_lab.training.transcripts import FILE, Transcripts
from dl_lab.types import Interrupted, UserError

KINDS = ["attention", "lstm", "ctc"]
SMALL = [
    "dataset.n_generated=32",
    "trainer.max_epochs=5",
    "trainer.batch_size=16",
    "trainer.checkpoint_seconds=0",
    "procedure.n_texts=1",
    "procedure.n_shown=1",
    "callbacks.curves=null",
]
SHOWN = ["callbacks.transcripts.every=2", "callbacks.transcripts.clips=3"]


@pytest.fixture(scope="module", params=KINDS)
def finished(request, execute_in, tmp_path_factory):
    """(experiment, folder) of five epochs."""
    experiment, folder = f"experiment=tone_speech_{request.param}", tmp_path_factory.mktemp("transcripts") / "run"
    execute_in(folder, experiment, *SMALL, *SHOWN)
    return experiment, folder


def texts(folder):
    """(step, markdown) of every text that TensorBoard shows."""
    board = EventAccumulator(str(folder), {"tensors": 0, "images": 0}).Reload()
    (tag,) = (tag for tag in board.Tags()["tensors"] if tag.startswith("val_transcripts"))
    return [(event.step, event.tensor_proto.string_val[0].decode()) for event in board.Tensors(tag)]


def test_the_same_clips_every_few_epochs_and_after_the_last(finished):
    _, folder = finished
    records = read_records(folder / FILE)
    clips = generated_clips(32)["val"][:3]
    assert [record["epoch"] for record in records] == [2, 2, 2, 4, 4, 4, 5, 5, 5]
    assert [(r["clip"], r["spoken"]) for r in records] == [(clip.name, clip.text[:14]) for clip in clips] * 3
    assert all(record["cer"] >= 0 for record in records)
    assert [step for step, _ in texts(folder)] == [4, 8, 10]  # two updates an epoch
    for record in records[:3]:
        assert f"| {record['clip']} | {record['spoken']} | |" in texts(folder)[0][1]
        assert f"| | **{record['written']}** | {record['cer']:.2f} |" in texts(folder)[0][1]


def test_where_it_looked_is_a_figure_of_each_time(finished):
    _, folder = finished
    board = EventAccumulator(str(folder), {"images": 0}).Reload()
    assert [event.step for event in board.Images("val_alignment")] == [4, 8, 10]
    assert (folder / "figures" / "val_alignment.png").stat().st_size > 2000
    assert (folder / "tables" / "val_alignment.csv").read_text().count("epoch 5") > 0


def test_training_is_the_same_without_it(finished, execute_in, tmp_path):
    experiment, folder = finished
    execute_in(tmp_path / "run", experiment, *SMALL, "callbacks.transcripts=null")
    assert not (tmp_path / "run" / FILE).exists()
    for name in ("weights.jsonl", "losses.f64", "metrics.jsonl", "checkpoints/last.safetensors"):
        assert (folder / name).read_bytes() == (tmp_path / "run" / name).read_bytes(), name


def test_the_numbers_drawn_afterwards_are_the_same(execute_in, tmp_path):
    """Dropout and SpecAugment draw while training: what is written between epochs draws nothing."""
    words = ["experiment=tone_speech_attention", "task=transcription_augmented", "task.mask_padding=true", *SMALL]
    for name, more in (("with", SHOWN), ("without", ["callbacks.transcripts=null"])):
        execute_in(tmp_path / name, *words, *more)
    losses = [(tmp_path / name / "losses.f64").read_bytes() for name in ("with", "without")]
    assert losses[0] == losses[1]


def test_a_resumed_run_shows_each_epoch_once(finished, execute_in, tmp_path, monkeypatch):
    experiment, folder = finished
    show = Transcripts.epoch_end

    def stop(callback, session, metrics):
        show(callback, session, metrics)
        if session.epoch == 4:  # shown, but no checkpoint has been written since
            raise Interrupted("stop")

    with monkeypatch.context() as patch:
        patch.setattr(Transcripts, "epoch_end", stop)
        with pytest.raises(Interrupted):
            execute_in(tmp_path / "run", experiment, *SMALL, *SHOWN)
    assert len(read_records(tmp_path / "run" / FILE)) == 6
    assert resume.main([str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / FILE).read_bytes() == (folder / FILE).read_bytes()
    assert texts(tmp_path / "run") == texts(folder)
    assert (tmp_path / "run" / "checkpoints" / "last.safetensors").read_bytes() == (
        folder / "checkpoints" / "last.safetensors"
    ).read_bytes()


def test_every_speech_experiment_shows_them():
    from dl_lab.catalogue import experiments

    names = [experiment.name for experiment in experiments() if "speech" in experiment.name]
    assert len(names) > 8
    for name in names:
        composed = config.Composer().compose([f"experiment={name}"]).config
        assert composed["callbacks"]["transcripts"]["_target_"].endswith("Transcripts"), name


def test_what_cannot_be_shown_is_refused(execute):
    with pytest.raises(UserError, match=r"callbacks\.transcripts=null"):
        execute("callbacks=speech", "dataset.source=generated", "trainer.max_epochs=1")
    with pytest.raises(ValueError, match="every 0"):
        Transcripts(every=0)
    with pytest.raises(ValueError, match="clips 0"):
        Transcripts(clips=0)
