"""Composing is faster than Hydra's own way and gives the same config."""

from __future__ import annotations

import copy
import os

import pytest
import yaml
from hydra import version
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.conf import HydraConf
from hydra.core.default_element import InputDefault
from hydra.types import RunMode
from omegaconf import AnyNode, OmegaConf, base

from dl_lab.configs import fast_omegaconf, packaged


@pytest.fixture
def omegaconf_alone(monkeypatch):
    """OmegaConf as it is without dl-lab, until `fast_omegaconf.speed_up()`."""
    monkeypatch.setattr(base, "parse", fast_omegaconf._parse)
    monkeypatch.setattr(base.Metadata, "__deepcopy__", None, raising=False)
    monkeypatch.delattr(base.Metadata, "__deepcopy__")
    monkeypatch.setattr(base.Box, "_re_parent", fast_omegaconf._set_parents)
    for kind, deepcopy in fast_omegaconf._deepcopies.items():
        monkeypatch.setattr(kind, "__deepcopy__", deepcopy)


@pytest.fixture
def compose(tmp_path, monkeypatch, omegaconf_alone):
    """Compose words with Hydra alone, or faster: (words, faster) -> the config and its order as text."""
    own = tmp_path / "own"
    (own / "experiment").mkdir(parents=True)
    (own / "optimizer").mkdir()
    (own / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 7\n")
    (own / "optimizer" / "digits.yaml").write_text("lr: 0.5\n")
    (own / "optimizer" / "both.yaml").write_text("defaults:\n  - /optimizer@extra: ${dataset}\nmomentum: 0.9\n")
    monkeypatch.setattr(defaults_list, "_create_interpolation_map", packaged._make_table)
    monkeypatch.setattr(version, "_get_version", packaged._parse_version.__wrapped__)
    monkeypatch.setattr(InputDefault, "__deepcopy__", None, raising=False)
    monkeypatch.delattr(InputDefault, "__deepcopy__")

    def compose(words: list[str], faster: bool) -> str:
        search_path = create_config_search_path("pkg://dl_lab.conf")
        search_path.prepend("command-line", f"file://{own}", "main")
        loader = ConfigLoaderImpl(search_path)
        if faster:
            packaged.speed_up(loader)
        config = loader.load_configuration("config", words, RunMode.RUN)
        return OmegaConf.to_yaml(config)

    return compose


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["optimizer.lr=0.1", "hydra.mode=RUN", "~sweep"],
        ["experiment=octmnist_cnn", "profile=smoke"],  # the profile is an interpolation
        ["dataset=imdb", "model=text_transformer", "callbacks=default"],
        ["experiment=mine", "optimizer=both"],
    ],
    ids=" ".join,
)
def test_the_config_is_the_one_that_hydra_composes(compose, words):
    slower = compose(words, faster=False)
    assert compose(words, faster=True) == slower
    assert compose(words, faster=True) == slower  # from files that are known now


