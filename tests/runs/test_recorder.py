"""A run's folder: never an old one, readable at every instant, and one sentence where it cannot be written."""

from __future__ import annotations

import csv
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch

from dl_lab.runs.board import NoBoard
from dl_lab.runs.environment import describe_environment
from dl_lab.runs.files import read_json, read_losses, read_records, to_json, write_atomic
from dl_lab.runs.recorder import Run
from dl_lab.types import Interrupted, UserError

SMOKE = [
    "dataset.source=generated",
    "dataset.n_generated=64",
    "trainer.max_epochs=40",
    "hydra.run.dir=run",
    "threads=1",
]


@pytest.fixture
def run(tmp_path) -> Run:
    return Run.create(tmp_path / "run", {".hydra/overrides.yaml": "[]"}, {"a": 1}, NoBoard(), {"host": "x"})


# -- the folder ---------------------------------------------------------------------------------------------------


def test_an_older_runs_folder_is_refused_and_untouched(lab, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_text("old")
    done = lab(*SMOKE)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("dl-lab: run exists already") and len(done.stderr.splitlines()) == 1
    assert [(path.name, path.read_text()) for path in (tmp_path / "run").iterdir()] == [("metrics.jsonl", "old")]


@pytest.mark.parametrize("folder", ["outputs/2026/run", "outputs"])
def test_a_file_in_the_place_of_the_outputs_folder_is_one_sentence(lab, tmp_path, folder):
    """A file stands for a folder without permission to write, because root may write everywhere."""
    (tmp_path / "outputs").write_text("a file")
    done = lab(*SMOKE, f"hydra.run.dir={folder}")
    assert done.returncode == 1
    assert done.stderr.startswith("dl-lab: ") and folder in done.stderr and len(done.stderr.splitlines()) == 1
    assert (tmp_path / "outputs").read_text() == "a file"


def test_config_and_environment_are_written_before_any_work(run):
    assert (run.folder / ".hydra" / "overrides.yaml").read_text() == "[]"
    assert read_json(run.folder / "env.json") == {"host": "x"}


def test_an_interruption_right_after_the_first_status_is_recorded(run, monkeypatch):
    def interrupted(thread):
        assert read_json(run.folder / "status.json")["state"] == "running"
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt), run.recording():
        pytest.fail("the work began")
    assert read_json(run.folder / "status.json")["state"] == "interrupted"


def test_a_run_for_another_process_is_queued(tmp_path):
    run = Run.create(tmp_path / "run", {}, {}, NoBoard(), {}, queued=True)
    assert read_json(run.folder / "status.json")["state"] == "queued"


def test_the_environment_names_what_a_result_depends_on():
    facts = describe_environment(["dl-lab", "a=b c"])
    assert facts["command"] == "dl-lab 'a=b c'"
    assert facts["packages"]["torch"].startswith("2.")
    assert facts["cores"] >= 1 and facts["cpu"] and facts["python"].startswith("3.")


def test_uncommitted_changes_are_kept_without_secrets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    for name in ("model.py", "my.env", "api_secret.txt"):
        Path(name).write_text("before\n")
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-qm", "first"], check=True)
    for name in ("model.py", "my.env", "api_secret.txt"):
        Path(name).write_text("after\n")
    facts = describe_environment(["dl-lab"])
    assert facts["git"]["dirty"] and len(facts["git"]["sha"]) == 40
    assert "model.py" in facts["diff"] and "my.env" not in facts["diff"] and "api_secret" not in facts["diff"]


# -- a life -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "state"), [(None, "done"), (Interrupted("x"), "interrupted"), (ValueError("x"), "failed")]
)
def test_the_status_says_how_the_run_ended(run, raised, state):
    def work() -> None:
        with run.recording():
            assert read_json(run.folder / "status.json")["state"] == "running"
            if raised is not None:
                raise raised

    if raised is None:
        work()
    else:
        with pytest.raises(type(raised)):
            work()
    status = read_json(run.folder / "status.json")
    assert status["state"] == state
    assert ("error" in status) == (state == "failed")
    assert status["pid"] == os.getpid() and status["started"] <= status["ended"]


