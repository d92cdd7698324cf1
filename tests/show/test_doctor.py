"""The doctor: its instruments change no bit, its rules find each disease and no other, and the verb prints them."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from dl_lab import cli
from dl_lab.datasets.batches import TensorSplit
from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.images.labelled import labelled_images
from dl_lab.runs.files import read_records
from dl_lab.show.doctor.diagnose import RULES, apply_rules, describe_scope, diagnose
from dl_lab.show.doctor.evidence import LOOKED_AT, VITALS_FILE, Evidence, find_fits, read_evidence
from dl_lab.show.doctor.findings import draw
from dl_lab.tasks.classification import Classification
from dl_lab.training import data_examination, vitals
from dl_lab.training.data_examination import count_equal_rows, count_repeats, examine_data, make_keys, separability
from dl_lab.training.examination import examine_model
from dl_lab.training.layer_watch import LayerWatch
from dl_lab.training.learners import GradientLearner
from dl_lab.training.vitals import LOOKED_AT_TWICE, choose_steps
from dl_lab.training.waiting import WaitingClock, waiting_share
from dl_lab.types import Diverged, Interrupted, LabelledBatch

pytestmark = pytest.mark.xdist_group("doctor")  # its tests share two runs

MLP = ("dataset=digits", "model=mlp", "model.hidden=[32,32]", "trainer.max_epochs=10", "logger=none")
DOCS = Path(__file__).resolve().parents[2] / "docs" / "doctor.md"


def evidence(**facts) -> Evidence:
    """A finished, healthy classification of ten equal classes, with some facts changed."""
    losses = facts.pop("losses", [2.3 * 0.98**i for i in range(200)])
    val = facts.pop("val", [0.4, 0.3, 0.25, 0.22, 0.215, 0.213])
    accuracy = facts.pop("accuracy", [0.9] * len(val))
    summary = {"steps": len(losses), "epochs": len(val), "parameters": 100, "trainable": 100, "stop_reason": ""}
    counts = {split: {str(i): 100 for i in range(10)} for split in ("train", "val", "test")}
    dataset = {"class_counts": facts.pop("counts", counts), "sizes": {"train": 1000, "val": 1000, "test": 1000}}
    train = facts.pop("train", val)
    history = [
        {"train/loss": t, "train/accuracy": a, "val/loss": v, "val/accuracy": a, "val/balanced_accuracy": a}
        for t, v, a in zip(train, val, accuracy, strict=True)
    ]
    config = {
        "procedure": {
            "learner": {
                "model": {},
                "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.001},
                "task": {"_target_": "dl_lab.tasks.classification.Classification"},
            },
            "trainer": {"batch_size": 64},
            **facts.pop("procedure", {}),
        }
    }
    return Evidence(
        folder=Path("run"),
        state="done",
        config=config,
        status=facts.pop("status", {}),
        summary={**summary, "dataset": dataset, **facts.pop("summary", {})},
        history=history,
        losses=losses,
        looks=facts.pop("looks", [look()]),
        examination=facts.pop("examination", {}),
        **facts,
    )


def look(step: int = 0, gradients=(0.01, 0.02, 0.03, 0.02), change: float = 1e-4, **more) -> dict:
    names = [f"{i}.weight" for i in range(len(gradients))]
    weights = {
        name: {"layer": "Linear", "gradient": gradient, "weight": 0.1, "change": change}
        for name, gradient in zip(names, gradients, strict=True)
    }
    layers = {str(i): {"type": "Linear", "size": 1.0} for i in range(len(gradients))}
    return {"kind": "look", "step": step, "weights": weights, "layers": layers | more.pop("layers", {}), **more}


def run_command(*words: str) -> int:
    return cli.main(list(words))


def names(found: Evidence) -> set[str]:
    return {finding.name for finding in apply_rules(found)}


FLAT = [2.31] * 200
CHANCE = {"losses": FLAT, "val": [2.3] * 6, "accuracy": [0.1] * 6}
TINY = look(change=1e-8)

CASES = {
    "diverging": {"losses": [2.3] * 20 + [math.inf] * 5},
    "learning-rate-too-high": {"losses": [2.3, 40.0, 30.0, *FLAT]},
    "plateau-at-chance": CHANCE,
    "wrong-sign-or-order": {"accuracy": [0.01] * 6},
    "accuracy-of-the-majority": {
        "counts": {split: {"0": 900, "1": 100} for split in ("train", "val")},
        "accuracy": [0.9] * 6,
        "losses": [0.33] * 200,
    },
    "learning-rate-too-low": {**CHANCE, "looks": [TINY]},
    "overfitting": {"train": [2.0, 1.0, 0.5, 0.2, 0.1, 0.05], "val": [2.0, 1.0, 1.1, 1.3, 1.6, 2.0]},
    "training-too-short": {"val": [2.0, 1.6, 1.2, 0.9]},
    "schedule-longer-than-training": {
        "procedure": {"learner": {"scheduler": {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "T_max": 99}}}
    },
    "early-stopping-too-early": {
        **{"losses": FLAT, "val": [2.3, 2.299], "accuracy": [0.1, 0.12]},
        "summary": {"stop_reason": "val/loss did not improve for 1 epoch"},
        "procedure": {"trainer": {"callbacks": {"early_stopping": {"patience": 1}}}},
    },
    "underfitting": {"train": [1.9] * 9, "val": [1.9] * 9, "accuracy": [0.25] * 9, "losses": [1.9] * 200},
    "vanishing-gradients": {"losses": FLAT, "looks": [look(gradients=(1e-9, 1e-7, 1e-5, 1e-2))]},
    "exploding-gradients": {"looks": [look(gradients=(1e5, 10.0, 1.0))]},
    "dying-relus": {
        "looks": [
            look(layers={"r": {"type": "ReLU", "dead": 0.0, "n_items": 64}}),
            look(150, layers={"r": {"type": "ReLU", "dead": 0.95, "n_items": 64}}),
        ]
    },
    "saturated-activations": {
        "losses": FLAT,
        "looks": [look(layers={"s": {"type": "Tanh", "saturated": 0.9}, "t": {"type": "Linear"}})],
    },
    "bad-initialisation": {"losses": [30.0, *FLAT[:40]]},
    "unscaled-inputs": {"looks": [look(input={"mean": 90.0, "size": 108.2})]},
    "normalisation-of-tiny-batches": {
        "looks": [look(layers={"n": {"type": "BatchNorm2d", "training": True, "items": 64}})],
        "procedure": {"trainer": {"batch_size": 2}},
    },
    "normalisation-in-evaluation-mode": {
        "looks": [look(layers={"n": {"type": "BatchNorm2d", "training": False, "items": 640}})]
    },
    "unused-parts": {"looks": [look(unused=["head.weight"])]},
    "weights-that-never-move": {"looks": [look(change=0.0), look(150, change=0.0)]},
    "frozen-parts": {"summary": {"trainable": 10}},
    "softmax-twice": {
        "looks": [look(step, output={"n": 10, "sums_to_one": True, "least": 0.0, "greatest": 0.9}) for step in (0, 99)]
    },
    "constant-labels": {"examination": {"labels": {"train": [0, 0, 1000]}}},
    "labels-off-by-one": {"examination": {"labels": {"train": [0, 500, 500]}}, "looks": [look(output={"n": 3})]},
    "shifted-validation": {"examination": {"train_or_val_auc": 0.97}},
    "test-items-in-train": {"examination": {"test_in_train": 200}},
    "padding-is-read": {"examination": {"padding_effect": 0.4}},
    "dropout-in-evaluation": {"examination": {"dropout_in_evaluation": ["3"]}},
    "regularisation-dominates": {
        "looks": [look(), {**look(150), "weights": {f"{i}.weight": {"weight": 0.01} for i in range(4)}}],
        "procedure": {"learner": {"optimizer": {"lr": 0.1, "weight_decay": 1.0}}},
    },
    "starved-training": {"summary": {"waiting_share": 0.7}},
    "uniform-attention": {**CHANCE, "examination": {"attention_entropy": [0.999, 0.998]}},
}


@pytest.mark.parametrize("name", CASES)
def test_a_rule_finds_its_disease(name):
    assert name in names(evidence(**dict(CASES[name])))


def test_a_loss_that_the_scores_cannot_explain_is_no_bad_initialisation():
    """A sum over the batch, or a loss of the user's own, is no cross-entropy in nats."""
    large, small = ({"n": 10, "least": -size, "greatest": size, "sums_to_one": False} for size in (20.0, 0.1))
    assert "bad-initialisation" in names(evidence(losses=[30.0, *FLAT[:40]], looks=[look(output=large)]))
    assert "bad-initialisation" not in names(evidence(losses=[30.0, *FLAT[:40]], looks=[look(output=small)]))