def test_a_changed_file_is_read_again(tmp_path, monkeypatch):
    package = tmp_path / "some_package_of_configs"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "config.yaml").write_text("a: {b: 1}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    source = packaged.PackagedConfigs("main", f"pkg://{package.name}")
    first = source.load_config("config").config
    first["a"]["b"] = 3
    assert source.load_config("config").config == {"a": {"b": 1}}
    (package / "config.yaml").write_text("a: {b: 20}\n")
    assert source.load_config("config").config == {"a": {"b": 20}}


def test_a_key_that_stands_twice_in_a_file_is_refused_as_omegaconf_does():
    loader = packaged._loader()
    with pytest.raises(yaml.YAMLError, match="duplicate key a"):
        yaml.load("a: 1\na: 2\n", Loader=loader)
    assert yaml.load("[1e3, 2026-01-01, yes]", Loader=loader) == [1000.0, "2026-01-01", True]


@pytest.mark.parametrize("is_faster", [False, True])
def test_a_copy_of_a_config_is_like_omegaconfs_own(omegaconf_alone, is_faster):
    if is_faster:
        fast_omegaconf.speed_up()
    config = OmegaConf.create({"a": {"b": [1, {"c": "${d}"}]}, "d": 2.5, "e": None, "f": "???"})
    config.g = OmegaConf.structured(HydraConf)  # a dataclass: typed nodes
    OmegaConf.set_struct(config, True)
    OmegaConf.set_readonly(config.a, True)
    copied = copy.deepcopy(config)
    assert OmegaConf.to_yaml(copied) == OmegaConf.to_yaml(config)
    assert copied.a.b[1].c == 2.5
    assert copied.a._get_parent() is copied
    assert OmegaConf.is_struct(copied) and OmegaConf.is_readonly(copied.a) and not OmegaConf.is_readonly(copied)
    OmegaConf.set_readonly(copied.a, False)
    copied.a.b[0] = 7
    copied.d = 3
    assert (config.a.b[0], config.a.b[1].c) == (1, 2.5)
    assert (copied.a.b[0], copied.a.b[1].c) == (7, 3)
    assert OmegaConf.is_readonly(config.a)
    assert copy.deepcopy(config.a)._get_parent() is config  # a part keeps its parent


@pytest.mark.parametrize("is_faster", [False, True])
def test_a_merged_config_is_like_omegaconfs_own(omegaconf_alone, is_faster):
    """Every node knows its parent, and flags hold for what came with a merge, and for what was read before it."""
    if is_faster:
        fast_omegaconf.speed_up()
    config = OmegaConf.create({"a": {"b": [1, {"c": 2}], "n": None}, "d": "${a.b}"})
    config.g = OmegaConf.structured(HydraConf)
    assert not OmegaConf.is_readonly(config.a.b[1]) and not OmegaConf.is_struct(config.g.run)
    read_only = OmegaConf.create({"e": {"f": 1}})
    OmegaConf.set_readonly(read_only.e, True)
    OmegaConf.set_readonly(config, True)
    OmegaConf.set_readonly(config, None)
    config.merge_with({"a": {"b": [{"c": 3}, 4], "n": {"m": 5}}}, {"g": {"run": {"dir": "here"}}}, read_only)
    assert OmegaConf.to_container(config.a, resolve=True) == {"b": [{"c": 3}, 4], "n": {"m": 5}}
    assert (config.d[0].c, config.g.run.dir) == (3, "here")
    todo = [config]
    while todo:
        node = todo.pop()
        content = vars(node)["_content"]
        for child in content.values() if isinstance(content, dict) else content:
            assert child._get_parent() is node
            if isinstance(vars(child).get("_content"), dict | list):
                todo.append(child)
    assert OmegaConf.is_readonly(config.e) and not OmegaConf.is_readonly(config.a)
    OmegaConf.set_readonly(config, True)
    assert OmegaConf.is_readonly(config.a.b[0]) and OmegaConf.is_readonly(config.g.run)


def test_another_omegaconf_copies_in_its_own_way(omegaconf_alone, monkeypatch):
    own = AnyNode.__deepcopy__
    monkeypatch.setattr(fast_omegaconf, "METADATA", fast_omegaconf.METADATA | {"a_new_attribute"})
    fast_omegaconf.speed_up()
    assert AnyNode.__deepcopy__ is own
    assert base.parse is fast_omegaconf._parse


def test_an_interpolation_is_parsed_once(omegaconf_alone):
    fast_omegaconf.speed_up()
    fast_omegaconf._parse_once.cache_clear()
    config = OmegaConf.create({"a": 1, "b": "${oc.env:HOME}", "c": "${.a}", "d": {"a": 2, "c": "${.a}"}})
    for _ in range(2):
        assert (config.b, config.c, config.d.c) == (os.environ["HOME"], 1, 2)  # one text, two meanings
    assert fast_omegaconf._parse_once.cache_info().misses == 2