def test_facts_of_a_status_survive_its_heartbeat(run):
    """Two threads write the status. Neither may undo what the other has written."""
    threads = [threading.Thread(target=run.set_status, args=("running",), kwargs={f"fact{i}": i}) for i in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    status = read_json(run.folder / "status.json")
    assert {key: status[key] for key in status if key.startswith("fact")} == {f"fact{i}": i for i in range(30)}


# -- records ------------------------------------------------------------------------------------------------------


def test_values_and_timings_go_to_files_of_their_own(run):
    run.log({"loss": 0.5}, step=3, epoch=1, timings={"speed": 9.0})
    run.log({"loss": float("nan")}, step=4, epoch=1)
    assert (run.folder / "metrics.jsonl").read_text() == (
        '{"epoch": 1, "step": 3, "loss": 0.5}\n{"epoch": 1, "step": 4, "loss": null}\n'
    )
    assert read_records(run.folder / "timings.jsonl")[0]["speed"] == 9.0
    assert [record["loss"] for record in run.records()] == [0.5, None]


@pytest.mark.parametrize("value", [np.float32(0.5), np.array(0.5), torch.tensor(0.5)])
def test_metrics_of_numpy_and_torch_become_plain_numbers(run, value):
    """Not their text: `runs` and `compare` would leave it out without a word."""
    run.log({"loss": value}, step=1, epoch=1)
    run.finish({"loss": value})
    assert run.records()[0]["loss"] == run.summary["metrics"]["loss"] == 0.5
    assert type(run.summary["metrics"]["loss"]) is float


@pytest.mark.parametrize("value", ["good", np.ones(2), torch.ones(2), [1.0], None])
def test_a_metric_that_is_no_number_is_one_sentence(run, value):
    with pytest.raises(UserError, match="The metric loss must be a number; it is of the type"):
        run.log({"loss": value}, step=1, epoch=1)
    with pytest.raises(UserError, match="The metric loss must be a number"):
        run.finish({"loss": value})
    assert not (run.folder / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ("loss", "Metrics must be a dictionary of numbers"),
        ({1: 0.5}, "The name of a metric must be a text, not 1"),
        ({"": 0.5}, "The name of a metric must be a text, not ''"),
        ({"epoch": 3}, "A metric cannot be called epoch"),
        ({"step": 3}, "A metric cannot be called step"),
    ],
)
def test_metrics_without_proper_names_are_one_sentence(run, metrics, words):
    """A metric called step would have replaced the step of its record."""
    with pytest.raises(UserError, match=words):
        run.log(metrics, step=1)
    assert not (run.folder / "metrics.jsonl").exists()


def test_the_step_is_a_whole_number(run):
    run.log({"loss": 0.5}, step=np.int64(3))
    with pytest.raises(UserError, match=r"The step of run.log must be a whole number, not 1.5"):
        run.log({"loss": 0.5}, step=1.5)
    assert [record["step"] for record in run.records()] == [3]


def test_a_loop_without_epochs_counts_its_steps_as_epochs(run):
    run.log({"loss": 0.5}, step=7)
    assert run.records() == [{"epoch": 7, "step": 7, "loss": 0.5}]


def test_a_metric_with_a_gradient_is_read_without_a_warning(run, recwarn):
    run.log({"loss": torch.ones(1, requires_grad=True).sum()}, step=1)
    assert run.records()[0]["loss"] == 1.0
    assert not recwarn.list


class Frame:
    """Like a data frame of pandas: iterating gives the names of its columns."""

    def __iter__(self):
        return iter(["a"])

    def to_dict(self, orient):
        return [{"a": 1}]


def _make_part(run, name):
    with run.part(name):
        pass


def test_several_records_are_appended_in_their_order(run):
    run.append("own.jsonl", {"a": 1})
    run.append("own.jsonl", {"a": 2}, {"a": 3})
    assert run.records("own.jsonl") == [{"a": 1}, {"a": 2}, {"a": 3}]


