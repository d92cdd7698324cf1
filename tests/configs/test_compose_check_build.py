"""Configs: the answers to a user's mistakes, the allow-list, and what is built how often."""

from __future__ import annotations

import copy
import os

import pytest

from dl_lab import configs
from dl_lab.configs import targets
from dl_lab.configs.compose import Composer
from dl_lab.configs.words import did_you_mean
from dl_lab.jobs.rehearsal import rehearse
from dl_lab.types import ConfigError


@pytest.fixture(scope="module")
def composer() -> Composer:
    return Composer()


@pytest.fixture
def answer(composer, tmp_path, monkeypatch):
    """The answer to overrides, until after the first step on generated data. No file may be left behind."""
    monkeypatch.chdir(tmp_path)

    def ask(*overrides: str, within: Composer = composer) -> str:
        with pytest.raises(ConfigError) as wrong:
            _try(within, overrides)
        assert not (tmp_path / "outputs").exists()
        message = str(wrong.value)
        assert wrong.value.exit_code == 2
        assert len(message.splitlines()) <= 12, "more than one screen"
        assert "Traceback" not in message
        return message

    return ask


def _try(composer: Composer, overrides: tuple[str, ...]) -> None:
    config = composer.compose(overrides).config
    configs.check(config)
    rehearse(config)


# -- keys and values ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "trainer.max_epoch=3",
            ["no key 'trainer.max_epoch'", "Did you mean trainer.max_epochs?", "keys of trainer: max_"],
        ),
        ("optimizer.learning_rate=1", ["Did you mean optimizer.lr?"]),
        ("trianer.max_epochs=3", ["Did you mean trainer.max_epochs?"]),
        ("lr=0.1", ["Did you mean optimizer.lr?"]),
        ("modle=mlp", ["Did you mean model?"]),
        ("optimizer.momentum=0.9", ["It is a key of optimizer=sgd", "keys of optimizer: lr, weight_decay, fused"]),
        ("trainer.lr=0.1", ["Did you mean optimizer.lr?", "keys of trainer: max_"]),
        ("model.lr=0.1", ["It is a key of model=numpy_", "Did you mean optimizer.lr?"]),
        ("trainer.compile=true", ["Did you mean learner.compile?"]),
        # The key of a part that is not chosen, and the name of an option.
        ("momentum=0.9", ["optimizer.momentum is a key of optimizer=sgd"]),
        ("patience=3", ["callbacks.early_stopping.patience is a key of callbacks=early_stopping."]),
        ("trainer.patience=3", ["is a key of callbacks=early_stopping.", "keys of trainer: max_"]),
        ("early_stopping=true", ["Did you mean callbacks=early_stopping?"]),
        ("logger.wandb=true", ["Did you mean logger=wandb?"]),
        # What other tools call a key, or do with one.
        ("trainer.epochs=4", ["Did you mean trainer.max_epochs?"]),
        ("dataset.num_workers=2", ["Did you mean dataset.loading.workers?"]),
        ("gradient_clip_val=1", ["Did you mean learner.clip_norm?"]),
        ("net=cnn", ["Did you mean model?"]),
        ("trainer.gpus=1", ["Did you mean trainer.device?"]),
        ("ckpt_path=last.ckpt", ["To continue a run: dl-lab resume RUN."]),
        ("loss=mse", ["Did you mean task.loss?"]),
        ("trainer.accumulate_grad_batches=2", ["Did you mean learner.accumulation?"]),
        ("fp16=true", ["Did you mean learner.precision?"]),
        ("random_state=3", ["Did you mean seed?"]),
        ("fast_dev_run=true", ["For a quick try of everything: profile=smoke."]),
        ("run_name=large", ["A run has the name of its folder: hydra.run.dir=outputs/NAME."]),
        ("trainer.shuffle=false", ["dataset/order=in_order"]),
        ("model=mlpp", ["no model 'mlpp'", "Did you mean mlp?", "model: ", "linear, "]),
        ("experiment=octmnist_cn", ["no experiment 'octmnist_cn'", "Did you mean octmnist_cnn"]),
        ("trainer=", ["no trainer ''", "trainer: default"]),
        ("+foo=1", ["foo: nothing uses this key."]),
        ("+optimiser.lr=1", ["optimiser: nothing uses this key. Did you mean optimizer?"]),
        (
            "+model.width=1",
            ["model.width: dl_lab.models.mlp.MLP has no argument 'width'", "arguments: input_shape, n_cl"],
        ),
        ("+model.dropuot=1", ["Did you mean dropout?"]),
    ],
)
def test_unknown_names(answer, override, words):
    message = answer(override)
    assert [word for word in words if word not in message] == []


