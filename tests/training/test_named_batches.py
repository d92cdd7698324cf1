"""Batches that are mappings, through a whole run: residence, rehearsal, evaluate, load, and several processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from safetensors.torch import load_file

import dl_lab
from dl_lab import cli
from dl_lab.datasets.batches import TensorSplit
from dl_lab.datasets.dataset import Dataset
from dl_lab.runs.files import read_json
from dl_lab.show.doctor.evidence import VITALS_FILE

CODE = '''import torch
from torch import nn

from dl_lab.datasets.batches import TensorSplit
from dl_lab.datasets.dataset import Dataset


class Named(nn.Module):
    """pixels (batch, 4) and weight (batch, 1) by name -> (batch, 2) logits."""

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(4, 2)

    def forward(self, *, pixels, weight):
        return self.map(pixels) * weight


def columns(n: int, seed: int) -> dict:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(n, 4, generator=generator)
    return {"pixels": pixels, "weight": torch.ones(n, 1), "label": (pixels.sum(dim=1) > 0).long()}


def named(seed: int, residence: str) -> Dataset:
    splits = {"train": columns(65, seed), "val": columns(30, seed + 1), "test": columns(30, seed + 2)}
    dataset = Dataset.from_arrays(**splits, name="named", class_names=("low", "high"))
    parts = {}
    for name, split in splits.items():
        parts[name] = TensorSplit(split, lambda batch: batch, residence=residence, workers=int(name == "train"))
    return Dataset("named", "full", **parts, fingerprint=dataset.fingerprint, class_names=dataset.class_names)
'''
WORDS = ["--config-dir", "conf", "dataset=named", "model=named", "trainer.max_epochs=20", "trainer.batch_size=16",
         "optimizer.lr=0.1", "logger=none", "threads=1", "callbacks.curves=null",
         "callbacks.confusion_matrix=null"]  # fmt: skip


@pytest.fixture
def project(tmp_path, monkeypatch, fresh_imports) -> Path:
    (tmp_path / "own_named.py").write_text(CODE)
    for group, text in {
        "dataset": "_target_: own_named.named\nseed: 0\nresidence: device\n",
        "model": "_target_: own_named.Named\n",
    }.items():
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / "conf" / group / "named.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("DL_LAB_ALLOW", "own_named")
    return tmp_path


def test_a_run_of_mappings(project):
    for folder, more in (("one", ()), ("streamed", ("dataset.residence=stream",))):
        assert cli.main([*WORDS, *more, f"hydra.run.dir={folder}"]) == 0
    assert (project / "one" / "metrics.jsonl").read_bytes() == (project / "streamed" / "metrics.jsonl").read_bytes()
    summary = read_json(project / "one" / "summary.json") or {}
    assert summary["metrics"]["test/accuracy"] > 0.85
    assert '"test_in_train"' in (project / "one" / VITALS_FILE).read_text(), "the doctor has read the columns"
    assert cli.main(["evaluate", "one", "--split", "val"]) == 0
    assert cli.main(["evaluate", "one", "dataset.seed=10"]) == 0
    assert (read_json(project / "one" / "summary.json") or {})["test_looks"] == 2
    loaded = dl_lab.load("one")
    batch = next(iter(loaded.dataset.test.batches(30)))
    logits = loaded.model(pixels=batch["pixels"], weight=batch["weight"])
    accuracy = (logits.argmax(dim=1) == batch["label"]).double().mean().item()
    assert accuracy == pytest.approx(summary["metrics"]["test/accuracy"])


def test_two_processes_learn_what_one_does(project):
    assert cli.main([*WORDS, "hydra.run.dir=one"]) == 0
    run_ranks(project, 2, *WORDS, "hydra.run.dir=two")
    one, two = (load_file(project / name / "checkpoints" / "last.safetensors") for name in ("one", "two"))
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("residence", ["device", "stream"])
def test_named_columns_of_a_split_are_divided_moved_and_counted(residence):
    columns = {"a": torch.arange(10.0)[:, None], "y": torch.arange(10)}
    split = TensorSplit(columns, lambda batch: batch, residence=residence, workers=0).to(torch.device("cpu"))
    whole = list(split.epoch(4, seed=0, epoch=1))
    assert len(split) == 10 and [len(batch["y"]) for batch in whole] == [4, 4, 2]
    assert all(torch.equal(batch["a"][:, 0].long(), batch["y"]) for batch in whole)
    parts = [list(split.divided(rank, 2).epoch(4, 0, 1)) for rank in range(2)]
    for i, batch in enumerate(whole):
        assert torch.equal(torch.cat([part[i]["y"] for part in parts]), batch["y"])


def test_arrays_by_name_become_a_data_set():
    columns = {"a": torch.zeros(4, 2), "y": torch.zeros(4)}
    dataset = Dataset.from_arrays(columns, columns, columns)
    assert list(next(iter(dataset.train.batches(9)))) == ["a", "y"]
    with pytest.raises(ValueError, match="train has 4 a and 3 y"):
        Dataset.from_arrays({**columns, "y": torch.zeros(3)}, columns, columns)