def test_weights_that_the_optimizer_was_not_given_are_found_without_a_look():
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    model[2].weight.requires_grad_(False)
    weights = [parameter for parameter in model.parameters() if parameter.dim() > 1]
    learner = GradientLearner(model, Classification(), lambda _: torch.optim.SGD(weights, lr=0.1))
    split = TensorSplit(LabelledBatch(torch.rand(64, 2), torch.arange(64) % 2), lambda raw: raw)
    dataset = Dataset("x", "full", split, split, split, fingerprint="")
    facts = examine_model(learner, dataset, 4000)
    assert facts["not_in_optimizer"] == ["0.bias", "2.bias"]
    (finding,) = apply_rules(evidence(looks=[], examination=facts))
    assert finding.name == "weights-that-never-move"
    assert finding.seen == "2 weights are not in the optimizer: 0.bias, 2.bias."


def test_a_healthy_run_has_no_finding():
    assert not names(evidence(looks=[look(), look(150)], examination={"train_or_val_auc": 0.52, "test_in_train": 0}))


@pytest.mark.parametrize(
    ("decay", "is_read", "tries"),
    [
        (0.1, True, ("model.dropout=0", "optimizer.weight_decay=0")),
        (0.0, True, ("model.dropout=0",)),
        (0.1, False, ("model.dropout=0",)),
    ],
    ids=["another value", "the value it has", "a learner without an optimizer"],
)
def test_what_to_try_changes_the_run(decay, is_read, tries):
    group = {"weight_decay": decay}
    learner = {"model": {"dropout": 0.5}, **({"optimizer": group} if is_read else {})}
    found = evidence(**dict(CASES["underfitting"]), procedure={"learner": learner})
    found.config["optimizer"] = group  # a group stays in the config, whoever reads it
    assert [finding.tries for finding in apply_rules(found) if finding.name == "underfitting"] == [tries]