@pytest.mark.parametrize("name", ["../evil", "a/b", "a\\b", "..", ".hidden", "", None])
@pytest.mark.parametrize(
    "record",
    [
        lambda run, name: run.table(name, [{"a": 1}]),
        lambda run, name: run.figure(name, None, []),
        lambda run, name: run.facts(name, {}),
        lambda run, name: run.append(name, {}),
        lambda run, name: run.audio(name, np.zeros(8), 8000),
        lambda run, name: run.embedding(name, [[1.0]], ["a"]),
        _make_part,
    ],
    ids=["table", "figure", "facts", "append", "audio", "embedding", "part"],
)
def test_nothing_is_recorded_outside_the_run(run, record, name):
    before = set(run.folder.parent.rglob("*"))
    with pytest.raises(UserError, match="A run's file cannot be called"):
        record(run, name)
    assert set(run.folder.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (lambda run: run.table("t", {"a": [1, 2]}), "must be a list of dictionaries, one for each row."),
        (lambda run: run.table("t", Frame()), r"of a data frame, table.to_dict\('records'\)"),
        (lambda run: run.figure("f", [], []), "The figure f must be a matplotlib Figure, not list"),
        (lambda run: run.facts("summary", {}), "dl-lab itself writes summary.json"),
        (lambda run: run.append("metrics.jsonl", {"loss": 1.0}), "dl-lab itself writes metrics.jsonl"),
        (lambda run: run.append("x.txt", {}), "run.append takes the name of a .jsonl file"),
        (lambda run: run.append("x.jsonl", "abc"), "run.append takes the name of a .jsonl file and a dictionary"),
        (lambda run: run.audio("x", np.zeros((2, 100)), 8000), r"must have the shape \(n,\), one channel"),
        (lambda run: run.embedding("x", torch.zeros(3, 2), ["a"]), "has 3 vectors and 1 labels"),
        (lambda run: run.checkpoint(torch.nn.Linear(1, 1)), "run.checkpoint takes a dictionary"),
    ],
)
def test_a_wrong_record_is_one_sentence(run, record, words):
    with pytest.raises(UserError, match=words):
        record(run)


def test_the_rows_of_a_table_may_come_from_a_generator(run):
    path = run.table("t", ({"a": number} for number in range(2)))
    assert path.read_text().split() == ["a", "0", "1"]


def test_labels_of_an_embedding_may_be_numbers(run):
    run.embedding("x", torch.zeros(2, 2), [3, 4])
    assert (run.folder / "projector" / "x_labels.tsv").read_text() == "3\n4\n"


