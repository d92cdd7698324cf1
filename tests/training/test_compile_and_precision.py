"""Settings that speed up a training train the same model."""

from __future__ import annotations

import json
import os
import shutil

import pytest

PLAIN = [
    "dataset.source=generated",
    "dataset.n_generated=256",
    "trainer.max_epochs=3",
    "trainer.device=cpu",
    "model.dropout=0",
    "logger=none",
    "callbacks.curves=null",
    "callbacks.confusion_matrix=null",
    "threads=1",
]


@pytest.fixture(scope="module")
def plain(execute_in, tmp_path_factory):
    """The loss of the model that no setting speeds up."""
    return execute_in(tmp_path_factory.mktemp("plain") / "run", *PLAIN)["train/loss"]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_another_precision_trains_nearly_the_same_model(execute, plain, precision):
    _, metrics = execute(*PLAIN, f"learner.precision={precision}")
    assert metrics["train/loss"] == pytest.approx(plain, rel=0.05)
    assert metrics["train/loss"] != plain, f"{precision} changed nothing: was it used?"


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own, as its compiler is imported
def test_a_compiled_model_is_the_same_model(execute, plain, monkeypatch):
    """The graph is captured and executed as it is: generating C++ code for it takes half a minute of a core."""
    import torch

    captured = []
    compile_ = torch.compile

    def run_graph(graph, inputs):
        captured.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda model, **options: compile_(model, backend=run_graph))
    _, metrics = execute(*PLAIN, "learner.compile=true")
    assert captured
    assert metrics["train/loss"] == pytest.approx(plain, rel=1e-4)


@pytest.mark.skipif("DL_LAB_SLOW" not in os.environ, reason="generating C++ takes half a minute: DL_LAB_SLOW=1 runs it")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_code_trains_the_same_model(lab, plain, tmp_path):
    done = lab(*PLAIN, "learner.compile=true", f"hydra.run.dir={tmp_path / 'run'}", timeout=240)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["metrics"]["train/loss"] == pytest.approx(plain, rel=1e-4)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own, as its compiler is imported
def test_the_task_is_given_the_compiled_model():
    import torch
    from torch import nn

    from dl_lab.tasks.classification import Classification
    from dl_lab.training.learners import GradientLearner

    model = nn.Linear(2, 2)
    compiled = GradientLearner(model, Classification(), torch.optim.SGD, compile=True)
    assert compiled.forward is not model
    assert compiled.forward._orig_mod is model
    assert GradientLearner(model, Classification(), torch.optim.SGD).forward is model
