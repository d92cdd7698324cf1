"""dl_lab from Python: train, sweep, runs, load; and the notebook of the docs, cell by cell."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import dl_lab
from dl_lab.types import UserError

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebook.ipynb"
SMALL = ["dataset.source=generated", "dataset.n_generated=128", "trainer.max_epochs=1", "threads=1", "logger=none"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_notebook_runs(here, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict = {}
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert names["accuracy"] == pytest.approx(names["run"].metrics["test/accuracy"])
    assert len(names["results"]) == 4
    assert len(names["table"]) == 5
    assert repr(names["swept"]).endswith(": 4 finished jobs")


@pytest.mark.parametrize(
    ("returned", "words"),
    [("None", "nothing"), ("[1.0]", "a list"), ("0.5", "a float"), ("{'a': 'x'}", "metric a must")],
)
def test_a_procedure_of_ones_own_returns_its_metrics(here, returned, words):
    module = f"own_answer_{words[-4:].strip()}"
    (here / f"{module}.py").write_text(f"def answer(run):\n    return {returned}\n")
    (here / "conf" / "procedure").mkdir(parents=True)
    (here / "conf" / "procedure" / "own.yaml").write_text(f"_target_: {module}.answer\n_partial_: true\n")
    nothing = [f"{part}=null" for part in ("dataset", "model", "task", "optimizer", "learner", "trainer", "callbacks")]
    with pytest.raises(UserError, match=words):
        dl_lab.train(["procedure=own", *nothing, "logger=none"], config_dir="conf", allow=[module])


def test_train_and_list(here):
    finished = dl_lab.train(SMALL)
    assert finished.folder.is_dir()
    assert "test/accuracy" in repr(finished)
    table = dl_lab.list_runs()
    assert list(table["state"]) == ["done"]
    assert finished.load().metrics == finished.metrics


def test_an_edit_between_two_calls_is_seen(here, fresh_imports):
    (here / "quince_net.py").write_text("from torch import nn\n\n\ndef net():\n    return nn.Linear(64, 10)\n")
    (here / "conf" / "model").mkdir(parents=True)
    (here / "conf" / "model" / "quince.yaml").write_text("_target_: quince_net.net\n")
    words = [*SMALL, "model=quince"]
    with pytest.raises(UserError, match="is not allowed"):
        dl_lab.train(words, config_dir="conf")
    source = (here / "quince_net.py").read_text()
    flat = source.replace("nn.Linear(64, 10)", "nn.Sequential(nn.Flatten(), nn.Linear(64, 10))")
    (here / "quince_net.py").write_text(flat)
    one = dl_lab.train(words, config_dir="conf", allow=["quince_net"])
    (here / "quince_net.py").write_text(flat.replace("nn.Linear(64", "nn.Dropout(0.9), nn.Linear(64"))
    other = dl_lab.train(words, config_dir="conf", allow=["quince_net"])
    assert one.metrics["train/loss"] != other.metrics["train/loss"], "the same words, other code"


def test_a_wrong_call_is_refused_in_one_sentence(here):
    with pytest.raises(UserError, match=r"Give the overrides as a list of texts: \['"):
        dl_lab.train("model=mlp")
    with pytest.raises(UserError, match=r"as a list of texts: \['seed=1'\]"):
        dl_lab.train({"seed": 1})  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match=r"as a list of texts: \['key=value'\]"):
        dl_lab.sweep(["seed=1,2", 3])  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match="Did you mean mlp"):
        dl_lab.train(["model=mpl"])
    with pytest.raises(UserError, match="no job"):
        dl_lab.sweep([*SMALL, "model=mlp", "--exclude", "model=mlp"])
