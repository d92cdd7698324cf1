"""dl_lab.load and dl-lab export: the model of a finished run gives its recorded results elsewhere too."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch

import dl_lab
from dl_lab.commands import export
from dl_lab.types import UserError


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    from dl_lab import configs as config
    from dl_lab.jobs.one import execute

    folder = tmp_path_factory.mktemp("export") / "outputs" / "2026-01-02" / "10-00-00_00000001"
    small = ["dataset.source=generated", "dataset.n_generated=128", "trainer.max_epochs=2", "logger=none"]
    composed = config.Composer().compose([*small, f"hydra.run.dir={folder}", "threads=1"])
    execute(composed, ["dl-lab"], quiet=True)
    return folder


def test_load_gives_the_model_that_was_tested(finished):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    run = dl_lab.load(finished)
    assert torch.equal(torch.rand(1), expected), "loading drew from the caller's random numbers"
    batch = next(iter(run.dataset.test.batches(len(run.dataset.test))))
    accuracy = (run.model(batch.x).argmax(dim=1) == batch.y).double().mean().item()
    assert accuracy == pytest.approx(run.metrics["test/accuracy"])
    assert not run.model.training


@pytest.mark.parametrize("form", ["safetensors", "torch.export"])
def test_an_exported_model_is_checked(command, finished, tmp_path, form):
    target = tmp_path / f"model{export.ENDINGS[form]}"
    status, out, error = command("export", str(finished), "--format", form, "--to", str(target))
    assert status == 0, error
    assert "on 3 and 8 test items the same" in out
    assert target.stat().st_size > 1000
    status, _, error = command("export", str(finished), "--format", form, "--to", str(target))
    assert status == 1
    assert "exists already" in error


def test_onnx_gives_the_models_outputs(command, finished, tmp_path):
    arguments = ("export", str(finished), "--format", "onnx", "--to", str(tmp_path / "model.onnx"))
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    status, out, error = command(*arguments)
    assert status == 0, error
    assert "test items the same" in out


def test_onnx_without_its_packages_says_what_to_install(command, finished, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    status, _, error = command("export", str(finished), "--format", "onnx", "--to", str(tmp_path / "model.onnx"))
    assert status == 1
    assert "pip install onnxscript" in error


def test_an_export_that_gives_other_outputs_is_not_kept(command, finished, tmp_path, monkeypatch):
    honest = export.EXPORTERS["torch.export"]

    def wrong(loaded, inputs, target):
        good = honest(loaded, inputs, target)
        return lambda *arguments: good(*arguments) + 0.01

    monkeypatch.setitem(export.EXPORTERS, "torch.export", wrong)
    target = tmp_path / "model.pt2"
    status, _, error = command("export", str(finished), "--format", "torch.export", "--to", str(target))
    assert status == 1
    assert "gives other outputs" in error
    assert not target.exists()


def test_a_run_that_cannot_be_loaded_says_why(finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / finished.name)
    status = json.loads((copy / "status.json").read_text())
    (copy / "status.json").write_text(json.dumps({**status, "state": "interrupted"}))
    with pytest.raises(UserError, match="is interrupted, not done"):
        dl_lab.load(copy)
    with pytest.raises(UserError, match="No run 'nothing'"):
        dl_lab.load("nothing", tmp_path)


@pytest.mark.parametrize("form", ["safetensors", "torch.export"])
def test_a_text_model_is_exported_or_leaves_nothing(command, execute, form):
    """Batches of texts have different lengths, so the axis of the length is free too."""
    folder, _ = execute("experiment=ag_news_feedforward", "profile=smoke", "logger=none")
    before = sorted(path.name for path in folder.iterdir())
    status, out, err = command("export", str(folder), "--format", form)
    assert status == 0, err
    assert "on 3 and 8 test items the same" in out
    left = {path.name for path in folder.iterdir()} - set(before)
    assert left == {f"model{export.ENDINGS[form]}"}


@pytest.mark.parametrize("verb", ["export", "predict"])
def test_a_file_that_cannot_be_written_is_refused_before_the_work(command, finished, tmp_path, verb):
    (tmp_path / "folder").mkdir()
    words = [verb, str(finished), *(["x"] if verb == "predict" else []), "--to"]
    status, _, error = command(*words, str(tmp_path / "absent" / "a.csv"))
    assert (status, f"there is no folder {tmp_path / 'absent'}" in error) == (2, True), error
    status, _, error = command(*words, str(tmp_path / "folder"))
    assert (status, "folder is a folder; name a file" in error) == (2, True), error


def test_an_export_that_fails_leaves_no_file(command, finished, tmp_path, monkeypatch):
    def broken(loaded, inputs, target):
        target.write_text("half")
        return lambda *arguments: 1 // 0

    monkeypatch.setitem(export.EXPORTERS, "safetensors", broken)
    target = tmp_path / "model.safetensors"
    status, _, err = command("export", str(finished), "--to", str(target))
    assert (status, "does not take another batch of the test split" in err) == (1, True), err
    assert list(tmp_path.glob("*model*")) == list(tmp_path.glob(".*model*")) == []


LEARNER = """
from torch.nn import functional as F

from dl_lab.training.base_learner import BaseLearner
from dl_lab.types import Ratio


class Own(BaseLearner):
    def __init__(self, model, optimizer):
        self.net = model
        self.rule = optimizer(model.parameters())

    def update(self, batch, weight=1.0):
        loss = F.cross_entropy(self.net(batch.x), batch.y)
        self.rule.zero_grad()
        loss.backward()
        self.rule.step()
        return {"loss": Ratio(loss.detach() * len(batch.y), len(batch.y))}

    def evaluate(self, batch):
        return {"loss": Ratio(F.cross_entropy(self.net(batch.x), batch.y, reduction="sum"), len(batch.y))}
"""


@pytest.mark.usefixtures("fresh_imports")
def test_the_model_of_a_learner_of_ones_own_is_exported(command, execute, tmp_path, monkeypatch):
    """Its model may have any name, not `model` alone."""
    (tmp_path / "own_learner.py").write_text(LEARNER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("DL_LAB_ALLOW", "own_learner")
    learner = "{_target_: own_learner.Own, model: '${model}', optimizer: '${optimizer}'}"
    run, _ = execute(
        "~learner", f"+learner={learner}", "dataset.source=generated", "dataset.n_generated=64", "trainer.max_epochs=1"
    )
    status, out, error = command("export", str(run), "--to", str(tmp_path / "model.safetensors"))
    assert status == 0, error
    assert "on 3 and 8 test items the same bits" in out