def test_a_record_cut_short_by_a_kill_is_left_out(run):
    run.log({"loss": 0.5}, 1, 1)
    with open(run.folder / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 1, "st')
    assert len(run.records()) == 1


def test_tables_hold_every_column_of_every_row(run):
    path = run.table("pairs", [{"a": 1, "b": "x, y"}, {"a": 2, "c": 3}])
    assert list(csv.DictReader(path.read_text().splitlines())) == [
        {"a": "1", "b": "x, y", "c": ""},
        {"a": "2", "b": "", "c": "3"},
    ]


def test_a_figure_is_kept_with_its_rows(run):
    from dl_lab.show import plots

    rows = [{"epoch": i, "loss": 1 / i} for i in (1, 2, 3)]
    path = run.figure("curve", plots.curves(rows, "epoch", "Loss"), rows)
    assert path.read_bytes().startswith(b"\x89PNG")
    assert len((run.folder / "tables" / "curve.csv").read_text().splitlines()) == 4


def test_json_is_strict():
    values = {"a": float("inf"), "b": [float("nan"), 1.5], "c": {"d": (1, "x")}}
    assert json.loads(to_json(values)) == {"a": None, "b": [None, 1.5], "c": {"d": [1, "x"]}}


def test_indented_json_is_strict_too():
    facts = {"state": "done", "lists": [1, [2, math.nan]], "dataset": {"sizes": {"train": 5}}, "none": {}}
    text = to_json(facts, indent=1)
    assert json.loads(text) == {**facts, "lists": [1, [2, None]]}
    assert ' "state": "done",' in text.splitlines()


def test_json_takes_any_mapping_and_sequence_and_turns_the_rest_into_text():
    plain = {"a": MappingProxyType({"b": range(2)}), "c": Path("x"), "d": b"y"}
    for more in ({}, {"n": float("nan")}, {(1, 2): 3}):  # also where it has to be gone through
        found = json.loads(to_json({**plain, **more}))
        assert {key: found[key] for key in plain} == {"a": {"b": [0, 1]}, "c": "x", "d": "b'y'"}


@pytest.mark.parametrize("more", [{}, {"n": float("nan")}])
def test_json_and_tables_keep_the_numbers_of_numpy_and_torch(run, more):
    """As text, "tensor(2)" or "0.5", nobody could compute with them."""
    values = {"a": np.float32(0.5), "b": torch.tensor(2), "c": np.ones(2), "d": {"e": [torch.ones(1), np.int64(3)]}}
    found = json.loads(to_json({**values, **more}))
    assert {key: found[key] for key in values} == {"a": 0.5, "b": 2, "c": [1.0, 1.0], "d": {"e": [[1.0], 3]}}
    path = run.table("numbers", [{"a": np.float32(0.5), "b": torch.tensor(2)}])
    assert path.read_text().splitlines() == ["a,b", "0.5,2"]


def test_json_writes_null_for_an_array_that_is_not_finite():
    assert json.loads(to_json({"a": np.array([1.0, np.inf]), "b": torch.tensor(float("nan"))})) == {
        "a": [1, None],
        "b": None,
    }


def test_cutting_back_removes_the_records_after_a_checkpoint(run):
    run.log({"loss": 1.0}, 1, 1)
    positions = run.positions()
    run.log({"loss": 2.0}, 2, 2, timings={"speed": 1.0})
    run.cut_back(positions)
    assert [record["loss"] for record in run.records()] == [1.0]
    assert not (run.folder / "timings.jsonl").exists()


def test_records_are_readable_at_once_and_nothing_stays_open(run):
    held = set(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else set()
    with run.recording(), run.part("first") as part:
        for step in (1, 2):
            run.losses([step / 2])
            run.log({"loss": 1.0}, step, 1)
            part.log({"loss": 1.0}, step, 1)
            assert read_losses(run.folder) == [0.5, 1.0][:step]
            assert [len(run.records()), len(part.records())] == [step, step]
        positions = run.positions()
        run.losses([2.0])
        run.cut_back(positions)
        run.losses([3.0])
        assert read_losses(run.folder) == [0.5, 1.0, 3.0]
    assert not held or set(os.listdir("/proc/self/fd")) <= held


def test_readers_never_see_a_half_written_file(tmp_path):
    """One thread writes a file again and again, another reads it. It always finds one of the two whole texts."""
    path, texts, stop, wrong = tmp_path / "file", ("a" * 50_000, "b" * 70_000), threading.Event(), []
    write_atomic(path, texts[0])

    def read() -> None:
        while not stop.is_set():
            if path.read_text() not in texts:
                wrong.append(path.read_text()[:10])

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(60):
        write_atomic(path, texts[i % 2])
    stop.set()
    reader.join()
    assert not wrong
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


# -- a full disk --------------------------------------------------------------------------------------------------


def in_little_room(folder: Path, kilobytes: int, *command: str) -> subprocess.CompletedProcess:
    """Run a command in a file system of that size: a tmpfs in a mount namespace of its own."""
    folder.mkdir()
    mount = f'mount -t tmpfs -o size={kilobytes}k tmpfs {folder} && cd {folder} && exec "$@"'
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    unshare = ["unshare", "--mount", "--map-root-user"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"], capture_output=True).returncode != 0:  # noqa: PLW1510
        pytest.skip("this machine gives no mount namespace for a small file system")
    return subprocess.run(
        [*unshare, "sh", "-c", mount + "; status=$?; exit $status", "sh", *command],
        capture_output=True, text=True, check=False, env=environment, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("kilobytes", [60, 400, 2000])
def test_a_full_disk_is_one_sentence(tmp_path, kilobytes):
    """The disk is full at the first files, at the first checkpoint, and in the middle of the training."""
    command = [sys.executable, "-m", "dl_lab", *SMOKE, "trainer.checkpoint_seconds=0", "trainer.log_steps=1"]
    done = in_little_room(tmp_path / "disk", kilobytes, *command)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("dl-lab: Cannot write") and "No space left on device" in last, done.stderr


def test_a_limit_on_the_size_of_files_is_one_sentence(tmp_path):
    """The weights are larger than the limit on the size of files. A quota behaves in the same way."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    done = subprocess.run(
        [sys.executable, "-m", "dl_lab", *SMOKE],
        cwd=tmp_path, preexec_fn=limit, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "dl-lab: Cannot write" in done.stderr and "File too large" in done.stderr
    assert read_json(tmp_path / "run" / "status.json")["state"] == "failed"


def test_runs_that_start_within_a_second_have_an_order():
    from dl_lab.runs.files import now, parse_time

    first = now()
    time.sleep(0.002)
    second = now()
    assert parse_time(first) < parse_time(second), "`last` would take either of them"
