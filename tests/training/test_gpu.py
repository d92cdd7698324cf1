"""Tests that need a GPU; scripts/benchmarks/gpu.sh runs them."""

from __future__ import annotations

import json

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU; torch finds none here"),
]
FAST = ["dataset.source=generated", "dataset.n_generated=512", "trainer.max_epochs=3", "trainer.device=cuda"]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_learns_in_every_precision(execute, precision):
    folder, metrics = execute(*FAST, f"learner.precision={precision}", "trainer.max_epochs=8")
    assert metrics["test/accuracy"] > 0.9
    assert json.loads((folder / "env.json").read_text())["devices"]["gpus"]


def test_deterministic_runs_are_bit_equal(execute):
    runs = [execute(*FAST, "deterministic=true")[0] for _ in range(2)]
    assert len({(folder / "metrics.jsonl").read_bytes() for folder in runs}) == 1


def test_streamed_and_resident_data_give_the_same(execute):
    resident, _ = execute(*FAST, "deterministic=true", "dataset.loading.residence=device")
    streamed, _ = execute(*FAST, "deterministic=true", "dataset.loading.residence=stream")
    assert (resident / "metrics.jsonl").read_bytes() == (streamed / "metrics.jsonl").read_bytes()
