"""dl-lab resume: which runs it continues. (That the result is the same, bit by bit, is tested with the trainer.)"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

LONG = ("model=linear", "trainer.max_epochs=400", "trainer.checkpoint_seconds=0", "logger=none", "threads=1")


def start(tmp_path, *overrides: str) -> subprocess.Popen:
    line = [sys.executable, "-m", "dl_lab", *overrides, "hydra.run.dir=outputs/day/time_1a2b3c4d"]
    return subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def test_a_killed_run_continues_and_a_running_or_done_one_is_left_alone(command, tmp_path, wait_for):
    folder = tmp_path / "outputs" / "day" / "time_1a2b3c4d"
    with start(tmp_path, *LONG) as process:
        wait_for((folder / "checkpoints" / "last.pt").exists)
        status, _, err = command("resume", "1a2b")
        assert status == 1
        assert f"is running (process {process.pid}" in err
        process.send_signal(signal.SIGKILL)
    config = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(config.replace("max_epochs: 400", "max_epochs: 40"))
    assert command("resume", "last")[0] == 0
    epochs = [json.loads(line)["epoch"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert epochs == sorted(epochs)
    assert len(set(epochs)) == epochs[-1]
    assert json.loads((folder / "status.json").read_text())["state"] == "done"
    before = (folder / "metrics.jsonl").read_bytes()
    status, out, _ = command("resume", str(folder))
    assert status == 0
    assert "is done: nothing is left to do" in out
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_a_run_killed_before_its_first_checkpoint_begins_again(command, execute):
    folder, metrics = execute("model=linear", "trainer.max_epochs=2", "logger=none")
    (folder / "summary.json").unlink()
    for path in (folder / "checkpoints").iterdir():
        path.unlink()
    (folder / "checkpoints").rmdir()
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps({**status, "state": "running", "pid": 2**22 + 1}))
    assert command("resume", str(folder))[0] == 0
    assert json.loads((folder / "summary.json").read_text())["metrics"] == metrics
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 3  # two epochs and the look at test


HOLD = """
import sys
from pathlib import Path
from dl_lab.runs.claims import claimed
with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_that_another_command_is_about_to_continue_is_left_alone(command, execute):
    """The other command has not written its process into status.json yet."""
    folder, _ = execute("model=linear", "trainer.max_epochs=1", "logger=none")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    words = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        status, _, err = command("resume", str(folder), "trainer.max_epochs=2")
        process.kill()
    assert status == 1
    assert "Another process continues" in err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


ANALYSIS = """
class Count:
    def __call__(self, run):
        run.log({"n": 1.0}, step=0, epoch=0)
        return {"n": 1.0}
"""


def test_an_analysis_records_nothing_twice(command, execute, tmp_path, monkeypatch):
    (tmp_path / "my_analysis.py").write_text(ANALYSIS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("DL_LAB_ALLOW", "my_analysis")
    folder, _ = execute("~procedure", "+procedure._target_=my_analysis.Count", "logger=none")
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps({**status, "state": "interrupted"}))
    assert command("resume", str(folder))[0] == 0
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 1


def test_a_config_that_was_made_dangerous_is_refused(command, execute):
    folder, _ = execute("model=linear", "trainer.max_epochs=1", "logger=none")
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps({**status, "state": "interrupted"}))
    text = (folder / "config.yaml").read_text().replace("dl_lab.models.linear.Linear", "os.system")
    (folder / "config.yaml").write_text(text)
    status, _, err = command("resume", str(folder))
    assert status == 2
    assert "os.system is not allowed in a config" in err
    assert os.environ.get("HYDRA_FULL_ERROR") is None
