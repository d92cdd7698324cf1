"""Runs whose data, outputs or folders moved since they began."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

import dl_lab
from dl_lab.runs.find import find_newest_run, find_run

SHORT = ("model=linear", "trainer.max_epochs=2", "threads=1", "logger=none", "callbacks.curves=null")
OCT = ("dataset=octmnist", "dataset.test_set=all", "trainer.batch_size=4", "callbacks.confusion_matrix=null", *SHORT)


@pytest.fixture
def data(tmp_path) -> Path:
    """A folder d1 with a tiny octmnist.npz."""
    folder = tmp_path / "d1"
    folder.mkdir()
    draw = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", 16), ("val", 8), ("test", 8)):
        arrays[f"{split}_images"] = draw.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(n, dtype=np.uint8)[:, None] % 4
    np.savez(folder / "octmnist.npz", **arrays)
    return folder


def state(folder: Path) -> str:
    return json.loads((folder / "status.json").read_text())["state"]


def set_state(folder: Path, state: str) -> None:
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps({**status, "state": state}))


def test_a_run_uses_the_current_data_folder(command, data, tmp_path, monkeypatch):
    monkeypatch.setenv("DL_LAB_DATA", str(data))
    status, _, err = command(*OCT, "hydra.run.dir=outputs/day/time_1a2b3c4d")
    assert status == 0, err
    folder = tmp_path / "outputs" / "day" / "time_1a2b3c4d"
    data.rename(tmp_path / "d2")

    set_state(folder, "interrupted")
    before = json.loads((folder / "status.json").read_text())
    status, _, err = command("resume", "1a2b")
    assert status != 0
    assert "missing here" in err
    assert "changed" not in err
    assert json.loads((folder / "status.json").read_text()) == before, "a resume that could not begin changed the state"

    monkeypatch.setenv("DL_LAB_DATA", str(tmp_path / "d2"))
    assert command("resume", "1a2b")[0] == 0
    assert state(folder) == "done"
    status, out, err = command("verify", "1a2b")
    assert status == 0, out + err
    assert command("export", "1a2b")[0] == 0
    loaded = dl_lab.load(folder)
    assert len(repr(loaded).splitlines()) <= 10
    assert "Linear" in repr(loaded)
    assert len(loaded.dataset.train) == 16


def test_a_typed_data_folder_stays(command, data, tmp_path, monkeypatch):
    status, _, err = command(*OCT, f"paths.data_dir={data}", "hydra.run.dir=outputs/day/time_1a2b3c4d")
    assert status == 0, err
    folder = tmp_path / "outputs" / "day" / "time_1a2b3c4d"
    set_state(folder, "interrupted")
    monkeypatch.setenv("DL_LAB_DATA", str(tmp_path / "elsewhere"))
    assert command("resume", "1a2b")[0] == 0


def test_a_resume_that_fails_while_it_builds_changes_no_state(command, execute):
    folder, _ = execute(*SHORT, "dataset.source=generated")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["procedure"]["learner"]["optimizer"]["lr"] = -1.0
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    set_state(folder, "interrupted")
    before = json.loads((folder / "status.json").read_text())
    status, _, err = command("resume", str(folder))
    assert status != 0
    assert "Invalid learning rate" in err
    assert json.loads((folder / "status.json").read_text()) == before


def test_last_is_the_run_that_started_last(make_run, tmp_path):
    first, second = make_run(), make_run()
    copied = tmp_path / "outputs" / "2026-01-02" / "09-00-00_ffffffff"
    shutil.copytree(first, copied)
    os.utime(first / "status.json")
    assert find_newest_run(tmp_path / "outputs") == second
    assert find_run("last", tmp_path / "outputs") == second


def test_clean_keeps_what_can_be_resumed(command, make_run, tmp_path):
    plain, resumable = make_run(state="failed"), make_run(state="failed")
    (resumable / "checkpoints").mkdir()
    (resumable / "checkpoints" / "last.pt").write_bytes(b"x")
    _, out, _ = command("clean", "--failed")
    assert f"dl-lab resume {resumable.relative_to(tmp_path)}" in out
    again = out.strip().rpartition("Do it:  dl-lab ")[2].split()
    assert command(*again)[0] == 0
    assert not plain.exists()
    assert resumable.exists()


FOREIGN = ["[]", "3", "{", '{"state": 3}', '{"state": "ok"}', '{"state": "running", "pid": "x", "host": 4}']


@pytest.mark.parametrize("text", [*FOREIGN, '{"state": "done", "error": "x", "dataset": 3, "started": 4}'])
def test_a_foreign_status_file_stops_no_verb(command, make_run, tmp_path, text):
    make_run(), make_run(lr=0.2)
    other = tmp_path / "outputs" / "other_program"
    other.mkdir()
    for name in ("status.json", "summary.json", "env.json"):
        (other / name).write_text(text)
    for words in (("runs",), ("compare",), ("clean",), ("diff", "00000000", "00000001")):
        status, out, err = command(*words)
        assert status == 0, out + err


def test_a_damaged_run_is_still_listed(command, make_run):
    folder = make_run()
    (folder / "status.json").write_text("{")
    (folder / "metrics.jsonl").write_text("{\nnot json\n")
    (folder / "summary.json").unlink()
    _, out, _ = command("runs")
    assert "unreadable" in out