def test_a_net_slightly_above_chance_on_many_items_is_on_no_plateau():
    few = {split: {"0": 263, "1": 249} for split in ("train", "val")}  # a sample: its larger class has .514
    found = evidence(counts=few, accuracy=[0.528, 0.548], val=[0.69, 0.686], losses=[0.69] * 200)
    found.summary["dataset"]["sizes"] = {"val": 512}
    assert "plateau-at-chance" in names(found)
    found.summary["dataset"]["sizes"] = {"val": 12500}
    assert "plateau-at-chance" not in names(found)


@pytest.mark.parametrize("name", CASES)
def test_every_disease_has_its_section_in_the_docs(name):
    assert f"\n### {name}\n" in DOCS.read_text()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_no_rule_finds_anything_in_a_run_without_records(rule):
    empty = Evidence(Path("run"), "failed", {}, {}, {}, [], [], [], {})
    assert not list(rule(empty))


@pytest.fixture(scope="module")
def healthy(tmp_path_factory, execute_in) -> Path:
    """A finished run with nothing to find."""
    folder = tmp_path_factory.mktemp("healthy") / "run"
    execute_in(folder, *MLP)
    return folder


@pytest.fixture(scope="module")
def sick(tmp_path_factory, execute_in) -> Path:
    """A finished run whose learning rate is too high, with TensorBoard's records."""
    folder = tmp_path_factory.mktemp("sick") / "run"
    execute_in(folder, *MLP[:-1], "optimizer=sgd", "optimizer.lr=20")
    return folder


def test_the_instruments_change_no_bit(execute, healthy):
    with_doctor = healthy
    without, _ = execute(*MLP, "callbacks.doctor=null")
    assert (with_doctor / VITALS_FILE).exists()
    assert not (without / VITALS_FILE).exists()
    for name in ("metrics.jsonl", "losses.f64", "weights.jsonl", "checkpoints/best.safetensors"):
        assert (with_doctor / name).read_bytes() == (without / name).read_bytes(), name


def test_a_sick_run_is_told_apart_from_a_healthy_one(sick, healthy):
    assert names(read_evidence(sick)) & {"learning-rate-too-high", "diverging"}
    assert not names(read_evidence(healthy))


def test_an_interrupted_and_resumed_run_has_the_same_looks(execute, healthy, tmp_path, monkeypatch, capsys):
    from dl_lab.training import callbacks

    old = callbacks.LearningCurves.epoch_end
    seen = []

    def stop(self, session, metrics):
        old(self, session, metrics)
        seen.append(session.epoch)
        if seen == [1, 2, 3, 4]:
            raise KeyboardInterrupt

    monkeypatch.setattr(callbacks.LearningCurves, "epoch_end", stop)
    with pytest.raises(Interrupted):
        execute(*MLP, "trainer.checkpoint_seconds=0")
    (part,) = tmp_path.glob("run*")
    assert run_command("resume", str(part)) == 0
    assert (part / VITALS_FILE).read_bytes() == (healthy / VITALS_FILE).read_bytes()


def test_looks_are_rare_and_the_first_update_is_among_them():
    assert not choose_steps(LOOKED_AT - 1)
    assert choose_steps(LOOKED_AT) == choose_steps(LOOKED_AT_TWICE - 1) == {0}
    assert choose_steps(LOOKED_AT_TWICE) == {0, 225}
    assert choose_steps(800) == {0, 600, 200}
    assert len(choose_steps(1_000_000)) == 6


