"""Several models in one run: each is trained as if alone; one table and one figure of all; a run resumes."""

from __future__ import annotations

import csv
import json

import pytest
import torch

from dl_lab import configs as config
from dl_lab.jobs.one import execute, perform
from dl_lab.procedures.model_comparison import ModelComparison
from dl_lab.runs.board import NoBoard
from dl_lab.runs.recorder import Run
from dl_lab.show import reporting
from dl_lab.training.trainer import Trainer
from dl_lab.types import Interrupted

pytestmark = pytest.mark.figures

SMALL = [
    "dataset=digits",
    "dataset.source=generated",
    "dataset.n_generated=80",
    "procedure=model_comparison",
    "trainer.max_epochs=2",
    "trainer.device=cpu",
    "+procedure/contender@procedure.contenders.narrow=gradient",
    "+procedure/contender@procedure.contenders.wide=gradient",
    *(
        f"+{kind}@procedure.contenders.{name}.{place}={option}"
        for name in ("narrow", "wide")
        for kind, place, option in (("model", "model", "mlp"), ("optimizer", "learner.optimizer", "adam"))
    ),
    "procedure.contenders.narrow.model.hidden=[8]",
    "procedure.contenders.wide.model.hidden=[64]",
    "callbacks=early_stopping",
    "seed=3",
]


@pytest.fixture(scope="module")
def compared(tmp_path_factory, execute_in):
    folder = tmp_path_factory.mktemp("comparison") / "run"
    return folder, execute_in(folder, *SMALL)


def read_csv(path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_each_contender_is_trained_as_if_it_were_alone(compared, execute):
    folder, metrics = compared
    alone, own = execute(*SMALL[:3], *SMALL[4:6], "model.hidden=[64]", *SMALL[-2:], "logger=none")
    assert (folder / "wide" / "metrics.jsonl").read_bytes() == (alone / "metrics.jsonl").read_bytes()
    assert metrics["wide/val/accuracy"] == own["val/accuracy"]
    weights = "checkpoints/best.safetensors"
    assert (folder / "wide" / weights).read_bytes() == (alone / weights).read_bytes()


def test_the_table_says_what_each_costs_and_how_far_it_overfits(compared):
    folder, metrics = compared
    rows = {row["model"]: row for row in read_csv(folder / "tables" / "models.csv")}
    assert list(rows) == ["narrow", "wide"]
    for name, hidden in (("narrow", 8), ("wide", 64)):
        row = rows[name]
        assert int(row["parameters"]) == 64 * hidden + hidden + hidden * 10 + 10
        assert int(row["flops"]) == 2 * (64 * hidden + hidden * 10)
        gap = float(row["train/accuracy"]) - float(row["val/accuracy"])
        assert float(row["overfitting_gap"]) == pytest.approx(gap) == metrics[f"{name}/overfitting_gap"]
        assert float(row["seconds"]) > 0
        assert float(row["test/accuracy"]) == metrics[f"{name}/test/accuracy"]
    curves = read_csv(folder / "tables" / "learning_curves.csv")
    assert [(row["model"], row["epoch"]) for row in curves] == [(m, e) for m in ("narrow", "wide") for e in "12"]
    assert (folder / "figures" / "learning_curves.png").stat().st_size > 5000
    assert all(list((folder / name).glob("events.out.tfevents.*")) for name in ("narrow", "wide"))


def test_the_terminal_shows_the_table(compared):
    folder, metrics = compared
    composed = config.Composer().compose([*SMALL, f"hydra.run.dir={folder}"])
    run = Run.reopen(folder, composed.config, NoBoard())
    run.summary = json.loads((folder / "summary.json").read_text())
    for width in (60, 120):
        lines = reporting.report(run, {"dataset": "digits"}, metrics, width)
        with_paths = ("Run folder", "TensorBoard")  # a path is not broken
        assert all(len(line) <= width for line in lines if not line.startswith(with_paths))
        (wide,) = [line.split() for line in lines if line.startswith("wide ")]
        assert wide[1:5] == [
            f"{metrics['wide/test/accuracy']:.4f}",
            f"{metrics['wide/val/accuracy']:.4f}",
            f"{metrics['wide/overfitting_gap']:.4f}",
            str(run.summary["comparison"][1]["parameters"]),
        ]
        assert not any("wide/test/loss" in line for line in lines), "one row a metric beside one row a model"


def test_a_resumed_run_keeps_what_is_finished_and_ends_the_same(compared, tmp_path, monkeypatch):
    folder, metrics = compared
    fitted, fit = [], Trainer.fit

    def broken(self, learner, dataset, run):
        fitted.append(run.folder.name)
        if fitted == ["narrow", "wide"]:
            raise KeyboardInterrupt
        return fit(self, learner, dataset, run)

    monkeypatch.setattr(Trainer, "fit", broken)
    composed = config.Composer().compose([*SMALL, f"hydra.run.dir={tmp_path / 'run'}", "threads=1"])
    with pytest.raises(Interrupted):
        execute(composed, ["dl-lab"], quiet=True)
    run = Run.reopen(tmp_path / "run", composed.config, config.build(composed.config, "logger"))
    assert perform(run, composed.choices, quiet=True) == metrics
    assert fitted == ["narrow", "wide", "wide"]
    for name in ("narrow", "wide"):
        assert (tmp_path / "run" / name / "metrics.jsonl").read_bytes() == (
            folder / name / "metrics.jsonl"
        ).read_bytes()
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "done"


def test_callbacks_are_fresh_for_each(compared):
    """Early stopping that remembered the first contender's best would stop the second."""
    folder, _ = compared
    assert [len((folder / name / "metrics.jsonl").read_text().splitlines()) for name in ("narrow", "wide")] == [3, 3]


def test_nothing_to_compare_is_refused():
    with pytest.raises(ValueError, match=r"add one to procedure\.contenders"):
        ModelComparison(None, {}, None)


def test_the_shipped_comparison_has_the_three_published_models():
    composed = config.Composer().compose(["experiment=image_models"])
    with torch.device("meta"):
        contenders = composed.config["procedure"]["contenders"]
        counts = {
            name: sum(p.numel() for p in config.build(contender, "model")().parameters())
            for name, contender in contenders.items()
        }
    assert counts == {"vgg16c": 35_190_851, "resnet18": 11_170_371, "resnext": 6_393_411}