def test_the_place_of_the_data_has_one_name_for_each_kind(answer):
    assert "Did you mean dataset.folder?" in answer("dataset.path=pets", "dataset=image_folder")
    assert "Did you mean dataset.folder?" in answer("dataset.root=pets", "dataset=image_folder")
    assert "Did you mean dataset.path?" in answer("dataset.folder=pets", "dataset=table")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("mean=[0.5]", "normalise.mean"),
        ("std=[0.5]", "normalise.std"),
        ("convert=true", "decoding.convert"),
        ("unreadable=skip", "decoding.unreadable"),
        ("max_value=4095", "decoding.max_value"),
        ("n_per_class=9", "layout.n_per_class"),
        ("data_dir=x", "storage.data_dir"),
        ("cache_dir=x", "storage.cache_dir"),
        ("files=[]", "storage.files"),
        ("split_seed=1", "splits.seed"),
    ],
)
def test_an_older_flat_key_names_the_part_that_has_it_now(answer, old, new):
    """Another key of the command line may be unknown too."""
    message = answer(f"dataset.{old}", "dataset.shade=1", "dataset=image_folder", "dataset.folder=x")
    assert f"Did you mean dataset.{new}?" in message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optimizer.lr=high", ["optimizer.lr: 'high' (str)", "must be float"]),
        ("trainer.max_epochs=2.5", ["trainer.max_epochs: 2.5 (float)", "must be int"]),
        ("seed=abc", ["seed: 'abc' (str)", "must be int"]),
        ("deterministic=1", ["deterministic: 1 (int)", "must be bool"]),
        ("threads=two", ["threads: 'two' (str)"]),
        ("threads=0", ["threads: 0 is not at least 1"]),
        ("model.hidden=5", ["model.hidden: 5 (int)", "a list of int"]),
        ("model.hidden=[16,b]", ["model.hidden: [16, 'b'] (list)", "a list of int"]),
        ("model.activation=rleu", ["one of relu, tanh", "Did you mean relu?"]),
        ("trainer.mode=maximum", ["one of min, max. Did you mean max?"]),
        ("optimizer.lr=-1", ["learner: Invalid learning rate: -1"]),
        ("trainer.max_epochs=0", ["trainer: max_epochs, batch_size and eval_batch_size must be at least 1"]),
        ("trainer.monitor=test/accuracy", ["trainer: monitor 'test/accuracy' is not a val/ metric"]),
        ("trainer.monitor=val/acc", ["monitor 'val/acc' is not measured; there are val/accuracy"]),
        ("model.input_shape=[1,5,5]", ["do not fit together", "RuntimeError", "mat1 and mat2"]),
        ("optimizer.lr=???", ["optimizer.lr has no value yet", "optimizer.lr=..."]),
        ("optimizer.lr=${nothing.here}", ["optimizer.lr: ${nothing.here} names a key that this config does not have"]),
        ("optimizer.lr=${optimizer.lr}", ["optimizer.lr: this interpolation leads back to itself"]),
        ("+reference.accuracy=high", ["reference.accuracy: must be a mapping with a number as value"]),
    ],
)
def test_wrong_values(answer, override, words):
    message = answer(override)
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("a=[1", ["'a=[1' is not an override like key=value", "'key=[1, 2]'"]),
        ("=3", ["'=3' is not an override"]),
        ("optimizer.lr=0.1,0.01", ["gives several values: add -m", "optimizer.lr=[0.1,0.01]"]),
        ("model=null", ["learner.model: ${model} names a key", "Choose one with model=NAME"]),
        ("dataset=air_quality", ["This model does not fit this dataset, which has no input_shape", "with model=NAME"]),
        ("~logger", ["logger: none is chosen. Choose one with logger=NAME"]),
        ("~procedure", ["procedure: none is chosen"]),
        ("+seed=1", ["already at 'seed'", "remove + prefix"]),
        ("model=3", ["model: 3 is not the name of an option", "  model: "]),
        ("callbacks=[1,2]", ["callbacks: [1,2] is not the name of an option", "early_stopping"]),
        ("+dataset@extra=[mnist,true]", ["dataset@extra: [mnist,true] is not the name of an option"]),
        ("profile=[smoke]", ["profile takes one name: profile=NAME."]),
        ("callbacks={a: 1}", ["There is no key 'callbacks.a'", "  to add it: '+callbacks={a: 1}'"]),
        ("callbacks.curves={a: 1}", ["There is no key 'callbacks.curves.a'"]),
        ("model.hidden={a: 1}", ["model.hidden={a: 1} does not fit: the config has a list there, not a mapping."]),
        ("hydra.run.dir=[1]", ["hydra.run.dir=[1] does not fit: Cannot convert 'list' to string"]),
    ],
)
def test_wrong_words(answer, override, words):
    message = answer(override)
    assert [word for word in words if word not in message] == []