def test_a_training_that_max_steps_ends_has_its_looks_within_these_steps(execute):
    folder, _ = execute(*MLP, "trainer.max_epochs=100", "trainer.max_steps=400")
    looks = [record["step"] for record in read_records(folder / VITALS_FILE) if record["kind"] == "look"]
    assert looks == sorted(choose_steps(400))


def test_one_long_wait_is_not_a_starved_training():
    works = [0.001] * 20
    assert waiting_share([0.0001] * 19 + [5.0], works) < 0.4
    assert waiting_share([0.004] * 20, works) == pytest.approx(0.8)
    assert waiting_share([0.0, 0.0, 0.0, 0.008] * 5, works) == pytest.approx(2 / 3)


@pytest.mark.parametrize(("seconds", "is_judged"), [(0.001, False), (0.1, True)])
def test_waits_are_judged_in_trainings_of_some_seconds(seconds, is_judged):
    share = WaitingClock([seconds] * 4, [seconds] * 4).share(40)
    assert share == (pytest.approx(0.5) if is_judged else None)


def test_a_watch_reads_gradients_changes_and_dead_units():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        model[0].weight[0], model[0].bias[0] = 0, -1  # the first unit is dead
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    before = model[2].weight.detach().clone()
    watch = LayerWatch(model)
    model(torch.randn(32, 4)).square().mean().backward()
    gradient = model[2].weight.grad.clone()
    optimizer.step()
    watch.remove()
    found = watch.read()
    facts = found["weights"]["2.weight"]
    assert facts["gradient"] == pytest.approx(float(gradient.square().mean().sqrt()), rel=1e-5)
    assert facts["change"] == pytest.approx(float((model[2].weight.detach() - before).square().mean().sqrt()), rel=1e-5)
    assert found["layers"]["1"]["dead"] == pytest.approx(1 / 3)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_sparse_gradient_counts_the_rows_that_it_leaves_out_as_zero():
    model = nn.Embedding(50, 4, sparse=True)
    watch = LayerWatch(model, scale=8.0)
    (8 * model(torch.tensor([3, 3, 7])).sum()).backward()
    watch.remove()
    # Row 3 has the gradient 2, row 7 has 1; the other 48 rows have none.
    expected = ((4 * 2**2 + 4 * 1**2) / 200) ** 0.5
    assert watch.read()["weights"]["weight"]["gradient"] == pytest.approx(expected)


def test_the_last_backward_pass_of_an_update_gives_the_gradient():
    model = nn.Linear(3, 1, bias=False)
    watch = LayerWatch(model)
    for _ in range(2):  # the gradients add up
        model(torch.ones(5, 3)).mean().backward()
    watch.remove()
    assert watch.read()["weights"]["weight"]["gradient"] == pytest.approx(2.0)


def test_a_watch_keeps_to_layers_with_weights_and_activation_functions():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Dropout(0.5), nn.ReLU(), nn.Linear(3, 2), nn.Softmax(1))
    watch = LayerWatch(model)
    with torch.no_grad():
        model(torch.randn(8, 2, 2))
    watch.remove()
    found = watch.read()
    assert list(found["layers"]) == ["1", "3", "4"]
    assert found["output"]["sums_to_one"] is True
    assert found["unused"] == ["1.weight", "4.weight"]


def test_a_later_look_leaves_out_what_only_the_initial_weights_explain():
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2), nn.Tanh())
    inputs = torch.randn(16, 4) + 2
    found = {}
    for is_first in (True, False):
        watch = LayerWatch(model, is_first=is_first)
        model(inputs).sum().backward()
        watch.remove()
        found[is_first] = watch.read()
    assert list(found[True]["layers"]) == ["0", "1", "2", "3"] and list(found[False]["layers"]) == ["1", "3"]
    outputs = model[0](inputs).detach()
    assert found[True]["layers"]["0"]["size"] == pytest.approx(float(outputs.square().mean().sqrt()), rel=1e-5)
    assert found[True]["input"]["mean"] == pytest.approx(float(inputs.mean()), rel=1e-5)
    assert found[True]["input"]["size"] == pytest.approx(float(inputs.square().mean().sqrt()), rel=1e-5)
    assert found[False]["input"] == {}
    assert list(found[True]["weights"]) == list(found[False]["weights"]) == ["0.weight", "2.weight"]
    assert found[False]["weights"]["0.weight"]["layer"] == "Linear"


def test_a_model_of_vectors_has_its_vectors_watched():
    model = nn.LayerNorm(4)
    watch = LayerWatch(model)
    model(torch.randn(8, 4)).sum().backward()
    watch.remove()
    assert list(watch.read()["weights"]) == ["weight", "bias"]


