"""TensorBoard events of a run: TensorBoard's own reader reads them, and a real server shows them."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2, summary_v2
from tensorboard.summary.writer.record_writer import RecordWriter

from dl_lab.runs import tensorboard as board
from dl_lab.runs.files import read_json, read_records
from dl_lab.runs.recorder import Run
from dl_lab.runs.tensorboard import TensorBoard, tag_of
from dl_lab.types import Interrupted, UserError

pytestmark = pytest.mark.figures

FIGURES = ("learning_curves", "more_curves", "confusion_matrix")
SMALL = ["dataset.source=generated", "dataset.n_generated=100", "model.hidden=[8]", "trainer.batch_size=16"]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def finished(outputs, execute_in) -> Path:
    execute_in(
        outputs / "sweep" / "0_a", *SMALL, "trainer.max_epochs=3", "trainer.log_steps=2", "scheduler=cosine",
        "optimizer.lr=0.03", "model.dropout=0", "learner.clip_norm=9",
    )  # fmt: skip
    return outputs / "sweep" / "0_a"


@pytest.fixture(scope="module")
def failed(outputs, execute_in) -> Path:
    """Fails after the first epoch was recorded."""
    with pytest.raises(UserError, match="became"):
        execute_in(
            outputs / "sweep" / "1_b", *SMALL, "trainer.max_epochs=9", "optimizer=sgd", "optimizer.lr=0.1",
            "scheduler=exponential", "scheduler.gamma=1e30",
        )  # fmt: skip
    return outputs / "sweep" / "1_b"


def read(folder: Path) -> EventAccumulator:
    board = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    board.Reload()
    return board


def test_one_event_file_in_the_runs_own_folder(finished):
    assert len(list(finished.rglob("events.out.tfevents.*"))) == 1
    assert len(list(finished.glob("events.out.tfevents.*"))) == 1


def test_scalars_are_the_recorded_values(finished):
    board = read(finished)
    for record in read_records(finished / "metrics.jsonl"):
        for name, value in record.items():
            if name not in ("epoch", "step"):
                shown = [event.value for event in board.Scalars(tag_of(name)) if event.step == record["step"]]
                assert shown == [pytest.approx(value, rel=1e-6)], name
    assert [event.step for event in board.Scalars("loss/running")] == list(range(2, 22, 2))
    assert len(board.Scalars("speed/samples_per_second")) == 3
    assert [event.value for event in board.Scalars("lr")] == pytest.approx([0.03, 0.0225, 0.0075], rel=1e-5)


def test_training_and_validation_share_a_group_and_a_chart(finished):
    from tensorboard.plugins.custom_scalar import layout_pb2

    board = read(finished)
    groups = list(dict.fromkeys(tag.partition("/")[0] for tag in sorted(board.Tags()["scalars"])))
    assert groups[:3] == ["accuracy", "balanced_accuracy", "loss"]
    assert groups[-2:] == ["summary", "test"], "single values come last"
    assert {"loss/train", "loss/val", "loss/running"} <= set(board.Tags()["scalars"])
    (event,) = board.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    assert [chart.title for chart in layout.category[0].chart][:2] == ["loss", "accuracy"]
    assert layout.category[0].chart[0].multiline.tag == ["^loss/(train|val)$"]


def test_final_values_are_the_summarys(finished):
    board, metrics = read(finished), read_json(finished / "summary.json")["metrics"]
    shown = {tag: board.Scalars(tag)[-1].value for tag in board.Tags()["scalars"] if tag.startswith("summary/")}
    assert shown == pytest.approx({f"summary/{name}": value for name, value in metrics.items()}, rel=1e-6)


def test_figures_are_the_saved_pictures(finished):
    from PIL import Image

    board = read(finished)
    assert set(board.Tags()["images"]) == {f"pictures/{name}" for name in FIGURES}
    for tag in board.Tags()["images"]:
        (event,) = board.Images(tag)
        name = tag.removeprefix("pictures/")
        assert event.encoded_image_string == (finished / "figures" / f"{name}.png").read_bytes()
        assert (event.width, event.height) == Image.open(io.BytesIO(event.encoded_image_string)).size


def texts(folder: Path) -> dict[str, str]:
    board = read(folder)
    names = [tag for tag in board.Tags()["tensors"] if not tag.startswith(("_hparams_", "custom_scalars"))]
    return {name: board.Tensors(name)[0].tensor_proto.string_val[0].decode() for name in names}


def test_the_config_and_the_notes_are_shown_as_text(finished):
    shown = texts(finished)
    assert "learning" not in shown
    config = "\n".join(line.removeprefix("    ") for line in shown["config"].splitlines())
    assert config.strip() == (finished / "config.yaml").read_text().strip()
    assert "64 * 8" not in shown["about"]
    assert "610 parameters" in shown["about"] and "generated" in shown["about"]


def session(folder: Path, kind: str):
    tag = f"_hparams_/session_{kind}_info"
    content = read(folder).SummaryMetadata(tag).plugin_data.content
    data = plugin_data_pb2.HParamsPluginData.FromString(content)
    return getattr(data, f"session_{kind}_info")


def test_hparams_are_those_of_the_run(finished):
    shown = session(finished, "start").hparams
    assert shown["optimizer.lr"].number_value == pytest.approx(0.03)
    assert shown["model"].string_value == "mlp"
    assert shown["trainer.batch_size"].number_value == 16
    assert shown["seed"].number_value == 0
    assert shown["model.hidden"].string_value == "[8]"
    assert shown["learner.clip_norm"].number_value == 9, "asked for on the command line"
    assert not [name for name in shown if name.startswith(("hydra", "paths", "logger", "threads"))]
    assert shown["scheduler"].string_value == "cosine"


def test_a_value_that_is_none_is_no_text_among_numbers():
    from dl_lab.runs.hparams import hparams

    words = ["learner.clip_norm=null", "optimizer.lr=0.1"]
    shown = hparams({"learner": {"clip_norm": None}, "optimizer": {"lr": 0.1}}, {}, words)
    assert shown == {"optimizer.lr": 0.1}, "TensorBoard hides numbers in a column that has texts too"


@pytest.mark.parametrize(("run", "status"), [("finished", "STATUS_SUCCESS"), ("failed", "STATUS_FAILURE")])
def test_the_session_ends_with_its_status(run, status, request):
    folder = request.getfixturevalue(run)
    assert session(folder, "end").status == api_pb2.Status.Value(status)
    assert session(folder, "end").end_time_secs >= session(folder, "start").start_time_secs > 1.7e9


def test_a_resumed_session_is_one_session(tmp_path):
    """A run that stops after a checkpoint and is resumed has one start, no point twice, and the later status."""
    run = Run.create(tmp_path / "run", {}, {}, TensorBoard(), {})

    def session_of(run: Run, steps: range, stop: bool) -> None:
        with run.recording():
            run.board.start(run.folder, {"optimizer.lr": 0.1}, "a: 1")
            run.board.text("about", "x")
            for step in steps:
                run.log({"val/loss": 1 / step}, step, step)
                positions.append(run.positions())
            if stop:
                raise Interrupted("stop")

    positions: list[dict[str, int]] = []
    with pytest.raises(Interrupted):
        session_of(run, range(1, 4), stop=True)
    assert session(run.folder, "end").status == api_pb2.Status.Value("STATUS_FAILURE")
    run.cut_back(positions[1])
    session_of(Run.reopen(run.folder, {}, TensorBoard()), range(3, 5), stop=False)
    assert len(list(run.folder.glob("events*"))) == 2
    assert [event.step for event in read(run.folder).Scalars("loss/val")] == [1, 2, 3, 4]
    assert len(read(run.folder).Tensors("config")) == len(read(run.folder).Tensors("about")) == 1
    assert session(run.folder, "end").status == api_pb2.Status.Value("STATUS_SUCCESS")


def test_every_point_is_readable_as_soon_as_it_is_recorded(tmp_path):
    board = TensorBoard()
    board.start(tmp_path, {}, "")
    for step in (1, 2):
        board.scalars({"val/loss": 1.0}, step)
        assert [event.step for event in read(tmp_path).Scalars("loss/val")] == list(range(1, step + 1))
    board.series("loss/running", [(1, 0.5), (2, 0.25)])
    assert [event.value for event in read(tmp_path).Scalars("loss/running")] == [0.5, 0.25]
    board.text("sample", "a **word**", step=2)
    board.finish(True)
    assert texts(tmp_path)["sample"] == "a **word**"


def test_a_session_without_a_record_leaves_one_event_file_with_its_status(tmp_path):
    board = TensorBoard()
    board.finish(True)
    assert not list(tmp_path.iterdir()), "never started"
    board.start(tmp_path, {"lr": 1.0}, "")
    board.finish(False)
    assert session(tmp_path, "end").status == api_pb2.Status.Value("STATUS_FAILURE")


# -- a real server ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(outputs, finished, failed):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(outputs), "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--load_fast=false"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield Server(f"http://127.0.0.1:{port}/data/")
    finally:
        process.terminate()
        process.wait()


class Server:
    def __init__(self, address: str) -> None:
        self.address = address

    def ask(self, path: str, question: dict | None = None):
        body = None if question is None else json.dumps(question).encode()
        request = urllib.request.Request(self.address + path, body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def wait_for(self, path: str, ready) -> dict:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                answer = self.ask(path)
            except OSError:
                answer = None
            if answer is not None and ready(answer):
                return answer
            time.sleep(0.1)
        raise AssertionError(f"{path} did not come: {answer}")


def test_a_real_server_shows_every_run_with_its_figures_and_a_filled_hparams_table(server, finished):
    tags = server.wait_for(
        "plugin/scalars/tags", lambda t: "summary/test/accuracy" in t.get("sweep/0_a", {}) and "sweep/1_b" in t
    )
    assert {"loss/train", "loss/val", "test/accuracy", "loss/running", "lr"} <= tags["sweep/0_a"].keys()
    assert "pictures/learning_curves" in server.ask("plugin/images/tags")["sweep/0_a"]
    assert {"config", "about"} <= set(server.ask("plugin/text/tags")["sweep/0_a"])

    experiment = server.ask("plugin/hparams/experiment", {"experimentName": ""})
    columns = [{"hparam": info["name"]} for info in experiment["hparamInfos"]]
    metrics = [{"metric": info["name"]} for info in experiment["metricInfos"]]
    groups = server.ask(
        "plugin/hparams/session_groups",
        {
            "experimentName": "",
            "allowedStatuses": ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"],
            "colParams": [*columns, *metrics],
            "startIndex": 0,
            "sliceSize": 100,
        },
    )["sessionGroups"]
    by_name = {group["sessions"][0]["name"]: group for group in groups}
    assert all(group["name"] == name for name, group in by_name.items()), "a trial is called as its run"
    assert {name: group["sessions"][0]["status"] for name, group in by_name.items()} == {
        "sweep/0_a": "STATUS_SUCCESS",
        "sweep/1_b": "STATUS_FAILURE",
    }
    one = by_name["sweep/0_a"]
    assert one["hparams"]["optimizer.lr"] == pytest.approx(0.03)
    shown = {
        f"{value['name'].get('group', '')}/{value['name']['tag']}".strip("/"): value["value"]
        for value in one["metricValues"]
    }
    recorded = read_json(finished / "summary.json")["metrics"]
    for name in ("test/accuracy", "val/loss"):
        assert shown[f"summary/{name}"] == pytest.approx(recorded[name], rel=1e-6)


def test_the_hparams_session_is_what_tensorboards_own_function_writes():
    hparams = {"lr": 0.1, "model": "mlp", "seed": 3, "nesterov": True}
    ours = Summary(value=[board.session_start(hparams, 12.5)])
    theirs = summary_v2.hparams_pb(hparams, "0_a", 12.5)
    contents = []
    for message in (ours, theirs):  # the order in which protobuf writes a map is random
        about = message.value[0].metadata.plugin_data
        contents.append(plugin_data_pb2.HParamsPluginData.FromString(about.content))
        contents[-1].session_start_info.group_name = ""  # theirs is a hash, ours the name of the run
        about.content = b""
    assert contents[0] == contents[1]
    assert ours == theirs
    for ok, status in ((True, api_pb2.STATUS_SUCCESS), (False, api_pb2.STATUS_FAILURE)):
        end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=13.5)
        about = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=end))
        tag, nothing = metadata.SESSION_END_INFO_TAG, metadata.NULL_TENSOR
        assert board.session_end(ok, 13.5) == Summary.Value(tag=tag, metadata=about, tensor=nothing)


@pytest.mark.parametrize("size", [0, 1, 7, 300, 70_000])
def test_records_are_those_of_tensorboards_own_writer(size):
    data, written = bytes(i % 251 for i in range(size)), io.BytesIO()
    RecordWriter(written).write(data)
    assert board.record(data) == written.getvalue()