def test_an_early_stopping_metric_that_is_not_measured(answer):
    message = answer("callbacks=early_stopping", "callbacks.early_stopping.monitor=val/f1")
    assert "monitor 'val/f1' is not measured" in message


def test_keys_of_another_data_set(answer):
    message = answer("dataset=mnist", "dataset.test_set=all")
    assert "It is a key of dataset=oct" in message
    assert "keys of dataset: " in message


def test_null_leaves_a_group_out(composer):
    chosen = composer.compose(["experiment=octmnist_cnn", "scheduler=cosine"])
    none = composer.compose(["experiment=octmnist_cnn", "scheduler=null"])
    assert chosen.config["scheduler"]["_target_"].endswith("schedules.cosine")
    assert none.config["scheduler"] is None
    assert none.config["learner"]["scheduler"] is None
    assert composer.compose(["logger=null"]).config["logger"]["_target_"] == "dl_lab.runs.board.NoBoard"


# -- a user's own folder ------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path):
    """Write a config into a folder of the user's own. Returns a composer that reads it."""

    def write(name: str, text: str) -> Composer:
        path = tmp_path / "own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return Composer(str(tmp_path / "own"))

    return write


def test_broken_yaml_names_file_and_line(own, answer):
    within = own("experiment/broken.yaml", "# @package _global_\nseed: 1\n  trainer: {max_epochs: 3\n")
    message = answer("experiment=broken", within=within)
    assert "broken.yaml, line 3 is not valid YAML: mapping values are not allowed here." in message
    assert "trainer: {max_epochs: 3" in message


def test_a_key_of_a_yaml_that_nothing_uses_is_refused(own, answer):
    within = own("experiment/mine.yaml", "# @package _global_\noptimiser: {lr: 1}\n")
    assert "optimiser: nothing uses this key. Did you mean optimizer?" in answer("experiment=mine", within=within)


def test_an_own_key_that_an_interpolation_uses_is_allowed(own):
    within = own("experiment/mine.yaml", "# @package _global_\nwidth: 8\nmodel: {hidden: ['${width}', '${width}']}\n")
    assert within.compose(["experiment=mine"]).config["model"]["hidden"] == [8, 8]


def test_a_missing_file_of_the_defaults_list_is_named(own, answer):
    within = own("experiment/mine.yaml", "# @package _global_\ndefaults:\n  - override /model: mpl\n")
    assert "There is no model 'mpl'. Did you mean mlp?" in answer("experiment=mine", within=within)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("trainer: {max_epochs: 1}\n", 'add the line "# @package _global_" at the top'),
        ("# Why?\n# @package _global_\ntrainer: {max_epochs: 1}\n", "would set nothing: move line 2 to the top"),
        ("# @packge _global_\ntrainer: {max_epochs: 1}\n", 'add the line "# @package _global_" at the top'),
        ("# @package: _global_\ntrainer: {max_epochs: 1}\n", 'add the line "# @package _global_" at the top'),
        ("# @package _global_ all\nseed: 1\n", 'add the line "# @package _global_" at the top'),
        ("", 'is empty: write the keys that it sets and "# @package _global_" above them'),
        ("# @package _global_\n# Why?\n", "is empty"),
        ("# @package _global_\n- a\n- b\n", "a config is a mapping of keys to values; this is a list"),
        ("# @package _global_\nseed\n", "a config is a mapping of keys to values; this is a str"),
        (
            "# @package _global_\ndefaults: [override /modle: mlp, _self_]\n",
            "experiment/mine.yaml overrides 'modle', which is no group. Did you mean model?",
        ),
        ("# @package _global_\ndefaults: [override model: mlp]\n", "write `override /model: ...`, with a slash"),
        ("# @package _global_\ndefaults: [/model: mlp]\n", "model is chosen twice"),
    ],
)
def test_an_experiment_that_would_set_nothing_is_refused(own, answer, text, words):
    message = answer("experiment=mine", within=own("experiment/mine.yaml", text))
    assert words in message
    assert "mine.yaml" in message or "chosen twice" in message


