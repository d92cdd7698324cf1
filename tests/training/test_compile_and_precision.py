"""What speeds a run up by one word of YAML trains the same model: the command itself, in a process of its own."""

from __future__ import annotations

import json
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


@pytest.mark.parametrize(
    ("override", "tolerance"),
    [
        pytest.param(
            "learner.compile=true",
            1e-4,
            marks=pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler"),
        ),
        ("learner.precision=bf16", 0.05),
        ("learner.precision=fp16", 0.05),
    ],
)
def test_trains_the_same_model(lab, tmp_path, override, tolerance):
    losses = {}
    for name, words in (("plain", []), ("other", [override])):
        done = lab(*PLAIN, *words, f"hydra.run.dir={tmp_path / name}", timeout=240)
        assert done.returncode == 0, done.stderr
        losses[name] = json.loads((tmp_path / name / "summary.json").read_text())["metrics"]["train/loss"]
    assert losses["other"] == pytest.approx(losses["plain"], rel=tolerance)
    if "precision" in override:  # the compiled step may well give the same bits
        assert losses["other"] != losses["plain"], f"{override} changed nothing: was it used?"


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
