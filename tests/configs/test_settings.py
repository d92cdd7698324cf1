"""Types, choices and ranges of the settings of a config; booleans are no numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest

from dl_lab import configs, keys
from dl_lab.configs.targets import check_type
from dl_lab.types import ConfigError


def test_every_setting_has_a_type():
    assert set(configs.SETTINGS) == set(keys.settings())


@pytest.fixture(scope="module")
def composer() -> configs.Composer:
    return configs.Composer()


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("seed=true", "seed: True .bool. does not fit"),
        ("seed=100000000000000000000", "seed: 100000000000000000000 is not between 0 and"),
        ("seed=-1", "seed: -1 is not between"),
        ("seed=1.5", "seed: 1.5 .float. does not fit"),
        ("on_failure=stpo", "on_failure: 'stpo' .* one of continue, stop. Did you mean stop"),
        ("job_process=frok", "job_process: 'frok' .* one of fork, fresh"),
        ("lanes=many", "lanes: 'many' .* auto or a whole number"),
        ("lanes=0", "lanes: 0 is not at least 1"),
        ("threads=0", "threads: 0 is not at least 1"),
        ("threads=true", "threads: True"),
        ("n_trials=0", "n_trials: 0 is not at least 1"),
        ("search_seed=x", "search_seed: 'x'"),
        ("objective=1", "objective: 1"),
        ("deterministic=1", "deterministic: 1"),
        ("paths.data_dir=3", "paths: "),
        ("optimizer.lr=true", "optimizer.lr: True .bool. does not fit"),
        ("trainer.max_epochs=true", "trainer.max_epochs: True"),
        ("model.hidden=[true]", r"model.hidden: \[True\]"),
        ("id=3", "id: 3"),
    ],
)
def test_a_wrong_setting_is_one_sentence(composer, word, says):
    with pytest.raises(ConfigError, match=says):
        configs.check(composer.compose([word]).config)


@pytest.mark.parametrize(
    ("value", "hint", "fits"),
    [
        (True, bool, True),
        (True, int, False),
        (True, float, False),
        (True, int | None, False),
        (True, int | bool, True),
        (True, Any, True),
        (True, object, True),
        (True, int | Literal["auto"], False),
        (True, str, False),
        ([1, True], Sequence[int], False),
        ([True, False], Sequence[bool], True),
        ({"a": True}, Mapping[str, float], False),
        ([[True]], Sequence[Sequence[int]] | None, False),
        (1, int, True),
        (None, float | None, True),
    ],
)
def test_a_boolean_is_no_number(value, hint, fits):
    if fits:
        check_type("path", value, hint)
        return
    with pytest.raises(ConfigError):
        check_type("path", value, hint)


def test_a_wrong_setting_leaves_no_folder(tmp_path, monkeypatch, capsys):
    from dl_lab import cli

    monkeypatch.chdir(tmp_path)
    for word in ("seed=true", "seed=100000000000000000000"):
        assert cli.main([word]) == 2
        assert f"{word.partition('=')[0]}: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