def test_a_file_that_leaves_a_group_out(own):
    assert own("callbacks/nothing.yaml", "{}\n").compose(["callbacks=nothing"]).config["callbacks"] == {}
    within = own("experiment/mine.yaml", "#   @package   _global_\n\n# Why?\nseed: 3\n")
    assert within.compose(["experiment=mine"]).config["seed"] == 3


@pytest.mark.parametrize(
    ("overrides", "unread"),
    [
        (["optimizer.lr=0.1", "model.hidden=[8]", "trainer.max_epochs=1", "seed=1", "model=mlp"], []),
        (["learner=mine", "optimizer.lr=0.1", "model.hidden=[9]"], ["optimizer.lr", "model.hidden"]),
        (["learner=mine", "optimizer=sgd", "scheduler=cosine"], ["optimizer", "scheduler"]),
        (["learner=mine", "learner.model.width=9", "trainer.device=cpu", "scheduler=none", "logger=none"], []),
        (["learner=mine", "+callbacks.more.every=2", "~callbacks.curves"], []),
        (["learner=mine", "+dataset.unused=1"], []),
        (["learner=sees_a_rate", "optimizer.lr=0.1"], []),
        (["learner=sees_a_rate", "optimizer.weight_decay=0.1"], ["optimizer.weight_decay"]),
    ],
)
def test_keys_that_nothing_reads_are_refused(own, overrides, unread):
    own("learner/mine.yaml", "_target_: mine.Learner\nmodel: {_target_: mine.Net, width: 1}\n")
    within = own("learner/sees_a_rate.yaml", "_target_: mine.Learner\nrate: ${optimizer.lr}\nsame: ${.rate}\n")
    assert list(within.compose(overrides).unread) == unread


def test_a_file_with_the_name_of_a_shipped_one_is_refused(own):
    with pytest.raises(ConfigError, match=r"model/mlp\.yaml has the name of a config that dl-lab ships"):
        own("model/mlp.yaml", "_target_: torch.nn.Identity\n")


def test_a_config_dir_that_is_no_folder_is_refused():
    with pytest.raises(ConfigError, match="--config-dir nowhere is not a folder"):
        Composer("nowhere")


def test_a_missing_main_config_is_named():
    with pytest.raises(ConfigError, match="There is no config 'nothing'"):
        Composer(config_name="nothing").compose([])


# -- building -----------------------------------------------------------------------------------------------------

NAMESPACE = {"_target_": "types.SimpleNamespace"}


@pytest.mark.parametrize(
    "described",
    [
        {**NAMESPACE, "a": 1, "b": [1, {"c": None}], "d": {"e": 2.5}},
        {**NAMESPACE, "inner": {**NAMESPACE, "many": [{**NAMESPACE, "i": 0}, {**NAMESPACE, "i": 1}]}},
        {**NAMESPACE, "plain": {"below": {**NAMESPACE, "x": "y"}}},
        {**NAMESPACE, "inner": {**NAMESPACE, "x": 1}, "_recursive_": False},
        {**NAMESPACE, "half": {"_target_": "fractions.Fraction", "_args_": [1, 2]}},
        {**NAMESPACE, "_convert_": "all", "_partial_": False, "x": [1]},
        {"_target_": "fractions.Fraction", "_args_": [3], "denominator": 4},
    ],
)
def test_parts_are_built_by_hydras_rules(described, monkeypatch):
    from hydra.utils import instantiate

    monkeypatch.setenv(targets.ALLOW_VARIABLE, "types,fractions")
    before = copy.deepcopy(described)
    built = configs.build({"part": described}, "part")
    assert built == instantiate(described, _convert_="object")
    assert described == before
    partial = configs.build({"part": {**described, "_partial_": True}}, "part")
    theirs = instantiate({**described, "_partial_": True}, _convert_="object")
    assert (partial.func, partial.args, partial.keywords) == (theirs.func, theirs.args, theirs.keywords)


