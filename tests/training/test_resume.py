"""Exact continuation: killed at any moment and resumed, a run ends bit for bit as if nothing had happened."""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dl_lab.training.continuation import Continuation
from dl_lab.training.session import Callbacks
from dl_lab.types import UserError

OVERRIDES = [
    "dataset.source=generated",
    "dataset.n_generated=1024",
    "trainer.max_epochs=5",
    "trainer.batch_size=8",
    "model=mlp",
    "model.hidden=[32]",
    "model.dropout=0.3",
    "scheduler=cosine",
    "callbacks=early_stopping",
    "callbacks.early_stopping.patience=20",
    "callbacks.curves=null",
    "callbacks.confusion_matrix=null",
    "trainer.checkpoint_seconds=0",
    "trainer.checkpoint_steps=50",
    "trainer.log_steps=10",
    "threads=1",
]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "dl_lab", *arguments]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run(command(*OVERRIDES, f"hydra.run.dir={folder}"), check=True, capture_output=True)
    return folder


def assert_same(one: Path, two: Path) -> None:
    for name in ("metrics.jsonl", "checkpoints/last.safetensors", "checkpoints/best.safetensors"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    metrics = [json.loads((folder / "summary.json").read_text())["metrics"] for folder in (one, two)]
    assert metrics[0] == metrics[1]
    assert scalars(one) == scalars(two)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar of the run as TensorBoard reads it (speed and time left out)."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    board.Reload()
    names = [n for n in board.Tags()["scalars"] if not n.startswith("speed/")]
    return {name: [(event.step, event.value) for event in board.Scalars(name)] for name in names}


def test_killed_and_resumed_is_bit_identical(uninterrupted, tmp_path):
    """Killed three times, each time a part of a second after a checkpoint. The campaign kills at 200 instants."""
    folder, rng = tmp_path / "run", random.Random(0)
    arguments = [*OVERRIDES, f"hydra.run.dir={folder}"]
    last = folder / "checkpoints" / "last.pt"
    for _ in range(3):
        written = last.stat().st_mtime_ns if last.exists() else None
        process = subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(functools.partial(is_newer, last, written), process)
        time.sleep(rng.uniform(0.0, 0.1))
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            break
        arguments = ["resume", str(folder)]
    assert arguments[0] == "resume", "the run was over before it could be killed"
    if json.loads((folder / "status.json").read_text())["state"] != "done":
        subprocess.run(command("resume", str(folder)), check=True, capture_output=True)
    assert_same(uninterrupted, folder)


def is_newer(file: Path, written: int | None) -> bool:
    """Whether a file has been written again since then."""
    try:
        return file.stat().st_mtime_ns != written
    except FileNotFoundError:  # not yet, or between two renames
        return False


def wait_for(condition, process=None, seconds: float = 60.0) -> None:
    """Until the condition holds, or the process has ended."""
    end = time.monotonic() + seconds
    while not condition() and (process is None or process.poll() is None):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_a_long_epoch_is_saved_in_its_middle(tmp_path, execute, execute_in, monkeypatch):
    """checkpoint_seconds counts within an epoch too: what crashes before its end goes on from there."""
    from dl_lab import configs as config
    from dl_lab.jobs.one import perform
    from dl_lab.runs import checkpoints
    from dl_lab.runs.board import NoBoard
    from dl_lab.runs.recorder import Run
    from dl_lab.training import trainer

    folder = tmp_path / "broken"
    words = ["dataset.source=generated", "dataset.n_generated=512", "trainer.batch_size=8", "trainer.max_epochs=1"]
    words += ["trainer.checkpoint_seconds=0", "threads=1", "logger=none"]
    words += ["callbacks.curves=null", "callbacks.confusion_matrix=null"]
    whole, _ = execute(*words)
    with monkeypatch.context() as broken, pytest.raises(UserError, match="the machine went away"):
        broken.setattr(trainer.Trainer, "_close_epoch", _go_away)
        execute_in(folder, *words)
    saved = checkpoints.load(folder / "checkpoints")
    assert saved is not None
    assert saved["epoch"] == 0
    assert 0 < saved["batch"] <= 64
    composed = config.Composer().compose(words)
    perform(Run.reopen(folder, composed.config, NoBoard()), composed.choices, quiet=True)
    for name in ("metrics.jsonl", "losses.f64", "checkpoints/last.safetensors"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


def test_checkpoints_take_a_small_part_of_the_time():
    for setting, took, due in ((10.0, 0.1, True), (10.0, 1.0, False), (30.0, 0.1, False), (0.0, 1.0, True)):
        continuation = Continuation(Callbacks({}), setting, 0)
        continuation._saved_at = time.monotonic() - 20
        continuation._save_seconds = took
        assert continuation.is_due() == due, (setting, took)


def _go_away(*_: object) -> None:
    raise UserError("the machine went away")


def test_ctrl_c_saves_and_says_how_to_go_on(uninterrupted, tmp_path):
    folder = tmp_path / "run"
    process = subprocess.Popen(command(*OVERRIDES, f"hydra.run.dir={folder}"), stderr=subprocess.PIPE, text=True)
    wait_for((folder / "checkpoints" / "last.pt").exists)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads((folder / "status.json").read_text())["state"] == "interrupted"
    assert f"dl-lab resume {folder}" in errors
    assert "Traceback" not in errors
    subprocess.run(command("resume", str(folder)), check=True, capture_output=True)
    assert_same(uninterrupted, folder)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(uninterrupted, tmp_path):
    killed = tmp_path / "killed"
    process = subprocess.Popen(command(*OVERRIDES, f"hydra.run.dir={killed}"), stderr=subprocess.DEVNULL)
    wait_for((killed / "checkpoints" / "previous.pt").exists)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (killed / "checkpoints" / "next.pt").unlink(missing_ok=True)
    last = killed / "checkpoints" / "last.pt"
    if not last.exists():  # killed between the two renames
        last.write_bytes((killed / "checkpoints" / "previous.pt").read_bytes())
    for damage in ("truncate", "flip"):
        folder = tmp_path / damage
        shutil.copytree(killed, folder)
        content = bytearray(last.read_bytes())
        if damage == "truncate":
            content = content[: len(content) // 2]
        else:
            content[len(content) // 2] ^= 0xFF
        (folder / "checkpoints" / "last.pt").write_bytes(content)
        done = subprocess.run(command("resume", str(folder)), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "last.pt is not readable" in done.stderr
        assert_same(uninterrupted, folder)


def test_all_checkpoints_damaged_is_one_sentence(tmp_path):
    from dl_lab.runs import checkpoints
    from dl_lab.types import UserError

    (tmp_path / "last.pt").write_bytes(b"nothing")
    with pytest.warns(UserWarning, match="not readable"), pytest.raises(UserError, match="Start the run again"):
        checkpoints.load(tmp_path)


def test_checkpoints_hold_no_code(tmp_path):
    """A pickled object is refused, not executed."""
    import torch

    from dl_lab.runs import checkpoints
    from dl_lab.types import UserError

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harmed"),)

    torch.save({"x": Evil()}, tmp_path / "last.pt")
    with pytest.warns(UserWarning, match="not readable"), pytest.raises(UserError):
        checkpoints.load(tmp_path)
    assert not (tmp_path / "harmed").exists()
