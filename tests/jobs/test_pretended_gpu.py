"""A step on a pretended GPU finds steps that wait or mix devices; the shipped models have none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dl_lab import configs
from dl_lab.jobs.pretended_gpu import find_device_fault, try_step
from dl_lab.tasks.classification import Classification
from dl_lab.types import LabelledBatch

BATCH = LabelledBatch(torch.rand(4, 3), torch.arange(4) % 2)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.register_buffer("scale", torch.ones(2))

    def forward(self, x):
        return self.layer(x) * self.scale


class Waiting(Net):
    def forward(self, x):
        y = super().forward(x)
        return y if y.sum().item() > 0 else -y


class Branching(Net):
    def forward(self, x):
        y = super().forward(x)
        return y if (y > 0).any() else -y


class Mixing(Net):
    def __init__(self) -> None:
        super().__init__()
        self.offset = torch.ones(2)

    def forward(self, x):
        return super().forward(x) + self.offset


def test_a_model_that_stays_on_its_device_has_no_fault():
    model = Net()
    before = [parameter.clone() for parameter in model.parameters()]
    assert try_step(model, Classification(), BATCH) == ""
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("model", [Waiting(), Branching()], ids=["item", "if"])
def test_a_step_that_waits_for_the_gpu_is_named_with_its_place(model):
    fault = try_step(model, Classification(), BATCH)
    assert fault.startswith("A step waits for the GPU")
    assert "test_pretended_gpu.py, line" in fault


def test_a_tensor_that_stays_on_the_cpu_is_named():
    assert try_step(Mixing(), Classification(), BATCH).startswith("A step mixes devices")


FAMILIES = [
    "octmnist_cnn",
    "resnet18",
    "imdb_bilstm",
    "imdb_transformer",
    "mnist_vae",
    "air_lstm",
    "lj_speech_attention",
]


@pytest.mark.parametrize("name", FAMILIES)
def test_steps_of_shipped_models_stay_on_the_device(name):
    config = configs.Composer().compose([f"experiment={name}", "profile=smoke"]).config
    assert find_device_fault(config) == ""


def test_what_torch_cannot_pretend_is_said():
    config = configs.Composer().compose(["experiment=tone_speech_ctc", "profile=smoke"]).config
    with pytest.warns(UserWarning, match=r"cannot pretend \w*ctc_loss\. Only the operations before it were tried"):
        assert find_device_fault(config) == ""