def test_a_constructor_gets_copies_of_its_arguments(monkeypatch):
    monkeypatch.setenv(targets.ALLOW_VARIABLE, "types")
    described = {**NAMESPACE, "many": [1], "kept": {"a": [1]}}
    for recursive in (True, False):
        built = configs.build({"part": {**described, "_recursive_": recursive}}, "part")
        built.many.append(2)
        built.kept["a"].append(2)
    assert described["many"] == [1]
    assert described["kept"] == {"a": [1]}


# -- what a config may name ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "subprocess.run",
        "dl_lab.runs.recorder.os.system",
        "dl_lab.runs.recorder.Run",
        "dl_lab.cli.main",
        "dl_lab.commands.train.main",
        "dl_lab.configs.build.build",
        "torch.os.system",
        "torch.load",
        "torch.save",
        "torch.hub.load",
        "torch.utils.cpp_extension.load",
        "torch.serialization.os.system",
        "torchvision.datasets.MNIST",
        "torchaudio.load",
        "hydra.utils.instantiate",
        "dl_lab.datasets.download.fetch",
        "dl_lab.datasets.download.extract",
        "dl_lab.datasets.sets.octmnist.ensure",
        "dl_lab.datasets.files.fetch",
        "dl_lab.datasets.files.shutil.rmtree",
        "dl_lab.datasets.sets.octmnist.Path",
        "dl_lab.datasets.sets.octmnist._read",
        "dl_lab.runs.checkpoints.save",
        "dl_lab.runs.checkpoints.os.remove",
        "dl_lab.runs.checkpoints.write_atomic",
        "dl_lab.stopping.signal.raise_signal",
        "dl_lab.tasks.classification.F",
        "torch.nn.modules.module.Path",
        "dl_lab.models",
        "dl_lab",
        "",
        ".",
        "dl_lab.models..mlp.MLP",
        "DL_LAB.models.mlp.MLP",
        17,
        None,
    ],
)
def test_targets_outside_the_allow_list_are_refused(target):
    with pytest.raises(ConfigError, match=r"^model\._target_: ") as refused:
        targets.locate("model", target)
    assert str(target).partition(".")[0] in str(refused.value)


def test_refused_at_any_depth_before_anything_is_built(composer, tmp_path):
    mark = tmp_path / "mark"
    evil = f"{{_target_: os.system, command: 'touch {mark}'}}"
    for override in (f"+trainer.callbacks.evil={evil}", f"+callbacks.evil={evil}", f"model.hidden=[{evil}]"):
        config = composer.compose([override]).config
        with pytest.raises(ConfigError, match=r"os\.system is not allowed in a config"):
            configs.check(config)
    assert not mark.exists()


@pytest.mark.parametrize(
    "target",
    [
        "torch.nn.Linear",
        "torch.optim.SGD",
        "torch.optim.lr_scheduler.StepLR",
        "torchvision.models.resnet18",
        "dl_lab.models.mlp.MLP",
        "dl_lab.datasets.sets.digits.digits",
        "dl_lab.runs.tensorboard.TensorBoard",
        "dl_lab.runs.board.NoBoard",
    ],
)
def test_targets_of_the_allow_list_are_allowed(target):
    assert targets.locate("model", target).__name__ == target.rpartition(".")[2]


def test_a_users_package_is_allowed_by_the_user_only(tmp_path, monkeypatch):
    (tmp_path / "my_nets.py").write_text("import os\nclass Net:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="set DL_LAB_ALLOW=package in the environment"):
        targets.locate("model", "my_nets.Net")
    monkeypatch.setenv("DL_LAB_ALLOW", "my_nets")
    assert targets.locate("model", "my_nets.Net").__name__ == "Net"
    with pytest.raises(ConfigError, match=r"cannot be imported|there is no module"):
        targets.locate("model", "my_nets.os.system")
    (tmp_path / "my_broken.py").write_text("x = 1 / 0\n")
    monkeypatch.setenv("DL_LAB_ALLOW", "my_nets,my_broken")
    with pytest.raises(ConfigError, match=r"my_broken cannot be imported \(ZeroDivisionError: division by zero\)"):
        targets.locate("model", "my_broken.Net")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("dl_lab.models.mlp.MPL", r"dl_lab\.models\.mlp has no 'MPL'\. Did you mean MLP\?"),
        ("dl_lab.models.mpl.MLP", r"there is no module dl_lab\.models\.mpl\. Did you mean mlp\?"),
        ("torch.nn.Linaer", r"torch\.nn has no 'Linaer'\. Did you mean Linear\?"),
    ],
)
def test_a_misspelt_target_names_the_nearest(target, words):
    with pytest.raises(ConfigError, match=words):
        targets.locate("model", target)


