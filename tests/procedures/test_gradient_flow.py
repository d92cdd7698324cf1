"""BUF-GRAD: the published ratios at the initial weights, on noise."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from dl_lab import configs
from dl_lab.procedures.gradient_flow import GradientFlow
from dl_lab.runs.board import NoBoard
from dl_lab.runs.recorder import Run
from dl_lab.show.judge import judge
from dl_lab.tasks.classification import Classification
from dl_lab.types import UserError

pytestmark = pytest.mark.figures


@pytest.fixture(scope="module")
def measured(tmp_path_factory, execute_in):
    """The experiment with four images and narrow linear layers."""
    folder = tmp_path_factory.mktemp("flow") / "run"
    nets = ("vgg_deep", "vgg_deep_xavier", "vgg_deep_he")
    narrow = [f"procedure.models.{net}.hidden=256" for net in nets]
    return folder, execute_in(folder, "experiment=gradient_flow", "logger=none", "procedure.batch_size=4", *narrow)


def test_the_published_ratios(measured):
    config = configs.Composer().compose(["experiment=gradient_flow"]).config
    verdicts = judge(measured[1], config["reference"])
    assert len(verdicts) == 7
    for verdict in verdicts:
        assert verdict.passed, verdict


def test_earlier_layers_have_smaller_gradients(measured):
    folder, metrics = measured
    norms = [metrics[f"vgg_deep/output/conv_{i}"] for i in (2, 7, 12, 17)]
    assert norms == sorted(norms)
    rows = (folder / "tables" / "gradient_flow.csv").read_text().splitlines()
    assert rows[0] == "net,conv,layer,output,weight"
    assert [sum(row.startswith(f"{net},") for row in rows) for net in ("vgg_deep", "resnet18")] == [17, 20]
    deep = [row.split(",") for row in rows if row.startswith("vgg_deep,")]
    assert [row[2] for row in deep if row[1] in ("2", "7", "12", "17")] == [
        f"features.{position - 1}" for position in (3, 15, 27, 38)
    ], "the brief's layers 3, 15, 27 and 38 of its list of modules"


def test_other_initial_weights_mend_it(measured):
    spreads = {net: measured[1][f"{net}/weight/spread"] for net in ("vgg_deep", "vgg_deep_xavier", "vgg_deep_he")}
    assert spreads["vgg_deep"] > 1e4
    assert max(spreads["vgg_deep_xavier"], spreads["vgg_deep_he"]) < 100


def test_norms_are_those_of_the_loss():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(2 * 4 * 4, 3))
    flow = GradientFlow({"net": net}, Classification(), [1, 8, 8], 3, batch_size=5, device="cpu")
    norms = flow.measure_norms(net)
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(5, 1, 8, 8, generator=generator), torch.randint(3, (5,), generator=generator)
    nn.functional.cross_entropy(net(x), y).backward()
    assert norms["layers"] == ["0", "2"]
    assert norms["weight"] == pytest.approx([float(net[i].weight.grad.norm()) for i in (0, 2)], rel=1e-5)


def test_a_net_without_convolutions_is_one_sentence(tmp_path):
    flow = GradientFlow({"net": nn.Linear(4, 3)}, Classification(), [4], 3, device="cpu")
    with pytest.raises(UserError, match="Linear has 0 convolutions: there is no flow to measure"):
        flow(Run.create(tmp_path / "run", {}, {}, NoBoard(), {}))


def test_the_summary_has_every_figure(measured):
    folder, metrics = measured
    assert json.loads((folder / "summary.json").read_text())["metrics"] == metrics
    assert (folder / "figures" / "gradient_flow.png").stat().st_size > 10_000
