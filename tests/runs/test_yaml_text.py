"""The YAML of run folders: written and read key by key, as PyYAML writes and reads the whole."""

from __future__ import annotations

import copy

import pytest
import yaml

from dl_lab.runs import yaml_text
from dl_lab.runs.yaml_text import to_yaml


def test_equal_looking_values_are_written_as_yaml_writes_them():
    """1, 1.0, True and "1" are equal or look alike, and a config must keep them apart."""
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    for lr in (1, 1.0, True, "1", None, [1], {"rate": 1}, {1: "a"}, {"1": "a"}, {}, "a: b\n c " + 99 * "long "):
        config = {"seed": 0, "optimizer": {"lr": lr, "betas": [0.9, 0.99]}, "parts": {"deep": {"lr": lr}}, "x": lr}
        config = {key: copy.deepcopy(part) for key, part in config.items()}  # what is shared would be an &anchor
        assert to_yaml(config) == yaml.dump(config, Dumper=dumper, sort_keys=False, allow_unicode=True)
    assert yaml.safe_load(to_yaml({})) == {}
    assert yaml.safe_load(to_yaml(["a=1"])) == ["a=1"]


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb:\n  c: [1, 2]\n",
        "# a comment\na: 1\n\nb: 2\n",
        "a: 'a text\n\nb: of two lines'\nc: 3\n",  # the second line looks like a key
        "a: |\n  x\n\n  y: 2\nb: 'it''s'\n",
        "a: &same [1]\nb: *same\n",
        "a: 1\nb: 2\na: 3\n",
        "{a: 1,\nb: 2}",
        "? a\n: 1\nb: 2\n",
    ],
)
def test_a_config_that_is_read_key_by_key_is_that_of_the_whole_text(text):
    assert yaml_text.read_mapping(text) == yaml.safe_load(text)


@pytest.mark.parametrize("text", ["", "- 1\n", "a: [\n", "a: 1\nb: [\n", "just words"])
def test_a_text_that_is_no_mapping_is_an_empty_config(text):
    assert yaml_text.read_mapping(text) == {}
