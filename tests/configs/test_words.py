"""The answers to mistyped words and to mistakes in a folder of the user's own configs."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from dl_lab import configs
from dl_lab.configs.explain import not_an_override
from dl_lab.configs.words import did_you_mean
from dl_lab.types import ConfigError


@pytest.fixture(scope="module")
def composer() -> configs.Composer:
    return configs.Composer()


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("id=a b#c", """a blank and # in a text needs quotes:  'id="a b#c"'"""),
        ("id=a=b", """= in a text needs quotes:  'id="a=b"'"""),
        ("id=~/x", """~ in a text needs quotes:  'id="~/x"'"""),
        ("id=é", """é in a text needs quotes:  'id="é"'"""),
        ("id=it's", "in a text needs quotes:  "),
        ("id=a,b", "\"id='a,b'\""),
        ("seed=1,", "write a grid without blanks, seed=1, or put quotes around it"),
    ],
)
def test_what_needs_quotes_is_named_with_the_quoted_word(composer, word, says):
    with pytest.raises(ConfigError) as error:
        composer.compose([word])
    assert says in str(error.value)
    assert "token recognition" not in str(error.value)


@pytest.mark.parametrize("value", ["a b#c", "a=b", "~/x", "é", "it's", 'say "hi"', "a,b (c)"])
def test_the_quoted_word_that_is_offered_works(composer, value):
    import shlex

    offered = not_an_override(f"id={value}").partition("quotes:  ")[2]
    (word,) = shlex.split(offered)
    assert composer.compose([word]).config["id"] == value


def test_a_grid_with_blanks_is_offered_without_them():
    assert "seed=1,2,3" in not_an_override("2,", ["model=mlp", "seed=1,", "2,", "3"])
    assert "seed=1,2" in not_an_override("seed=1,", ["seed=1,", "2", "model=mlp"])


@pytest.mark.parametrize(
    ("wrong", "known", "near"),
    [
        ("Relu", ["relu", "tanh", "leaky_relu", "elu"], "relu"),
        ("relu", ["relu"], ""),
        ("learning_rate", ["lr", "momentum"], "lr"),
    ],
)
def test_the_nearest_name(wrong, known, near):
    assert did_you_mean(wrong, known) == (f" Did you mean {near}?" if near else "")


@pytest.fixture
def own(tmp_path):
    """Write a file of the user's own configs. Returns their folder."""

    def write(name: str, text: str) -> str:
        path = tmp_path / "own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(tmp_path / "own")

    return write


LINEAR = "_target_: dl_lab.models.linear.Linear\ninput_shape: ${dataset.input_shape}\nn_classes: ${dataset.n_classes}\n"


def test_a_file_replaces_a_shipped_one_only_on_purpose(own):
    folder = own("model/mlp.yaml", LINEAR)
    with pytest.raises(ConfigError, match="# replaces: model/mlp"):
        configs.Composer(folder)
    own("model/mlp.yaml", f"# replaces: model/mlp\n{LINEAR}")
    config = configs.Composer(folder).compose(["model=mlp"]).config
    assert config["model"]["_target_"] == "dl_lab.models.linear.Linear"


def test_a_wrong_ending_is_one_sentence_and_no_warning(own):
    folder = own("experiment/mine.yml", "# @package _global_\nseed: 3\n")
    with warnings.catch_warnings(), pytest.raises(ConfigError, match=r"Call it mine\.yaml"):
        warnings.simplefilter("error")
        configs.Composer(folder)


def test_a_wrong_nested_name_is_named(own):
    folder = own("experiment/mine/deep.yaml", "# @package _global_\nseed: 3\n")
    assert configs.Composer(folder).compose(["experiment=mine/deep"]).config["seed"] == 3
    with pytest.raises(ConfigError, match="There is no experiment"):
        configs.Composer(folder).compose(["experiment=mine/depe"])


def test_one_unreadable_file_does_not_empty_the_list(own, capsys):
    from dl_lab.commands import list_

    folder = own("experiment/bad.yaml", "# @package _global_\nseed: [\n")
    assert list_.main(["--config-dir", folder]) == 0
    shown = capsys.readouterr()
    assert "octmnist_cnn" in shown.out
    assert str(Path(folder) / "experiment" / "bad.yaml") in shown.err
