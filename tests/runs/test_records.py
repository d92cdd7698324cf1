"""Records of runs: each setting once, what differs, and in which order."""

from __future__ import annotations

from pathlib import Path

import pytest

from dl_lab.runs import records, settings
from dl_lab.runs.records import Record
from dl_lab.types import UserError


def record(number: int, metrics=None, **config) -> Record:
    return Record(Path(f"outputs/0_{number:08x}"), "done", config, metrics or {})


def test_each_setting_is_listed_once():
    optimizer = {"_target_": "torch.optim.SGD", "lr": 0.1}
    config = {
        "seed": 3,
        "optimizer": optimizer,
        "trainer": {"seed": 3, "max_epochs": 5, "callbacks": {"curves": {"_target_": "x"}}},
        "procedure": {"learner": {"optimizer": optimizer}, "trainer": {"seed": 3, "max_epochs": 5}, "extra": 1},
        "paths": {"data_dir": "/somewhere"},
        "threads": 1,
        "identity": 5,
    }
    assert settings.settings(config) == {
        "seed": 3,
        "optimizer.lr": 0.1,
        "trainer.max_epochs": 5,
        "procedure.extra": 1,
        "identity": 5,
    }


def test_a_repeated_setting_with_another_value_is_kept():
    config = {"seed": 3, "trainer": {"seed": 4}}
    assert settings.settings(config) == {"seed": 3, "trainer.seed": 4}


def test_flatten_gives_dotted_paths():
    assert settings.flatten({"a": {"b": 1, "c": {}}, "d": [1, {"e": 2}]}) == {"a.b": 1, "a.c": {}, "d": [1, {"e": 2}]}


def test_differing_names_typed_settings_first_and_no_equal_ones():
    asked = frozenset({"optimizer.lr"})
    one = Record(
        Path("a_1"), "done", {"model": "mlp", "x": 1, "optimizer.lr": 0.1, "seed": 0, "same": 1}, {}, asked=asked
    )
    two = Record(
        Path("a_2"), "done", {"model": "cnn", "x": 2, "optimizer.lr": 0.2, "seed": 1, "same": 1}, {}, asked=asked
    )
    assert records.differing([one, two]) == ["model", "optimizer.lr", "x", "seed"]
    assert records.telling([one, two]) == ["model", "optimizer.lr"]


def test_one_and_true_are_different_settings():
    assert records.differing([record(1, a=1), record(2, a=True)]) == ["a"]


def test_metrics_of_test_come_first_and_scores_before_losses():
    names = ["train/loss", "train/accuracy", "val/loss", "val/accuracy", "test/loss", "test/accuracy", "rank"]
    ordered = ["test/accuracy", "test/loss", "val/accuracy", "val/loss", "train/accuracy", "train/loss", "rank"]
    assert records.in_order(names) == ordered


@pytest.mark.parametrize(
    ("name", "smaller"),
    [
        ("val/loss", True),
        ("test/reconstruction_loss", True),
        ("val/mse", True),
        ("val/accuracy", False),
        ("test/closseness", False),
        ("val/wer", True),
        ("val/f1", False),
    ],
)
def test_losses_and_errors_are_better_when_smaller(name, smaller):
    assert records.smaller_is_better(name) is smaller


def test_the_best_run_comes_first_and_unmeasured_ones_last():
    found = [
        record(1, {"val/accuracy": 0.5}),
        record(2),
        record(3, {"val/accuracy": 0.9}),
        record(4, {"val/loss": 1.0}),
    ]
    assert [r.folder.name[-1] for r in records.sort_by(found, "val/accuracy")] == ["3", "1", "2", "4"]
    losses = [record(1), record(2, {"val/loss": 0.5}), record(3, {"val/loss": 0.1})]
    assert [r.folder.name[-1] for r in records.sort_by(losses, "val/loss")] == ["3", "2", "1"]


def test_sorting_by_an_unknown_metric_names_the_known_ones():
    with pytest.raises(UserError, match="there are val/accuracy"):
        records.sort_by([record(1, {"val/accuracy": 0.5})], "val/acc")


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0s"), (59.6, "1m00s"), (83, "1m23s"), (7500, "2h05")])
def test_durations_are_short(seconds, text):
    assert records.duration(seconds) == text


def test_overrides_are_read_as_hydra_wrote_them(tmp_path):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text("- a=1\n- 'b=[1, 2]'\n- ~scheduler\n")
    assert records.overrides(tmp_path) == ["a=1", "b=[1, 2]", "~scheduler"]
    assert records.overrides(tmp_path / "nowhere") == []
