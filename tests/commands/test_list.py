"""dl-lab list, and the catalogue it reads."""

from __future__ import annotations

import json

import pytest

from dl_lab.configs import catalogue
from dl_lab.types import ConfigError

MINE = """# @package _global_
# Does my idea work? A note that is not the question.
defaults:
  - octmnist_cnn
  - override /model: linear
  - _self_
id: MINE-1
reference:
  test/accuracy: {value: 0.5, source: "myself"}
"""


@pytest.fixture
def own_configs(tmp_path):
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "mine.yaml").write_text(MINE)
    return tmp_path / "own"


def test_every_experiment_with_question_id_parts_and_reference_figure(command):
    lines = command("list")[1].splitlines()
    for experiment in catalogue.experiments():
        line = next(line for line in lines if line.split()[:1] == [experiment.name])  # a sweep may share the name
        assert len(line) <= 100
        assert line.split()[1] == experiment.question.split()[0]
    out = command("list", "octmnist_cnn")[1]
    entry = out.partition("octmnist_cnn  (IST2-CNN)\n")[2].partition("\n\n")[0]
    assert "Does max-pooling beat strided convolution" in entry


def test_list_tells_the_whole_story_of_one(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = command("list", "octmnist_cnn")[1]
    assert max(map(len, out.splitlines())) <= 80
    story = " ".join(out.split())
    assert "the last weights are tested on its 529 images." in story, "the whole comment"
    assert "Parts pooled_cnn on octmnist" in story
    assert "Settings seed=42 optimizer.lr=0.01 " in story
    assert "Sweeps oct_lr Run dl-lab experiment=octmnist_cnn" in story
    assert "test/accuracy 0.8374 ± 0.012: IST Deep Learning 2023/24, homework 2" in story


def test_a_word_finds_what_mentions_it(command):
    lines = command("list", "octmnist", "pooled_cnn")[1].splitlines()
    assert [line.split()[0] for line in lines] == ["octmnist_cnn"]
    assert "There is no experiment 'nonsuchword'." in command("list", "nonsuchword")[2]


def test_json_holds_experiments_and_sweeps(command):
    listed = json.loads(command("list", "--json")[1])
    mine = next(entry for entry in listed["experiments"] if entry["name"] == "octmnist_cnn")
    assert (mine["id"], mine["dataset"], mine["model"]) == ("IST2-CNN", "octmnist", "pooled_cnn")
    assert mine["reference"]["test/accuracy"]["value"] == 0.8374
    assert mine["question"].endswith("?")
    assert {sweep.name for sweep in catalogue.entries("sweep")} == {sweep["name"] for sweep in listed["sweeps"]}


def test_an_own_experiment_inherits_from_its_base(own_configs):
    mine = next(e for e in catalogue.experiments(str(own_configs)) if e.name == "mine")
    assert mine.question == "Does my idea work?"
    assert (mine.id, mine.model, mine.dataset) == ("MINE-1", "linear", "octmnist")
    assert mine.reference == {"test/accuracy": {"value": 0.5, "source": "myself"}}


def test_the_catalogue_agrees_with_the_composed_configs(own_configs):
    from dl_lab.configs.compose import Composer

    composer = Composer(str(own_configs))
    for name in ("mine", "octmnist_cnn"):
        said = next(e for e in catalogue.experiments(str(own_configs)) if e.name == name)
        choices = composer.compose([f"experiment={name}"]).choices
        assert (said.dataset, said.model, said.procedure) == tuple(
            choices[k] for k in ("dataset", "model", "procedure")
        )


def test_a_part_that_the_procedure_does_not_use_is_not_claimed(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "procedure").mkdir()
    (tmp_path / "experiment" / "ranks.yaml").write_text("# Ranks?\ndefaults:\n  - override /procedure: ranks\n")
    (tmp_path / "procedure" / "ranks.yaml").write_text("dataset: ${dataset}\n")
    ranks = next(e for e in catalogue.experiments(str(tmp_path)) if e.name == "ranks")
    assert (ranks.dataset, ranks.model, ranks.procedure) == ("digits", "-", "ranks")


def test_broken_yaml_names_file_and_line(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "broken.yaml").write_text("# Broken?\nseed: 1\n  trainer: {max_epochs: 3\n")
    with pytest.raises(ConfigError, match=r"broken\.yaml, line 3 is not valid YAML"):
        catalogue.experiments(str(tmp_path))


def test_without_torch(cost):
    spent = cost("list")
    assert not {"torch", "hydra"} & spent.modules
    assert spent.files == []
    assert len(spent.modules) < 250
    assert spent.processes == []


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """The file of parameter counts, in a cache folder of the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home" / ".cache" / "dl-lab" / "cache" / "parameters.json"


def test_parameter_counts(own_configs, command, monkeypatch, own_cache):
    few = [e for e in catalogue.experiments(str(own_configs)) if e.name in ("mine", "octmnist_cnn")]
    monkeypatch.setattr(catalogue, "experiments", lambda _, problems=None: few)  # all of them take as long as `check`
    listed = json.loads(command("list", "--params", "--json", "--config-dir", str(own_configs))[1])
    counts = {entry["name"]: (entry["parameters"], entry["trainable"]) for entry in listed["experiments"]}
    assert counts == {"octmnist_cnn": (224_892, 224_892), "mine": (28 * 28 * 4 + 4,) * 2}


def test_parameter_counts_are_kept_until_config_or_code_changes(own_configs, command, monkeypatch, own_cache):
    from dl_lab.configs import identity
    from dl_lab.jobs import inspect

    built = []
    count = inspect.count_parameters
    monkeypatch.setattr(inspect, "count_parameters", lambda config: built.append(config["id"]) or count(config))

    def counted() -> int:
        listed = json.loads(command("list", "--params", "--json", "--config-dir", str(own_configs), "mine")[1])
        return listed["experiments"][0]["parameters"]

    assert [counted(), counted()] == [3140, 3140]
    assert len(built) == 1, "the second count is read"
    mine = own_configs / "experiment" / "mine.yaml"
    mine.write_text(mine.read_text() + "model: {n_classes: 5}\n")
    assert [counted(), counted()] == [3925, 3925]
    assert len(built) == 2, "another config is counted again"
    monkeypatch.setattr(identity, "code_fingerprint", lambda: "other")
    assert counted() == 3925
    assert len(built) == 3, "with other code all are counted again"
    assert len(json.loads(own_cache.read_text())["counts"]) == 1, "counts of older code go away"
    own_cache.write_text('{"code": "other", "counts": {"a": "many"}}')
    assert counted() == 3925, "a damaged file is made again"
    assert len(built) == 4


def test_counting_shows_its_progress(own_configs, command, monkeypatch, own_cache):
    from dl_lab.datasets import progress

    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    error = command("list", "--params", "--config-dir", str(own_configs), "mine", "octmnist_cnn")[2]
    assert error.splitlines() == ["counting parameters: 0 of 2", "counting parameters: 1 of 2"]


def test_named_experiments_layer_by_layer(command, monkeypatch, own_cache):
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = command("list", "--params", "cifar_cnn2")
    assert code == 0
    assert "13,210 parameters" in out and "octmnist" not in out
    lines = [line.split() for line in out.splitlines()]
    first = next(line for line in lines if line[:2] == ["0", "Conv2d"])
    assert " ".join(first[2:]) == "32 x 32 x 32 896 (3 x 3 x 3 + 1) x 32 1.77"
    assert ["total", "13210", "2.84"] in lines
    assert max(map(len, out.splitlines())) <= 80
    listed = json.loads(command("list", "--params", "--json", "cifar_cnn2")[1])["experiments"]
    assert sum(row["parameters"] for row in listed[0]["layers"]) == listed[0]["parameters"] == 13_210


def test_a_missing_experiment_names_the_nearest(command):
    code, _, error = command("list", "cifar_cn2")
    assert code != 0
    assert "There is no experiment 'cifar_cn2'. Did you mean cifar_cnn2?" in error


def test_in_a_narrow_terminal_the_formula_stays(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = command("list", "--params", "vgg16c")[1]
    assert "(512 x 3 x 3 + 1) x 512" in out
    assert "Left out at this width: kind" in out
    assert max(map(len, out.splitlines())) <= 80