@pytest.mark.parametrize(
    ("model", "given", "is_plain"),
    [
        (nn.Linear(4, 2), torch.randn(3, 4), True),
        (nn.Embedding(9, 2), torch.tensor([1, 2]), False),
        (nn.LSTM(4, 2), torch.randn(5, 3, 4), False),
    ],
    ids=["numbers", "tokens", "several outputs"],
)
def test_a_watch_tells_a_plain_model(model, given, is_plain):
    watch = LayerWatch(model)
    model(given)
    watch.remove()
    assert watch.is_plain == is_plain


class Strange(nn.Module):
    """A rectifier that is called with a scalar, and with a tensor that has no values."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)
        self.rectifier = nn.ReLU()

    def forward(self, x):
        scores = self.linear(x)
        self.rectifier(scores.mean())
        self.rectifier(torch.empty(4, 2, device="meta"))
        return scores


def test_a_look_that_fails_costs_no_training():
    model = Strange()
    session = SimpleNamespace(step=0, n_updates=LOOKED_AT, learner=SimpleNamespace(main_module=lambda: model))
    watcher = vitals.Vitals()
    watcher.choose_updates(session)  # pyright: ignore[reportArgumentType]
    watcher.update_start(session)  # pyright: ignore[reportArgumentType]
    model(torch.ones(4, 2)).sum().backward()
    session.step = 1
    watcher.update_end(session)  # pyright: ignore[reportArgumentType]
    assert not model._forward_hooks
    (failed,) = watcher.state_dict()["read"]  # pyright: ignore[reportGeneralTypeIssues]
    assert (failed["kind"], failed["step"]) == ("failed look", 0)
    assert f"1 look at the layers failed: {failed['error']}." in describe_scope(evidence(looks=[], failed=[failed]))


def test_a_look_without_memory_for_a_copy_of_the_weights_leaves_no_hook(monkeypatch):
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    monkeypatch.setattr(torch.Tensor, "clone", lambda tensor: torch.empty(1 << 60))
    watch = LayerWatch(model)
    model(torch.ones(4, 2)).sum().backward()
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(RuntimeError, match="allocate"):
        watch.read()


def test_a_look_is_over_when_its_update_is_over():
    model = nn.Linear(2, 1)
    learner = SimpleNamespace(main_module=lambda: model)
    session = SimpleNamespace(step=0, n_updates=LOOKED_AT, learner=learner)
    watcher = vitals.Vitals()
    assert watcher.choose_updates(session) == {0}  # pyright: ignore[reportArgumentType]
    watcher.update_start(session)  # pyright: ignore[reportArgumentType]
    assert model._forward_hooks
    model(torch.ones(4, 2)).sum().backward()
    session.step = 1
    watcher.update_end(session)  # pyright: ignore[reportArgumentType]
    assert not model._forward_hooks
    (look,) = watcher.state_dict()["read"]  # pyright: ignore[reportGeneralTypeIssues]
    assert look["step"] == 0


def test_samples_are_told_apart_only_where_they_differ():
    generator = torch.Generator().manual_seed(3)
    first, second = (torch.randn(200, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    assert 0.35 < separability(first, second) < 0.65
    assert separability(first, second + 2) > 0.95


def test_repeated_items_are_counted():
    train = torch.rand(50, 3, 4, generator=torch.Generator().manual_seed(0))
    test = torch.cat([train[7:9], torch.rand(5, 3, 4, generator=torch.Generator().manual_seed(1))])
    assert count_repeats(make_keys(train), make_keys(test)) == 2


def test_a_curve_of_many_orders_of_magnitude_is_drawn_on_a_log_scale():
    assert draw([1.0, 10.0, 100.0, 1000.0]) == "▁▃▆█"
    assert draw([1.0]) == draw([2.0, 2.0]) == ""
    assert "\u2588" in draw([1.0] * 99 + [90.0] + [1.0] * 300), "a short rise is seen"
    assert draw([1.0, 2.0] * 40 + [math.inf]).count(" ") == 1


def test_a_disease_is_written_as_the_field_writes_it():
    (finding,) = apply_rules(evidence(**dict(CASES["dying-relus"])))
    assert (finding.words, finding.title) == ("dying ReLUs", "Dying ReLUs")


def test_a_short_training_is_said_to_be_short():
    assert describe_scope(evidence(looks=[], losses=[1.0] * 150)).endswith("fewer than 200 updates.")
    assert "no torch model, or callbacks.doctor was off" in describe_scope(evidence(looks=[]))


# -- the verb -------------------------------------------------------------------------------------------------------


def test_the_verb_says_what_was_seen_and_what_to_try(sick, capsys):
    run_command("doctor", str(sick))
    text = capsys.readouterr().out
    assert "Learning rate too high" in text or "Diverging" in text
    assert "optimizer.lr=2" in text
    assert "rules" in text
    run_command("doctor", str(sick), "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["findings"][0]["docs"].startswith("docs/doctor.md#")


def test_a_run_without_looks_says_so(execute, capsys):
    folder, _ = execute(*MLP, "callbacks.doctor=null", "trainer.max_epochs=1")
    assert "No looks at layers" in describe_scope(read_evidence(folder))


def test_a_cut_record_is_left_out(healthy, tmp_path):
    folder = shutil.copytree(healthy, tmp_path / "run")
    whole = read_records(folder / VITALS_FILE)
    data = (folder / VITALS_FILE).read_bytes()
    (folder / VITALS_FILE).write_bytes(data[: len(data) - 40])
    assert len(read_evidence(folder).looks) >= len(whole) - 2
    (folder / VITALS_FILE).write_text("not json\n")
    assert not read_evidence(folder).looks


def test_a_sweep_is_examined_as_a_whole(make_sweep, capsys):
    folder = make_sweep({(lr, seed): 0.9 for lr in (0.1, 0.01) for seed in (0, 1)})
    run_command("doctor", str(folder), "--outputs", str(folder.parents[2]))
    assert "of 4 jobs" in capsys.readouterr().out


def test_a_lead_within_the_noise_of_the_seeds_is_called_noise(make_sweep, capsys):
    values = {
        (lr, seed): 0.9 + 0.02 * seed + (0.001 if lr == 0.1 else 0) * (-1) ** seed
        for lr in (0.1, 0.01)
        for seed in range(3)
    }
    folder = make_sweep(values)
    run_command("doctor", str(folder), "--outputs", str(folder.parents[2]))
    assert "Difference within the noise" in capsys.readouterr().out


def test_a_clear_lead_is_not_called_noise(make_sweep, capsys):
    folder = make_sweep(
        {(lr, seed): (0.9 if lr == 0.1 else 0.5) + 0.001 * seed for lr in (0.1, 0.01) for seed in range(3)}
    )
    run_command("doctor", str(folder), "--outputs", str(folder.parents[2]))
    assert "noise" not in capsys.readouterr().out


@pytest.mark.parametrize(("lead", "is_noise"), [(0.3, False), (0.01, True)])
def test_one_seed_each_is_noise_only_where_the_lead_is_small(make_sweep, capsys, lead, is_noise):
    folder = make_sweep({(0.1, 0): 0.6 + lead, (0.01, 0): 0.6})
    for job in folder.glob("*/summary.json"):
        summary = json.loads(job.read_text())
        summary["dataset"]["sizes"]["val"] = 500
        job.write_text(json.dumps(summary))
    run_command("doctor", str(folder), "--json", "--outputs", str(folder.parents[2]))
    rows = json.loads(capsys.readouterr().out)
    named = {finding["name"] for row in rows if row["run"] == str(folder) for finding in row["findings"]}
    assert named == ({"difference-within-the-noise"} if is_noise else set())


@pytest.mark.parametrize(
    "task",
    [
        {"_target_": "dl_lab.tasks.classification.Classification", "loss": {"_target_": "torch.nn.MultiMarginLoss"}},
        {"_target_": "my_lab.tasks.Consistency"},
    ],
)
def test_a_loss_of_ones_own_has_no_known_value_at_chance(task):
    learner = {"model": {}, "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.001}, "task": task}
    own = {"procedure": {"learner": learner}}
    high = {"losses": [30.0, *FLAT[:40]]}  # the cross-entropy of a bad initialisation
    assert "bad-initialisation" in names(evidence(**high))
    assert evidence(**high, **own).chance_loss is None
    assert "bad-initialisation" not in names(evidence(**high, **own))
    # An accuracy below the commonest class says enough.
    assert "wrong-sign-or-order" in names(evidence(accuracy=[0.01] * 6, **own))


def test_data_that_are_not_finite_are_the_cause_of_a_divergence():
    """No lower rate is proposed for them."""
    message = "The training loss became nan at step 2 (epoch 1, lr 0.1). The data are the cause: column x has nan (1)."
    found = evidence(losses=[2.3, math.nan], status={"error": {"message": message}})
    (finding,) = [finding for finding in apply_rules(found) if finding.name == "diverging"]
    assert "The data are the cause: column x has nan (1)." in finding.seen
    assert finding.tries == ()


NUMPY = (
    "dataset=digits", "model=numpy_mlp", "model.hidden=32", "learner=scratch", "trainer.device=cpu",
    "trainer.batch_size=64", "trainer.monitor=val/accuracy", "trainer.mode=max", "trainer.max_epochs=4",
)  # fmt: skip


def test_a_model_in_numpy_gets_rates_of_its_own_key(execute):
    diverged = diagnose(execute(*NUMPY, "model.lr=1e6")[0])
    assert [finding.name for finding in diverged] == ["diverging"]
    assert diverged[0].tries == ("model.lr=1e+05",)
    still = diagnose(execute(*NUMPY, "model.lr=1e-9")[0])
    assert [finding.name for finding in still] == ["plateau-at-chance"]
    assert "val/cross_entropy is" in still[0].seen
    assert "model.lr=1e-08" in still[0].tries


def test_weights_that_a_tiny_step_cannot_change_are_not_said_to_be_forgotten():
    def names(change: float) -> set[str]:
        looks = [look(step, change=change) for step in (0, 150)]
        for one in looks:
            one["weights"]["0.weight"]["change"] = 0.0
        return {finding.name for finding in apply_rules(evidence(looks=looks))}

    assert "weights-that-never-move" in names(1e-4)
    assert "weights-that-never-move" not in names(1e-9)


def test_batches_of_unequal_length_do_not_hide_a_rate_that_is_too_low():
    losses = [30 + 3 * math.sin(2.1 * i) for i in range(640)]
    losses[-64:] = [loss + 0.7 for loss in losses[-64:]]  # the last batches happen to be longer: 2.3 % more
    looks = [look(step, change=1e-8) for step in (0, 300)]
    facts = {"losses": losses, "looks": looks, "counts": {}}
    assert "learning-rate-too-low" in {finding.name for finding in apply_rules(evidence(**facts))}
    losses[-64:] = [loss + 3 for loss in losses[-64:]]  # so much is no chance
    assert "learning-rate-too-low" not in {finding.name for finding in apply_rules(evidence(**facts))}
    losses[-1] = math.inf
    assert "learning-rate-too-low" not in {finding.name for finding in apply_rules(evidence(**facts))}


def test_a_gradient_too_small_to_change_a_weight_is_no_forgotten_weight():
    looks = [look(step, gradients=(1e-6, 0.02, 0.03, 0.02)) for step in (0, 150)]
    for one in looks:
        one["weights"]["0.weight"]["change"] = 0.0
    assert "weights-that-never-move" not in {finding.name for finding in apply_rules(evidence(looks=looks))}


def test_a_diverged_run_names_the_doctor(execute):
    with pytest.raises(Diverged, match="dl-lab doctor"):
        execute(*MLP, "optimizer=sgd", "optimizer.lr=1e15")


def test_the_report_and_tensorboard_say_what_the_doctor_found(sick):
    run_command("report", str(sick))
    assert "Doctor: " in (sick / "report.md").read_text()
    events = next(sick.glob("events.out.tfevents.*")).read_bytes()
    assert b"doctor" in events and b"optimizer.lr=2" in events


def test_a_forecaster_is_examined_as_its_task_calls_it(execute):
    """A batch of a forecaster has three columns. The model takes the first one."""
    folder, _ = execute(
        "dataset=air_quality",
        "dataset.source=generated",
        "model=lstm_forecaster",
        "task=forecasting",
        "callbacks.confusion_matrix=null",
        "trainer.max_epochs=10",
        "logger=none",
    )
    found = read_evidence(folder)
    assert found.examination and "failed" not in found.examination


def test_a_fault_of_the_examination_costs_no_training(execute, monkeypatch):
    from dl_lab.training import vitals

    def fail(*arguments):
        raise RuntimeError("a strange model")

    monkeypatch.setattr(vitals, "examine_data", fail)
    folder, metrics = execute(*MLP)
    assert metrics["val/accuracy"] > 0.5
    assert "a strange model" in describe_scope(read_evidence(folder))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.bool])
@pytest.mark.parametrize("shape", [(3,), (1, 9, 9)])
def test_equal_rows_are_counted_bit_for_bit(dtype, shape):
    generator = torch.Generator().manual_seed(0)
    train = torch.randint(0, 2, (50, *shape), generator=generator).to(dtype)
    test = torch.randint(0, 2, (40, *shape), generator=generator).to(dtype)
    test[7] = train[3]
    rows = {tuple(row.flatten().tolist()) for row in train}
    assert count_equal_rows(train, test) == sum(tuple(row.flatten().tolist()) in rows for row in test)
    assert count_equal_rows(train, test.double()) == 0
    assert count_equal_rows(train[:0], test) == 0


def test_rows_that_differ_in_one_value_are_not_equal():
    train = torch.zeros(4, 500, dtype=torch.uint8)
    test = torch.zeros(4, 500, dtype=torch.uint8)
    test[torch.arange(4), torch.tensor([0, 7, 250, 499])] = 1
    assert count_equal_rows(train, test) == 0


@pytest.mark.parametrize(("shift", "dtype"), [(0, torch.int64), (0, torch.uint16), (1, torch.uint8)])
def test_labels_that_are_stored_by_class_are_not_all_the_same(shift, dtype):
    labels = torch.arange(4).repeat_interleave(1000).to(dtype)
    split = TensorSplit(LabelledBatch(torch.rand(4000, 2), labels), lambda raw: raw._replace(y=raw.y.long() + shift))
    facts = examine_data(Dataset("sorted", "full", split, split, split, fingerprint=""))
    counts = facts["labels"]["train"]
    assert counts == [1000] * 4 if shift == 0 else counts == [0, 67, 67, 66, 67], "changed labels are those of a sample"


def test_data_are_examined_once_for_all_trainings_of_a_process(monkeypatch):
    asked = []
    monkeypatch.setattr(data_examination, "separability", lambda a, b: asked.append(len(a)) or 0.5)
    train, other = (TensorSplit(LabelledBatch(torch.rand(64, 2), torch.arange(64) % 2), lambda raw: raw) for _ in "ab")
    dataset = Dataset("x", "full", train, train, train, fingerprint="")
    first = examine_data(dataset.to(torch.device("cpu")).divided(0, 1))
    assert examine_data(dataset.to(torch.device("cpu"))) == first
    assert (asked, first["test_in_train"]) == ([64], 64)
    assert examine_data(replace(dataset, test=other))["test_in_train"] == 0, "it has other items"


def test_selected_items_are_those_of_the_batches():
    images = torch.arange(30 * 64, dtype=torch.uint8).view(30, 1, 8, 8).numpy()
    arrays = {split: (images, (torch.arange(30) % 3).numpy()) for split in ("train", "val", "test")}
    dataset = labelled_images("x", arrays, "generated", input_shape=(1, 8, 8), n_classes=3, divisor=255)
    whole = next(iter(dataset.train.batches(20)))
    chosen = dataset.train.select(torch.tensor([4, 0, 19]))
    assert torch.equal(chosen.x, whole.x[[4, 0, 19]]) and torch.equal(chosen.y, whole.y[[4, 0, 19]])


# -- the shipped experiments ----------------------------------------------------------------------------------------


def find(folder) -> set[str]:
    return {finding.name for finding in diagnose(folder)}


def test_vanishing_gradients_are_found_in_the_models_that_have_them(execute, monkeypatch, capsys):
    """experiment=gradient_training compares nets with and without skip connections: here the deepest and ResNet-18."""
    monkeypatch.setattr(vitals, "LEAST_UPDATES", 1)
    monkeypatch.setattr(vitals, "LOOKED_AT", 1)
    few = ("~procedure.contenders.vgg16", "dataset.n_generated=4", "trainer.max_epochs=1", "logger=none")
    folder, _ = execute("experiment=gradient_training", "profile=smoke", *few)
    found = {fit.name: find(fit) for fit in find_fits(folder)}
    assert {name: "vanishing-gradients" in names for name, names in found.items()} == {
        "vgg_deep": True,
        "resnet18": False,
    }
    assert run_command("doctor", str(folder)) == 0
    assert "Vanishing gradients: 1 of 2 models (vgg_deep)" in capsys.readouterr().out
    overrides = [word for fit in find_fits(folder) for finding in diagnose(fit) for word in finding.tries]
    assert all(word.startswith("procedure.contenders.") or "." not in word for word in overrides)


@pytest.mark.parametrize(("beta", "collapses"), [("1e-1", True), ("1e-4", False)])
def test_the_posterior_collapses_where_sweep_vae_beta_expects_it(execute, beta, collapses):
    data = ("dataset.source=generated", "dataset.n_generated=1024", "trainer.max_epochs=15", "logger=none")
    folder, _ = execute("experiment=mnist_vae", *data, f"task.beta={beta}")
    assert ("posterior-collapse" in find(folder)) == collapses


@pytest.mark.parametrize(("experiment", "reads"), [("imdb_lstm_last_step", True), ("imdb_lstm_packed", False)])
def test_padding_is_read_by_the_experiment_that_shows_it_and_not_by_its_cure(execute, experiment, reads):
    small = ("dataset.source=generated", "dataset.length=60", "model.hidden=16", "model.dim=8", "trainer.max_epochs=5")
    folder, _ = execute(f"experiment={experiment}", *small, "logger=none")
    assert ("padding-is-read" in find(folder)) == reads
