"""Loggers: a CSV file, MLflow's local store, W&B offline, and several at once."""

from __future__ import annotations

import csv
import importlib
from pathlib import Path

import pytest

from dl_lab import configs
from dl_lab.runs.board import Board, refuse_wrong_board
from dl_lab.runs.boards import Boards, CsvBoard
from dl_lab.runs.recorder import Run
from dl_lab.types import ConfigError, UserError

SMALL = ["dataset.source=generated", "dataset.n_generated=100", "model.hidden=[8]", "trainer.max_epochs=2",
         "trainer.log_steps=1", "callbacks.confusion_matrix=null"]  # fmt: skip


def test_every_scalar_is_a_row(execute):
    folder, metrics = execute(*SMALL, "logger=csv")
    with open(folder / "scalars.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == {"step", "name", "value"}
    assert [float(row["value"]) for row in rows if row["name"] == "val/loss"][-1] == metrics["val/loss"]
    assert len([row for row in rows if row["name"] == "step/loss"]) == 4
    assert list(folder.glob("events.out.tfevents.*"))


def test_a_resumed_run_cuts_the_rows_back(tmp_path):
    run = Run.create(tmp_path / "run", {}, {}, CsvBoard(), {})
    run.board.start(run.folder, {}, "")
    run.board.scalars({"loss": 1.0}, 1)
    positions = run.positions()
    run.board.scalars({"loss": 2.0}, 2)
    run.cut_back(positions)
    assert (run.folder / "scalars.csv").read_text() == "step,name,value\n1,loss,1.0\n"


def test_a_part_of_a_run_has_loggers_with_the_same_settings():
    class Mine(Board):
        def __init__(self, colour: str):
            self.colour = colour

        def another(self):
            return Mine(self.colour)

    boards = Boards({"mine": Mine("red"), "csv": CsvBoard(), "none": None}).another()
    assert boards.boards["mine"].colour == "red"  # pyright: ignore[reportAttributeAccessIssue]
    assert list(boards.boards) == ["mine", "csv"]


@pytest.mark.filterwarnings("ignore:codecs.open:DeprecationWarning")  # MLflow's own, with Python 3.14
def test_mlflow_gets_parameters_metrics_and_figures(execute, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    store = (tmp_path / "store").as_uri()
    folder, metrics = execute(*SMALL, "logger=mlflow", f"logger.boards.mlflow.tracking_uri={store}")
    client = mlflow.MlflowClient(store)
    experiment = client.get_experiment_by_name("dl-lab")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.info.run_name == folder.name
    assert run.data.metrics["val/loss"] == pytest.approx(metrics["val/loss"])
    assert len(client.get_metric_history(run.info.run_id, "step/loss")) == 4
    assert run.data.params["optimizer"] == "adam"
    figures = {item.path for item in client.list_artifacts(run.info.run_id, "figures")}
    assert figures == {"figures/learning_curves.png", "figures/more_curves.png"}


def test_wandb_writes_its_files_offline(execute):
    pytest.importorskip("wandb", reason="Weights & Biases is not installed")
    folder, _ = execute(*SMALL, "logger=wandb", "logger.boards.wandb.mode=offline")
    (written,) = Path(folder).glob("wandb/offline-run-*/*.wandb")
    assert written.stat().st_size > 0
    assert (folder / "wandb.json").exists()


# -- a logger of the user's own, and the usual mistakes ---------------------------------------------------------------


class Plain:
    def scalars(self, values, step):
        pass


class OtherName(Board):
    def log_scalar(self, name, value):
        pass


class OtherArguments(Board):
    def scalars(self, values):
        pass


class WithSettings(Board):
    def __init__(self, url):
        self.url = url

    def text(self, name, markdown, step=0):
        pass


@pytest.mark.parametrize(
    ("board", "words"),
    [
        (Plain(), "logger: Plain has no method start. Take dl_lab.runs.board.Board as the base of Plain"),
        (OtherName(), "logger: OtherName shows nothing: it has none of the methods start, scalars"),
        (OtherArguments(), "logger: OtherArguments.scalars must take the arguments values, step."),
    ],
)
def test_a_class_that_is_no_logger_is_refused_before_the_run(board, words):
    with pytest.raises(ConfigError, match=words):
        refuse_wrong_board("logger", board)
    refuse_wrong_board("logger", WithSettings("here"))


def test_each_of_several_loggers_is_checked(monkeypatch):
    boards = Boards({"shout": OtherName()})
    monkeypatch.setattr(importlib.import_module("dl_lab.configs.build"), "build", lambda config, key: boards)
    with pytest.raises(ConfigError, match=r"logger\.boards\.shout: OtherName shows nothing"):
        configs.build_logger({})


def test_a_logger_that_cannot_be_made_again_says_what_to_write():
    with pytest.raises(UserError, match=r"Write WithSettings\.another"):
        WithSettings("here").another()


def test_a_list_of_loggers_is_one_sentence(execute):
    parts = "{_target_: dl_lab.runs.boards.Boards, boards: [{_target_: dl_lab.runs.boards.CsvBoard}]}"
    with pytest.raises(ConfigError, match=r"logger\.boards is a list; it must be a mapping"):
        execute(*SMALL, "~logger", f"+logger={parts}")
