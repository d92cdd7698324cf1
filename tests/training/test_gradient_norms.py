"""Gradient norms by layer: equal to autograd's, at the right steps, without a trace left on the model."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.nn import functional as F

from dl_lab.datasets.images.labelled import generate_arrays, labelled_images
from dl_lab.from_scratch.perceptron import Perceptron
from dl_lab.runs.board import NoBoard
from dl_lab.runs.files import read_records
from dl_lab.runs.recorder import Run
from dl_lab.tasks.classification import Classification
from dl_lab.training.gradient_norms import FILE, GradientNorms, LayerGradients
from dl_lab.training.learners import GradientLearner
from dl_lab.training.scratch import ScratchLearner
from dl_lab.training.trainer import Callback, Trainer
from dl_lab.types import Interrupted, LabelledBatch, UserError


class Net(nn.Module):
    """Convolutions with an in-place layer after one, an LSTM, and a layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.rows = nn.LSTM(4 * 4, 8, batch_first=True)
        self.twice = nn.Linear(8, 8)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.relu(self.conv(x))
        x, _ = self.rows(self.norm(x).transpose(1, 2).flatten(2))
        return self.head(self.frozen(self.twice(self.twice(x[:, -1]))))


def batch(n: int = 6) -> LabelledBatch:
    generator = torch.Generator().manual_seed(1)
    return LabelledBatch(torch.rand(n, 1, 4, 4, generator=generator), torch.arange(n) % 3)


def learner(**options) -> GradientLearner:
    torch.manual_seed(0)
    return GradientLearner(Net(), Classification(), lambda p: torch.optim.SGD(p, lr=0.1), **options)


def numbers(norms) -> dict:
    return {kind: {name: float(v) for name, v in layers.items()} for kind, layers in norms.items()}


# -- the norms ----------------------------------------------------------------------------------------------------


def test_norms_equal_those_of_autograd():
    model = learner().model
    kept: dict[str, list[torch.Tensor]] = {}
    for name in ("conv", "rows", "twice", "head"):
        module = model.get_submodule(name)

        def keep(module, arguments, output, name=name):
            for part in [output] if name != "rows" else [output[0], *output[1]]:
                kept.setdefault(name, []).append(part)

        module.register_forward_hook(keep)
    x, y = batch()
    model.relu.inplace = False  # autograd.grad below needs the outputs unchanged
    loss = F.cross_entropy(model(x), y)
    wanted = {}
    for name, outputs in kept.items():
        gradients = torch.autograd.grad(loss, outputs, retain_graph=True, allow_unused=True)
        wanted[name] = sum(float(g.square().sum()) for g in gradients if g is not None) ** 0.5
    watched = LayerGradients(model, ("weight", "output"))  # only now: autograd.grad calls the hooks of outputs, too
    F.cross_entropy(model(x), y).backward()
    found = numbers(watched.norms())
    assert found["output"] == pytest.approx(wanted, rel=1e-5)
    weights = {n: float(p.grad.norm()) for n, p in model.named_parameters() if p.dim() > 1 and p.requires_grad}
    assert found["weight"] == pytest.approx({n.removesuffix(".weight"): v for n, v in weights.items()}, rel=1e-5)
    assert list(found["weight"]) == ["conv", "rows.weight_ih_l0", "rows.weight_hh_l0", "twice", "head"]
    assert list(found["output"]) == ["conv", "rows", "twice", "head"], "in the model's order, not the backward pass's"


def test_an_in_place_layer_changes_nothing():
    found = []
    for inplace in (True, False):
        model = learner().model
        model.relu.inplace = inplace
        watched = LayerGradients(model, ("weight", "output"))
        F.cross_entropy(model(batch().x), batch().y).backward()
        found.append(numbers(watched.norms()))
    assert found[0] == found[1]


def test_micro_batches_add_up_to_the_batch():
    found = []
    for accumulation in (1, 2, 3):
        one = learner(accumulation=accumulation)
        one.model.norm = nn.Identity()  # batch statistics would depend on the micro-batch
        watched = LayerGradients(one.model, ("weight", "output"))
        one.update(batch())
        found.append(numbers(watched.norms()))
    for other in found[1:]:
        for kind in found[0]:
            assert other[kind] == pytest.approx(found[0][kind], rel=1e-4)


def test_all_hooks_are_removed():
    model = learner().model
    before = str(vars(model.conv)), str(model.conv.weight.__dict__)
    watched = LayerGradients(model, ("weight", "output"))
    watched.remove()
    F.cross_entropy(model(batch().x), batch().y).backward()
    assert watched.norms() == {"weight": {}, "output": {}}
    assert not model.conv._forward_hooks and not model.conv.weight._post_accumulate_grad_hooks
    assert before[0] == str({**vars(model.conv)})


def test_tiny_gradients_are_not_rounded_to_nothing():
    model = nn.Linear(4, 1, bias=False)
    watched = LayerGradients(model)
    model(torch.full((1, 4), 1e-18)).sum().backward()
    assert numbers(watched.norms())["weight"]["weight"] == pytest.approx(2e-18, rel=1e-5)


