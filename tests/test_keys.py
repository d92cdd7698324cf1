"""The table of keys: every key of the shipped configs has a line, and one line is all that a key needs."""

from __future__ import annotations

import pytest

from dl_lab import keys
from dl_lab.configs import catalogue, identity
from dl_lab.keys import Counts
from dl_lab.runs import settings
from dl_lab.runs.hparams import hparams
from dl_lab.show import reporting
from dl_lab.sweeps import plan


def test_every_key_of_the_main_config_and_every_group_is_in_the_table():
    groups = {path.name for path in catalogue.SHIPPED.iterdir() if path.is_dir() and path.name != "__pycache__"}
    known = {*catalogue.main_keys("config"), *groups} - {"defaults"}
    assert not known - set(keys.KEYS)
    for group in groups:
        assert keys.KEYS[group].kind != "setting", group


@pytest.mark.parametrize(
    ("path", "row"),
    [
        ("trainer.device", "trainer.device"),
        ("callbacks.progress.width", "callbacks.progress"),
        ("paths.data_dir", "paths"),
        ("optimizer.betas", "optimizer"),
    ],
)
def test_a_key_covers_what_is_below_it(path, row):
    assert keys.counts(path) is keys.KEYS[row]


def test_an_unknown_key_counts_for_everything():
    assert keys.counts("somebodys.own") == Counts()
    assert keys.counts("trainers") == Counts()


def test_nested_parts_of_the_procedure_count_as_the_parts_do():
    assert keys.counts_inside("learner.optimizer.lr") is keys.KEYS["optimizer"]
    assert keys.counts_inside("trainer.callbacks.progress._target_") is keys.KEYS["callbacks.progress"]
    assert keys.counts_inside("trainer.device") is keys.KEYS["trainer.device"]
    assert keys.counts_inside("cache_dir") is keys.KEYS["procedure.cache_dir"]
    assert keys.counts_inside("paths") is keys.KEYS["procedure"]


def test_an_argument_of_a_procedure_with_the_name_of_a_setting_is_part_of_the_result():
    one, other = ({"seed": 0, "procedure": {"lanes": n, "paths": {"a": n}, "id": n}} for n in (1, 2))
    assert identity.job_id(one, "code", "") != identity.job_id(other, "code", "")
    assert identity.relevant(one)["procedure"] == {"lanes": 1, "paths": {"a": 1}, "id": 1}


CHANGES = {
    "identity": lambda: identity.job_id(config(1), "", "") != identity.job_id(config(2), "", ""),
    "cost": lambda: identity.cost_key(config(1)) != identity.cost_key(config(2)),
    "shown": lambda: "trainer.new" in settings.settings(config(1)),
    "published": lambda: reporting._is_deviation("trainer.new=1", own={}),
    "same_sweep": lambda: plan.sweep_key(["trainer.new=1"], []) != plan.sweep_key(["trainer.new=2"], []),
}


def config(value: int) -> dict:
    return {"seed": 0, "trainer": {"new": value}, "procedure": {"trainer": {"new": value}}}


@pytest.mark.parametrize("column", CHANGES)
def test_one_line_is_all_that_a_new_key_needs(monkeypatch, column):
    assert CHANGES[column]()
    monkeypatch.setitem(keys.KEYS, "trainer.new", Counts(**{column: False}))
    assert not CHANGES[column]()
    assert all(change() for name, change in CHANGES.items() if name != column)


def test_one_line_decides_what_the_hparams_table_shows(monkeypatch):
    assert "trainer.new" not in hparams(config(1), {})
    assert hparams(config(1), {}, ["trainer.new=1"])["trainer.new"] == 1
    monkeypatch.setitem(keys.KEYS, "trainer.new", Counts(hparams="always"))
    assert hparams(config(1), {})["trainer.new"] == 1
    monkeypatch.setitem(keys.KEYS, "trainer.new", Counts(hparams="never"))
    assert "trainer.new" not in hparams(config(1), {}, ["trainer.new=1"])


def test_one_line_keeps_a_key_of_the_sweep_out_of_its_jobs(monkeypatch):
    assert plan.of_jobs(["new=1", "lanes=2", "launcher.partition=gpu", "seed=3"]) == ["new=1", "seed=3"]
    monkeypatch.setitem(keys.KEYS, "new", Counts(sweep_only=True))
    assert plan.of_jobs(["new=1", "seed=3"]) == ["seed=3"]


def test_only_groups_of_a_sweep_are_kept_out_of_a_jobs_config():
    assert set(keys.sweep_groups()) == {"launcher", "pruner", "search", "sweep"}