def test_a_function_that_is_called_without_its_arguments_is_told_how_it_is_given():
    words = "task.loss={_target_: torch.nn.functional.multi_margin_loss}"
    config = configs.Composer().compose([words]).config
    with pytest.raises(
        ConfigError, match=r"needs a value for input, target\. To give the function itself: _partial_: true"
    ):
        configs.check(config)


def test_missing_arguments_are_named():
    config = {"model": {"_target_": "dl_lab.models.linear.Linear", "n_classes": 3}}
    with pytest.raises(ConfigError, match=r"model: dl_lab\.models\.linear\.Linear needs a value for input_shape\."):
        configs.check(
            {
                **config,
                "procedure": {"_target_": "dl_lab.runs.board.NoBoard"},
                "logger": {"_target_": "dl_lab.runs.board.NoBoard"},
            }
        )


# -- words --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "known", "near"),
    [
        ("acuracy", ["accuracy", "loss"], " Did you mean accuracy?"),
        ("lr", ["optimizer.lr", "seed"], " Did you mean optimizer.lr?"),
        ("batch_size", ["bs", "seed"], " Did you mean bs?"),
        ("xyz", ["accuracy", "loss"], ""),
        ("", ["accuracy"], ""),
        ("anything", [], ""),
    ],
)
def test_the_nearest_name_is_suggested(wrong, known, near):
    assert did_you_mean(wrong, known) == near


# -- what is built ------------------------------------------------------------------------------------------------


def test_defaults_compose_and_build_each_part_once(composer, monkeypatch):
    import torch

    built = []
    original = torch.nn.Linear.__init__
    monkeypatch.setattr(
        torch.nn.Linear, "__init__", lambda self, *a, **k: (built.append(a), original(self, *a, **k))[1]
    )
    config = composer.compose(["model.hidden=[8]", "trainer.batch_size=4"]).config
    experiment = configs.build(config, "procedure")
    assert len(built) == 2
    assert experiment.learner.model is not None
    assert experiment.trainer.batch_size == 4


def test_choices_and_overrides_are_kept(composer):
    composed = composer.compose(["experiment=octmnist_cnn", "optimizer.lr=0.5"])
    chosen = {"experiment": "octmnist_cnn", "dataset": "octmnist", "model": "pooled_cnn", "optimizer": "sgd"}
    assert composed.choices.items() >= chosen.items()
    assert not {"profile", "local", "profile@_global_"} & composed.choices.keys()
    assert composed.overrides == ["experiment=octmnist_cnn", "optimizer.lr=0.5"]


def test_the_environment_names_the_data_folder(composer, monkeypatch):
    monkeypatch.setenv("DL_LAB_DATA", "/some/where")
    assert composer.compose(["dataset=mnist"]).config["dataset"]["storage"]["data_dir"] == "/some/where"
    monkeypatch.delenv("DL_LAB_DATA")
    assert composer.compose([]).config["paths"]["data_dir"] == "~/.cache/dl-lab"


def test_two_runs_never_share_a_folder(composer):
    folders = {composer.compose([]).run_dir for _ in range(5)}
    assert len(folders) == 5
    assert all(folder.startswith("outputs" + os.sep) for folder in folders)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("callbacks: {mine: {_target_: os.system}}", "hydra.callbacks"),
        ("job: {env_set: {LD_PRELOAD: mine.so}}", "hydra.job.env_set"),
        ("sweeper: {_target_: mine.Sweeper}", "hydra.sweeper"),
        ("launcher: {_target_: mine.Launcher}", "hydra.launcher"),
    ],
)
def test_parts_of_hydra_that_are_never_executed_are_refused(tmp_path, text, part):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n# Is it ignored?\nhydra: {{{text}}}\n")
    with pytest.raises(ConfigError, match=f"{part}: dl-lab does not execute this part of Hydra"):
        configs.Composer(str(tmp_path)).compose(["experiment=mine"])