# -- during a fit -------------------------------------------------------------------------------------------------


def small_dataset(n: int = 24):
    return labelled_images(
        "noise", generate_arrays(n, (1, 4, 4), 3), "generated", input_shape=(1, 4, 4), n_classes=3, divisor=255
    )


def fit(folder: Path, callbacks, one: GradientLearner | None = None, resume: bool = False, **options) -> Run:
    run = Run.reopen(folder, {}, NoBoard()) if resume else Run.create(folder, {}, {}, NoBoard(), {})
    settings = {"max_epochs": 3, "batch_size": 4, "device": "cpu", **options}
    Trainer(callbacks=callbacks, **settings).fit(one or learner(), small_dataset(), run)
    return run


@pytest.mark.figures
def test_one_update_in_every_is_measured_and_the_first_one(tmp_path):
    fit(tmp_path / "run", {"norms": GradientNorms(every=4, of=["output", "weight"])})
    records = read_records(tmp_path / "run" / FILE)
    assert [record["step"] for record in records] == [0, 4, 8, 12, 16]
    for kind in ("weight", "output"):
        assert (tmp_path / "run" / "figures" / f"gradient_norms_{kind}.png").stat().st_size > 10_000
        rows = (tmp_path / "run" / "tables" / f"gradient_norms_{kind}.csv").read_text().splitlines()
        assert len(rows) == 6 and rows[0].startswith("step,conv,rows")


def test_the_first_record_belongs_to_the_initial_weights(tmp_path):
    fit(tmp_path / "run", {"norms": GradientNorms()})
    one = learner()
    watched = LayerGradients(one.model)
    one.update(next(iter(small_dataset().train.epoch(4, seed=0, epoch=0))))
    assert read_records(tmp_path / "run" / FILE)[0] == {"step": 0, "weight": numbers(watched.norms())["weight"]}


def test_watching_changes_no_bit_of_the_training(tmp_path):
    weights = []
    for name, callbacks in (("without", {}), ("with", {"norms": GradientNorms(every=1, of=["weight", "output"])})):
        fit(tmp_path / name, callbacks, one := learner())
        weights.append(one.weights())
        assert not one.model.conv._forward_hooks, "the hooks are gone"
    assert all(torch.equal(a, b) for a, b in zip(weights[0].values(), weights[1].values(), strict=True))


class Kill(Callback):
    def update_start(self, session) -> None:
        if session.step == 11:
            raise Interrupted("killed")


def test_a_resumed_run_records_what_an_uninterrupted_run_records(tmp_path):
    options = {"checkpoint_steps": 5, "checkpoint_seconds": 1e9}
    whole = fit(tmp_path / "whole", {"norms": GradientNorms(every=2)}, **options).folder
    with pytest.raises(Interrupted):
        fit(tmp_path / "killed", {"norms": GradientNorms(every=2), "kill": Kill()}, **options)
    resumed = fit(tmp_path / "killed", {"norms": GradientNorms(every=2)}, resume=True, **options).folder
    assert (resumed / FILE).read_bytes() == (whole / FILE).read_bytes()
    assert len(read_records(whole / FILE)) == 9


def test_scaled_losses_are_scaled_back(tmp_path):
    plain = fit(tmp_path / "plain", {"norms": GradientNorms()}).folder
    scaled = learner()
    scaled.scaler = GradScaler("cpu", init_scale=1024.0)  # as on a GPU in fp16
    folder = fit(tmp_path / "scaled", {"norms": GradientNorms()}, scaled).folder
    first = [read_records(path / FILE)[0]["weight"] for path in (plain, folder)]
    assert first[1] == pytest.approx(first[0], rel=1e-5)


def test_a_learner_without_gradients_is_refused(tmp_path):
    with pytest.raises(UserError, match="need a torch model that learns by gradient"):
        fit(tmp_path / "run", {"norms": GradientNorms()}, ScratchLearner(Perceptron(16, 3)))


def test_a_model_that_gets_no_gradient_is_refused(tmp_path):
    one = learner()
    one.forward = copy.deepcopy(one.model)
    with pytest.raises(UserError, match="No gradient reached a layer's weight"):
        fit(tmp_path / "run", {"norms": GradientNorms()}, one)


@pytest.mark.parametrize("options", [{"every": 0}, {"of": []}, {"of": ["input"]}])
def test_impossible_settings_are_refused(options):
    with pytest.raises(ValueError, match="must be at least 1, and of"):
        GradientNorms(**options)


def test_any_experiment_takes_the_callback(execute):
    folder, metrics = execute("callbacks=gradient_norms", "dataset.source=generated", "trainer.max_epochs=1")
    assert (folder / "figures" / "gradient_norms_weight.png").exists()
    assert json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1]).keys() == {
        "epoch", "step", *[name for name in metrics if name.startswith("test/")]
    }  # fmt: skip
