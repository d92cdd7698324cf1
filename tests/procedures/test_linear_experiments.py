"""The experiments without a training loop: what they measure, and what they refuse."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from dl_lab.from_scratch.sigmoid_unit import SigmoidUnit
from dl_lab.procedures.boolean_band import BooleanBand
from dl_lab.procedures.truth_table import TruthTable
from dl_lab.types import ConfigError


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_no_net_makes_a_mistake(execute):
    folder, metrics = execute("experiment=boolean_band", "procedure.max_inputs=6", "logger=none")
    table = rows(folder / "tables" / "truth_tables.csv")
    assert [int(row["inputs"]) for row in table] == [1, 2, 3, 4, 5, 6]
    assert [int(row["bands"]) for row in table] == [(2 * d + 1) * (d + 1) for d in range(1, 7)]
    # 17,904 evaluations of two nets on every row of every band, in this experiment four ways each.
    assert metrics["evaluations"] == 4 * 2 * sum((2 * d + 1) * (d + 1) * 2**d for d in range(1, 7))
    assert {name: value for name, value in metrics.items() if name.startswith("mistakes/") and value} == {}
    assert len([name for name in metrics if name.startswith("mistakes/")]) == 6
    assert metrics["margin"] == 1 / 12
    assert (folder / "figures" / "xor.png").exists()


def test_a_perturbation_beyond_the_margin_is_noticed(execute):
    """The check can fail: noise far beyond the margin gives mistakes."""
    _, metrics = execute("experiment=boolean_band", "procedure.max_inputs=4", "procedure.noise=1.0", "logger=none")
    assert metrics["mistakes/sign_noisy"] > 0
    assert metrics["mistakes/relu_noisy"] > 0


def test_single_units_that_exist_and_one_that_does_not(execute):
    folder, metrics = execute("experiment=boolean_band", "procedure.max_inputs=2", "logger=none")
    assert metrics["single_unit/xor"] == 0
    assert 0 < metrics["single_unit/solved"] < metrics["single_unit/bands"]
    for row in rows(folder / "tables" / "single_unit.csv"):
        n_inputs, _, band = row["band"].partition(": ")
        low, high = eval(band)
        sums = np.arange(-int(n_inputs), int(n_inputs) + 1, 2)
        inside = (low <= sums) & (sums <= high)
        flips = np.count_nonzero(inside[1:] != inside[:-1])
        assert (row["solved"] == "True") == (flips < 2), row


def test_the_toy_perceptron_to_full_precision(execute):
    folder, metrics = execute("experiment=toy_perceptron", "logger=none")
    printed = [0.95165668, 0.99678794, 0.05965052, 0.5]
    assert [round(metrics[f"no_bias/output_{i}"], 8) for i in range(4)] == printed
    assert round(metrics["no_bias/first_mse"], 4) == 0.2240
    assert round(metrics["no_bias/mse"], 5) == 0.06398
    assert metrics["bias/output_3"] < 0.05, "a bias is what the fourth sample needs"
    assert len(rows(folder / "tables" / "mse.csv")) == 1000


def test_the_two_layer_net_beats_the_unit(execute):
    folder, metrics = execute("experiment=logic_two_layer", "logger=none")
    assert metrics["unit/norm"] == pytest.approx(1.118925166239006, rel=1e-12)
    assert metrics["two_layer/norm"] == pytest.approx(0.14985633215100674, rel=1e-9)
    recorded = rows(folder / "tables" / "mse.csv")
    assert int(recorded[-1]["pass"]) == 10_000
    assert recorded[-1]["two_layer"] == ""  # it had 2,000 passes only


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": [1]}, "there are 2 rows of inputs, but 1 targets"),
        ({"passes": {"other": 3}}, r"the models are \['unit'\], but passes has \['other'\]"),
        ({"passes": {"unit": 0}}, "at least 1 pass"),
        ({"every": 0}, "every 0"),
    ],
)
def test_truth_table_refuses(change, message):
    good = {"inputs": [[0], [1]], "targets": [0, 1], "models": {"unit": SigmoidUnit(1, 0.5, 0)}, "passes": {"unit": 3}}
    TruthTable(**good)
    with pytest.raises(ValueError, match=message):
        TruthTable(**{**good, **change})


def test_boolean_band_refuses():
    with pytest.raises(ValueError, match="max_inputs 1 "):
        BooleanBand(max_inputs=1)
    with pytest.raises(ValueError, match="share_of_margin"):
        BooleanBand(share_of_margin=1.0)


GRID = ("experiment=ag_news_grid_search", "profile=smoke", "logger=none")


def test_grid_search_refits_the_best(execute):
    folder, metrics = execute(
        *GRID, "dataset.n_generated=512", "procedure.folds=3", "procedure.classifier.max_epochs=4",
        "procedure.grid.optimizer.lr=[1e-6,3e-3]", "+procedure.grid.model.hidden=[[64],[64,32]]",
    )  # fmt: skip
    table = rows(folder / "tables" / "folds.csv")
    assert len(table) == 4
    assert metrics["cv/accuracy"] == max(float(row["accuracy"]) for row in table) > 0.6
    for row in table:
        folds = [float(row[f"fold_{k}"]) for k in (1, 2, 3)]
        assert float(row["accuracy"]) == pytest.approx(np.mean(folds))
    import json

    summary = json.loads((folder / "summary.json").read_text())
    assert summary["best"]["optimizer.lr"] == 3e-3
    assert summary["folds"] == 3
    assert metrics["test/accuracy"] > 0.6, "the best is refitted, not the last"
    assert (folder / "checkpoints" / "best.safetensors").exists()


def test_grid_search_is_the_same_in_parallel(execute):
    arguments = (*GRID, "procedure.grid.optimizer.lr=[1e-3,1e-2]")
    assert execute(*arguments, "procedure.jobs=2")[1] == execute(*arguments, "procedure.jobs=1")[1]


def test_grid_search_finds_what_scikit_learn_finds(execute):
    from sklearn.model_selection import GridSearchCV

    from dl_lab.configs.compose import Composer
    from dl_lab.jobs.procedure import build_procedure
    from dl_lab.procedures.grid_search import _arrays

    words = (*GRID, "procedure.grid.optimizer.lr=[1e-6,3e-3]", "procedure.jobs=1")
    folder, metrics = execute(*words)
    built = build_procedure(Composer().compose(list(words)).config)
    theirs = GridSearchCV(built.classifier, {"optimizer__lr": [1e-6, 3e-3]}, cv=built.folds)
    theirs.fit(*_arrays(built.dataset, "train"))
    assert metrics["cv/accuracy"] == theirs.best_score_
    for i, row in enumerate(rows(folder / "tables" / "folds.csv")):
        assert float(row["std"]) == pytest.approx(theirs.cv_results_["std_test_score"][i])
        for fold in range(built.folds):
            assert float(row[f"fold_{fold + 1}"]) == theirs.cv_results_[f"split{fold}_test_score"][i]


def test_grid_search_counts_its_settings_on_a_terminal(execute, monkeypatch, capsys):
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    execute(*GRID, "procedure.grid.optimizer.lr=[1e-3,1e-2]", "procedure.folds=2", "procedure.jobs=1")
    shown = capsys.readouterr().err
    assert "cross-validation " in shown
    assert "2/2" in shown


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+procedure.grid.optimizer.lrr=[1]", r"no parameter 'optimizer.lrr'; did you mean optimizer.lr"),
        ("+procedure.grid.momentum=[1]", "no parameter 'momentum'"),
        ("procedure.grid.optimizer.lr=[]", "needs a list of values"),
        ("procedure.grid.optimizer.lr=0.1", "needs a list of values"),
        ("procedure.folds=1", "folds 1"),
        ("model._partial_=false", "model._partial_=true"),
        ("model.n_classes=3", "do not fit together"),
    ],
)
def test_grid_search_refuses_before_the_first_fit(execute, tmp_path, override, message):
    with pytest.raises(ConfigError, match=message):
        execute(*GRID, override)
    assert not list(tmp_path.glob("run*")), "nothing was written"
