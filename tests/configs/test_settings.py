"""Types, choices and ranges of the settings of a config; booleans are no numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import pytest

from dl_lab import configs, keys
from dl_lab.configs.arguments import check_type, check_types
from dl_lab.types import ConfigError, UserError


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


@pytest.mark.parametrize(
    ("value", "hint", "fits"),
    [
        ("area", Sequence[str], False),
        ("area", Sequence[str] | None, False),
        (["area"], Sequence[str], True),
        ("area", str | Sequence[str], True),
        ("auto", Literal["auto"] | Sequence[str], True),
        ("area", Literal["auto"] | Sequence[str], False),
        ("area", Any, True),
    ],
)
def test_a_text_is_no_list_of_its_letters(value, hint, fits):
    if fits:
        check_type("path", value, hint)
        return
    with pytest.raises(ConfigError, match=r"a list of str, such as \[a, b\]"):
        check_type("path", value, hint)


def test_one_type_that_only_the_type_checker_sees_spares_no_other_argument():
    def part(size: int, order: Unseen = None) -> None:  # noqa: F821 # pyright: ignore[reportUndefinedVariable]
        """A part of a config."""

    check_types("part", {"size": 1, "order": 2}, part)
    with pytest.raises(ConfigError, match=r"part\.size: 'a' .str. does not fit; it must be int"):
        check_types("part", {"size": "a"}, part)


@pytest.mark.parametrize(
    ("dataset", "word", "says"),
    [
        ("table", "dataset.target=[a]", r"dataset.target: \['a'\] .list. does not fit; it must be str"),
        ("table", "dataset.path=5", "dataset.path: 5 .int. does not fit; it must be str"),
        ("table", "dataset.columns=5", "dataset.columns: 5 .int. does not fit; it must be Columns"),
        ("table", "dataset.columns.use=a", "dataset.columns.use: 'a' .str. does not fit; it must be a list of str"),
        ("table", "dataset.format.delimiter=5", "dataset.format.delimiter: 5 .int. does not fit; it must be str"),
        ("series", "dataset.layout=5", "dataset.layout: 5 .int. does not fit; it must be Layout"),
        ("series", "dataset.layout.time_format=5", "dataset.layout.time_format: 5 .int. does not fit; it must be str"),
        ("series", "dataset.targets=a", "dataset.targets: 'a' .str. does not fit; it must be a list of str"),
        ("text_table", "dataset.text=[a]", r"dataset.text: \['a'\] .list. does not fit; it must be str"),
        ("audio_folder", "dataset.path=5", "dataset.path: 5 .int. does not fit; it must be str"),
    ],
)
def test_a_setting_of_the_wrong_type_is_found_before_a_file_is_read(composer, dataset, word, says):
    given = {"dataset.path": "absent.csv"} | ({} if dataset in ("series", "audio_folder") else {"dataset.target": "b"})
    given = (
        {"dataset.path": "absent.csv", "dataset.text": "a", "dataset.label": "b"} if dataset == "text_table" else given
    )
    key = word.partition("=")[0]
    words = [f"{name}={value}" for name, value in given.items() if name != key]
    with pytest.raises(UserError, match=says):
        composer.compose([f"dataset={dataset}", *words, word])


def test_a_wrong_setting_leaves_no_folder(tmp_path, monkeypatch, capsys):
    from dl_lab import cli

    monkeypatch.chdir(tmp_path)
    for word in ("seed=true", "seed=100000000000000000000"):
        assert cli.main([word]) == 2
        assert f"{word.partition('=')[0]}: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_list_of_parts_is_no_mapping_of_parts_and_the_reverse():
    def part(loggers: Mapping[str, object] | None, steps: Sequence[object] | None, any_of: object) -> None: ...

    child = {"_target_": "torch.nn.ReLU"}
    check_types("part", {"loggers": {"a": child}, "steps": [child], "any_of": [child]}, part)
    check_types("part", {"loggers": child, "steps": child, "any_of": {"a": child}}, part)
    with pytest.raises(ConfigError, match=r"part\.loggers is a list; it must be a mapping, whose parts have names"):
        check_types("part", {"loggers": [child]}, part)
    with pytest.raises(ConfigError, match=r"part\.steps is a mapping; it must be a list"):
        check_types("part", {"steps": {"a": child}}, part)
