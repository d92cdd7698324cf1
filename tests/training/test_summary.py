"""The model layer by layer: parameters add up, operations follow the formula, and the run is not disturbed."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from torch import nn

from dl_lab import configs as config
from dl_lab.jobs import inspect
from dl_lab.models.cnn import CNN
from dl_lab.models.resnet import resnet18
from dl_lab.tasks.classification import Classification
from dl_lab.training.summary import formula, summarise_layers
from dl_lab.types import LabelledBatch

ONE = LabelledBatch(torch.rand(1, 3, 32, 32), torch.zeros(1, dtype=torch.long))


def test_the_rows_of_the_homework_net_are_those_by_hand():
    rows = summarise_layers(CNN((3, 32, 32), 10, [32, 16], [3, 2], [2, 2]), Classification(), ONE)
    told = [(r["kind"], r["output"], r["parameters"], r["formula"], r["flops"]) for r in rows if r["parameters"]]
    assert told == [
        ("Conv2d", "32 x 32 x 32", 896, "(3 x 3 x 3 + 1) x 32", 2 * 27 * 32 * 32 * 32),
        ("Conv2d", "16 x 16 x 16", 2_064, "(32 x 2 x 2 + 1) x 16", 2 * 128 * 16 * 16 * 16),
        ("Linear", "10", 10_250, "(1024 + 1) x 10", 2 * 1024 * 10),
    ]
    kinds = [row["kind"] for row in rows]
    assert kinds == ["Conv2d", "MaxPool2d", "ReLU", "ZeroPad2d", "Conv2d", "MaxPool2d", "ReLU", *kinds[7:]]


def test_parameters_and_operations_add_up_in_a_residual_net():
    from torch.utils.flop_counter import FlopCounterMode

    model = resnet18((3, 32, 32), 10)
    rows = summarise_layers(model, Classification(), ONE)
    assert sum(row["parameters"] for row in rows) == sum(p.numel() for p in model.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(ONE.x)
    assert sum(row["flops"] for row in rows) == counter.get_total_flops()
    assert {"stem.0", "stages.1.0.shortcut.0", "fc"} <= {row["layer"] for row in rows}


class Tied(nn.Module):
    """One linear layer used twice, and a parameter of the module's own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.scale = nn.Parameter(torch.ones(4))
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return self.linear(self.linear(x)) * self.scale


def test_shared_own_and_unused_parameters_are_counted_once():
    batch = LabelledBatch(torch.rand(1, 4), torch.zeros(1, dtype=torch.long))
    rows = {row["layer"]: row for row in summarise_layers(Tied(), Classification(), batch)}
    assert {name: row["parameters"] for name, row in rows.items()} == {"Tied": 4, "linear": 20, "unused": 6}
    assert rows["linear"]["flops"] == 2 * (2 * 4 * 4)
    assert rows["unused"]["flops"] == 0 and rows["unused"]["output"] == ""


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(8, 16, 3, groups=4, bias=False), "2 x 3 x 3 x 16"),
        (nn.Conv1d(2, 4, 5), "(2 x 5 + 1) x 4"),
        (nn.BatchNorm2d(7), "2 x 7"),
        (nn.Embedding(10, 3), "10 x 3"),
        (nn.Linear(3, 2, bias=False), "3 x 2"),
        (nn.GRU(2, 2), "3 x (2 + 2 + 2) x 2"),
    ],
)
def test_a_formula_is_the_number_of_parameters(layer, expected):
    assert formula(layer) == expected
    if expected:
        assert eval(expected.replace("x", "*")) == sum(p.numel() for p in layer.parameters())


def test_mode_statistics_random_stream_and_hooks_are_as_before():
    model = resnet18((3, 32, 32), 10).train()
    mean, state = model.stem[1].running_mean.clone(), torch.get_rng_state()
    summarise_layers(model, Classification(), ONE)
    assert model.training and torch.equal(model.stem[1].running_mean, mean)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_table_is_in_the_run_folder_and_changes_no_record(execute):
    words = ("dataset.source=generated", "dataset.n_generated=40", "trainer.max_epochs=1", "logger=none")
    with_it, _ = execute(*words, "+callbacks.layers._target_=dl_lab.training.callbacks.ModelSummary")
    without, _ = execute(*words)
    with (with_it / "tables" / "layers.csv").open() as file:
        rows = list(csv.DictReader(file))
    summary = json.loads((with_it / "summary.json").read_text())
    assert sum(int(row["parameters"]) for row in rows) == summary["parameters"]
    assert sum(int(row["flops"]) for row in rows) == summary["flops"] > 0
    assert (with_it / "metrics.jsonl").read_bytes() == (without / "metrics.jsonl").read_bytes()


def test_a_procedure_without_a_torch_model_has_no_layers():
    composer = config.Composer()
    for name, expected in (("octmnist_perceptron", 0), ("attention_cost", 0), ("octmnist_feedforward", 3)):
        rows = inspect.describe_layers(composer.compose([f"experiment={name}"]).config)
        assert sum(row["kind"] == "Linear" for row in rows) == expected


@pytest.mark.figures
def test_first_layer_filters_as_the_homework_draws_them(execute):
    words = ("dataset=cifar10", "dataset.source=generated", "dataset.n_generated=20", "model=cnn")
    key = "+callbacks.filters._target_=dl_lab.training.callbacks.FirstLayerFilters"
    small = ("trainer.max_epochs=1", "trainer.device=cpu", "logger=none")
    folder, _ = execute(*words, key, "+callbacks.filters.channel=0", *small)
    with (folder / "tables" / "first_layer_filters.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 32 * 3 * 3 * 3
    from safetensors.torch import load_file

    kernels = load_file(folder / "checkpoints" / "best.safetensors")["0.weight"]
    row = rows[5 * 27 + 2 * 9 + 1 * 3 + 2]
    assert [row[key] for key in ("filter", "channel", "row", "column")] == ["5", "2", "1", "2"]
    assert float(row["weight"]) == pytest.approx(float(kernels[5, 2, 1, 2]))
    assert (folder / "figures" / "first_layer_filters.png").stat().st_size > 3000
    plain, _ = execute("dataset.source=generated", "dataset.n_generated=20", key, *small)
    assert not (plain / "figures" / "first_layer_filters.png").exists(), "an MLP has no filters"


@pytest.mark.parametrize(
    "layer",
    [
        nn.LSTM(10, 32),
        nn.LSTM(10, 32, num_layers=2, bidirectional=True),
        nn.GRU(10, 16, bias=False),
        nn.RNN(5, 7, bidirectional=True),
        nn.MultiheadAttention(32, 4),
        nn.MultiheadAttention(32, 4, bias=False),
        nn.LayerNorm(12),
        nn.GroupNorm(2, 8),
        nn.RMSNorm(6),
        nn.Embedding(30, 4),
        nn.ConvTranspose2d(8, 3, 4),
        nn.Conv2d(3, 8, 5, bias=False),
    ],
    ids=str,
)
def test_a_formula_is_the_number_of_the_layers_own_parameters(layer):
    text = formula(layer)
    assert eval(text.replace(" x ", " * ")) == sum(p.numel() for p in layer.parameters(recurse=False))
