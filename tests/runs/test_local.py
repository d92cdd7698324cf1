"""local.yaml: what dl-lab tune found is used for that kind of job on that machine, and changes no identity."""

from __future__ import annotations

import pytest

from dl_lab import configs
from dl_lab.configs.identity import cost_key, job_id
from dl_lab.configs.tuned import compose_for_machine
from dl_lab.runs import local
from dl_lab.types import ConfigError


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def compose(*words: str) -> configs.Composed:
    return compose_for_machine(configs.Composer(), list(words))


def keep(words: tuple[str, ...], **settings: object) -> None:
    key = cost_key(configs.Composer().compose(list(words)).config)
    local.keep(key, local.Entry(" ".join(words), "2026-01-02", {k.replace("__", "."): v for k, v in settings.items()}))


def test_a_job_gets_its_own_settings_and_keeps_its_identity():
    plain = compose("dataset=octmnist")
    keep(("dataset=octmnist",), threads=3, dataset__loading__residence="stream")
    tuned = compose("dataset=octmnist", "optimizer.lr=0.5", "seed=3")
    assert tuned.local == {"threads": 3, "dataset.loading.residence": "stream"}
    assert tuned.config["threads"] == 3
    assert tuned.config["procedure"]["dataset"]["loading"]["residence"] == "stream"
    assert tuned.overrides == ["dataset=octmnist", "optimizer.lr=0.5", "seed=3"]
    again = compose("dataset=octmnist")
    assert job_id(again.config, "code", "data") == job_id(plain.config, "code", "data")
    assert again.config["threads"] != plain.config["threads"]


def test_another_kind_of_job_and_another_machine_get_nothing(monkeypatch):
    keep(("dataset=octmnist",), threads=3)
    assert not compose("dataset=mnist").local
    assert not compose("dataset=octmnist", "trainer.batch_size=7").local
    monkeypatch.setattr(local, "machine", lambda: "another processor")
    assert not compose("dataset=octmnist").local


def test_what_is_typed_wins():
    keep((), threads=3)
    assert compose("threads=1").config["threads"] == 1
    assert not compose("threads=1").local
    assert compose().config["threads"] == 3


def test_lanes_are_for_sweeps():
    keep((), lanes=1)
    assert not compose().local
    assert local.find(cost_key(configs.Composer().compose([]).config)) == {"lanes": 1}


def test_a_sweep_takes_the_lanes_unless_it_was_told_otherwise():
    from dl_lab.sweeps.machinery import Machinery

    keep((), lanes=1)
    config = {**configs.Composer().compose([]).config, "lanes": "auto"}
    for change, lanes in ({}, 1), ({"lanes": 2}, 2), ({"threads": 1}, "auto"):
        machinery = Machinery()
        machinery.settle({}, {**config, **change}, start=False)
        assert machinery.config["lanes"] == lanes
        assert ("as dl-lab tune found" in machinery.where(5)) == (lanes == 1)


def test_an_entry_without_settings_is_removed_and_the_file_can_be_forgotten():
    assert not local.forget()
    keep((), threads=3)
    keep((), **{})
    assert not compose().local
    assert local.forget()
    assert not local.path().exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "cannot be read"),
        ("- 1\n", "is no mapping of machines"),
        ("m: 3\n", "is no mapping of jobs"),
        ("m: {k: 3}\n", "has no mapping `settings`"),
        ("m: {k: {settings: {optimizer.lr: 3}}}\n", "optimizer.lr is no setting of this file"),
        ("m: {k: {settings: {threads: -1}}}\n", "threads cannot be -1"),
        ("m: {k: {settings: {threads: true}}}\n", "threads cannot be True"),
        ("m: {k: {settings: {dataset.loading.residence: '${oc.env:HOME}'}}}\n", "residence cannot be"),
    ],
)
def test_a_damaged_file_is_one_sentence(text, words):
    local.path().parent.mkdir(parents=True)
    local.path().write_text(text)
    with pytest.raises(ConfigError, match="dl-lab tune --forget") as caught:
        compose()
    assert words in str(caught.value)
    assert str(local.path()) in str(caught.value)
