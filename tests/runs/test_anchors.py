"""YAML anchors that stand for too many values are refused before anything walks over them."""

from __future__ import annotations

import pytest
import yaml

from dl_lab import configs
from dl_lab.runs.anchors import MOST_VALUES, count_values
from dl_lab.runs.records import read
from dl_lab.types import ConfigError

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 9)
)


def test_values_are_counted_without_a_visit_to_each():
    assert count_values({"a": [1, 2], "b": {"c": 3}}) == 6
    assert count_values(yaml.safe_load("a: &a [1, 2]\nb: [*a, *a]")) == 1 + 3 + (1 + 3 + 3)
    assert count_values(yaml.safe_load(BOMB)) > 9**8 > MOST_VALUES
    assert count_values(yaml.safe_load("a: &a [*a]")) == float("inf")


def test_a_config_with_too_many_values_is_refused(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "bomb.yaml").write_text(f"# @package _global_\n# Does it end?\n{BOMB}")
    with pytest.raises(ConfigError, match=r"bomb\.yaml: its YAML anchors stand for more than 100,000 values"):
        configs.Composer(str(tmp_path)).compose(["experiment=bomb"])


def test_a_run_with_too_many_values_is_refused_and_still_listed(tmp_path):
    (tmp_path / "config.yaml").write_text(f"procedure: {{}}\n{BOMB}")
    with pytest.raises(ConfigError, match="anchors"):
        configs.read_config(tmp_path)
    assert "a0" not in read(tmp_path).config


def test_a_value_that_is_nested_too_deeply_is_refused(tmp_path):
    (tmp_path / "experiment").mkdir()
    text = "[" * 3000 + "]" * 3000
    (tmp_path / "experiment" / "deep.yaml").write_text(f"# @package _global_\n# Does it end?\na: {text}\n")
    with pytest.raises(ConfigError, match="nested too deeply"):
        configs.Composer(str(tmp_path)).compose(["experiment=deep"])
