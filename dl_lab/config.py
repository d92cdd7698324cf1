"""Configs: compose, check, build. The only file that imports Hydra besides sweeps/.

A config is data, not a program: it is resolved to plain values first; every `_target_` in it must lie inside the
allow-list, exist, and take the arguments given; only then is anything built, and from those same plain values.
"""

from __future__ import annotations

import copy
import difflib
import functools
import json
import math
import os
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dl_lab import catalogue, preload
from dl_lab.judge import check_reference
from dl_lab.targets import check_call, check_type, did_you_mean, listed, locate, targets
from dl_lab.types import ConfigError, UserError

CONFIG_MODULE = "dl_lab.conf"
MANY = 48  # options of a group: more of them fill a screen, and only the nearest are shown
SWEEP_GROUPS = ("launcher", "pruner", "search")  # how a sweep is run: no part of a job's own config
SETTINGS = {"seed": int, "deterministic": bool, "threads": int | None, "id": str | None}


@dataclass(frozen=True)
class Composed:
    """One job's configuration: resolved plain values, and where they came from."""

    config: dict[str, Any]
    run_dir: str
    overrides: list[str]
    choices: dict[str, str]
    hydra_yaml: str


class Composer:
    """Composes jobs from the shipped `conf/` and a user's own folder."""

    def __init__(self, config_dir: str | None = None, config_name: str = "config") -> None:
        from hydra._internal.config_loader_impl import ConfigLoaderImpl
        from hydra._internal.utils import create_config_search_path
        from hydra.core.utils import setup_globals
        from omegaconf import OmegaConf

        search_path = create_config_search_path(f"pkg://{CONFIG_MODULE}")
        if config_dir is not None:
            catalogue.refuse_shadowing(config_dir)
            search_path.prepend("command-line", f"file://{Path(config_dir).resolve()}", "schema")  # as Hydra does
        setup_globals()
        OmegaConf.register_new_resolver("run_id", _new_id, replace=True)
        OmegaConf.register_new_resolver("product", math.prod, replace=True)  # n_features from an input_shape
        self.config_name, self.loader, self.config_dir = config_name, ConfigLoaderImpl(search_path), config_dir
        self._asked: tuple[list[str], Any] = ([], None)  # what is_multirun has loaded: composing it takes 0.1 s

    def load(self, overrides: Sequence[str], multirun: bool = False) -> Any:
        """The composed config as Hydra's DictConfig. Raises ConfigError in the user's words."""
        from hydra.core.hydra_config import HydraConfig
        from hydra.errors import HydraException
        from hydra.types import RunMode
        from omegaconf.errors import OmegaConfBaseException
        from yaml import YAMLError

        mode = RunMode.MULTIRUN if multirun else RunMode.RUN
        try:
            config = self.loader.load_configuration(self.config_name, self.in_hydras_words(overrides), mode)
        except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
            raise ConfigError(self._explain(error, overrides)) from error
        self._refuse_unused(config)
        HydraConfig.instance().set_config(config)
        return config

    def in_hydras_words(self, overrides: Sequence[str]) -> list[str]:
        """`logger=null` as the group's own `logger=none`, else as `~logger`: Hydra takes no null for a group."""
        groups = self.group_names()
        return [self._nothing_of(word[:-5]) if _is_null(word, groups) else word for word in overrides]

    def _nothing_of(self, group: str) -> str:
        return f"{group}=none" if "none" in self.loader.get_group_options(group) else f"~{group}"

    def _refuse_unused(self, config: Any) -> None:
        """Raises ConfigError for a top-level key, of `+key=1` or of a YAML, that is none of ours and no ${key}."""
        from omegaconf import OmegaConf

        own = catalogue.main_keys(self.config_name, self.config_dir)
        known = {*own, *self.group_names(), "hydra"}
        unknown = [str(key) for key in config if key not in known]
        if not unknown:
            return
        text = OmegaConf.to_yaml(OmegaConf.masked_copy(config, [key for key in config if key != "hydra"]))
        for key in unknown:
            if not re.search(rf"\$\{{{re.escape(key)}\b", text):
                raise ConfigError(f"{key}: nothing uses this key.{did_you_mean(key, sorted(known))}")

    def is_multirun(self, overrides: Sequence[str]) -> bool:
        """Whether hydra.mode, in the config or on the command line, asks for a sweep without -m."""
        if any(word == "hydra.mode=MULTIRUN" for word in overrides):
            return True
        config = self.load(overrides)
        self._asked = (list(overrides), config)
        if str(config.hydra.mode) in ("MULTIRUN", "RunMode.MULTIRUN"):
            return True
        for group in SWEEP_GROUPS:
            choice = config.hydra.runtime.choices.get(group)
            if choice not in (None, "null", "none", "local"):
                raise ConfigError(f"{group}={choice} is how a sweep is run: add -m, and what varies (seed=0,1).")
        return False

    def compose(self, overrides: Sequence[str]) -> Composed:
        """One job, resolved. Raises ConfigError for an unknown key or value, and for what is still missing."""
        (asked, loaded), self._asked = self._asked, ([], None)
        config = loaded if loaded is not None and asked == list(overrides) else self.load(overrides)
        return resolve(config, overrides)

    def group_names(self) -> list[str]:
        """The config groups, Hydra's own included."""
        return self.loader.list_groups("")

    def groups(self) -> dict[str, list[str]]:
        """Config group -> its options. To read all their folders takes 0.1 s."""
        return {
            name: sorted(self.loader.get_group_options(name))
            for name in self.group_names()
            if name != "hydra" and self.loader.get_group_options(name)
        }

    def data_files(self, name: str) -> tuple[list[dict[str, Any]], str]:
        """The `files:` of a data set, or of word vectors, and the data folder. Raises ConfigError for another name."""
        from omegaconf import OmegaConf

        group = "vectors" if name in self.loader.get_group_options("vectors") else "dataset"
        config = self.load([f"{group}={name}"])
        files: Any = OmegaConf.to_container(config[group].get("files") or OmegaConf.create([]), resolve=True)
        return files, str(config[group].get("data_dir") or config.paths.data_dir)

    def _explain(self, error: Exception, overrides: Sequence[str]) -> str:
        """Hydra's message in one screen, with the nearest valid name."""
        from hydra.errors import MissingConfigException, OverrideParseException
        from omegaconf.errors import OmegaConfBaseException
        from yaml import YAMLError

        if isinstance(error, OverrideParseException):
            return _not_an_override(error.override)
        if isinstance(error, MissingConfigException) and error.missing_cfg_file:
            return self._no_such_option(str(error.missing_cfg_file), error.options)
        if isinstance(error, YAMLError):
            file = getattr(getattr(error, "problem_mark", None), "name", "a config")
            return catalogue.describe_yaml_error(error, file)
        if unknown := re.search(r"Could not override '([^']+)'", str(error)):
            return self._no_such_key(unknown[1], overrides)
        if several := re.search(r"Ambiguous value for argument '([^']+)'", str(error)):
            key, _, values = several[1].partition("=")
            return (
                f"{several[1]} gives several values: add -m to try each one (a sweep).\n"
                f"  a list: {key}=[{values}]   a text: \"{key}='{values}'\""
            )
        if isinstance(error, OmegaConfBaseException):
            return _explain_value(error)
        if isinstance(error, ValueError):  # a group without an option, a key without a name
            wrong = [word for word in overrides if not re.match(r"[+~]{0,2}[\w/.@:-]+(=|$)", word)]
            return _not_an_override(wrong[0]) if wrong else _tidy(error)
        return _tidy(error)

    def _no_such_option(self, name: str, options: Sequence[str] | None) -> str:
        group, _, option = name.rpartition("/")
        known = sorted(o for o in options or self.loader.get_group_options(group) if not o.startswith("_"))
        if not group:
            return f"There is no config {option!r}: --config-name is a main config like config.yaml."
        hint = did_you_mean(option, known)
        if len(known) > MANY:
            near = difflib.get_close_matches(option, known, n=MANY // 4, cutoff=0.3)
            shown = "\n" + listed("near it", near) if near else ""
            return f"There is no {group} {option!r} among {len(known)}.{hint}{shown}\n  dl-lab list shows all of them."
        shown = "\n" + listed(group, known) if known else ""
        return f"There is no {group} {option!r}.{hint}{shown}"

    def _no_such_key(self, key: str, overrides: Sequence[str]) -> str:
        """What a key could have been: its siblings; else the nearest of all."""
        wrong = f"There is no key {key!r} in this config."
        rest = [word for word in overrides if word.lstrip("+~").partition("=")[0] != key]
        try:
            known = [*key_paths(self.load(rest))]
        except ConfigError:
            return wrong + did_you_mean(key, self.group_names())
        parent, _, last = key.rpartition(".")
        siblings = [path.rpartition(".")[2] for path in known if parent and path.rpartition(".")[0] == parent]
        siblings = [name for name in siblings if not name.startswith("_")]
        if not siblings:
            return wrong + did_you_mean(key, [*known, *self.group_names()])
        near = did_you_mean(last, siblings).replace("mean ", f"mean {parent}.") or self._options_with(parent, last)
        return f"{wrong}{near}\n{listed(f'keys of {parent}', siblings)}"

    def _options_with(self, group: str, key: str) -> str:
        """`momentum` under optimizer=adam: which of the group's options have that key."""
        have = [e.name for e in catalogue.entries(group, self.config_dir) if key in e.content]
        return f" It is a key of {', '.join(f'{group}={name}' for name in have)}." if have else ""


def resolve(config: Any, overrides: Sequence[str]) -> Composed:
    """Plain values of a composed config. Raises ConfigError for a missing value or a broken interpolation."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    own = OmegaConf.masked_copy(config, [key for key in config if key not in ("hydra", *SWEEP_GROUPS)])
    try:
        missing = sorted(OmegaConf.missing_keys(own))
        if missing:
            raise ConfigError(f"{missing[0]} has no value yet: give it on the command line, {missing[0]}=...")
        hydra = config.hydra
        run_dir, chosen = str(hydra.run.dir), hydra.runtime.choices.items()
        plain: Any = OmegaConf.to_container(own, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(_explain_value(error)) from error
    aside = ("hydra/", "adapt", "local", *SWEEP_GROUPS)
    choices = {k: str(v) for k, v in chosen if v not in (None, "null") and not k.startswith(aside)}
    return Composed(
        plain, run_dir, list(overrides), choices, OmegaConf.to_yaml(OmegaConf.masked_copy(config, ["hydra"]))
    )


def plain(node: Any) -> Any:
    """The resolved plain values of a DictConfig."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(node, resolve=True)


# -- check --------------------------------------------------------------------------------------------------------


def check(config: Mapping[str, Any]) -> None:
    """Settings have their types, every `_target_` is allowed, exists and takes its arguments. Builds nothing.

    Raises ConfigError with the config path.
    """
    for name, hint in SETTINGS.items():
        if name in config:
            check_type(name, config[name], hint)
    if config.get("threads") is not None and config["threads"] < 1:
        raise ConfigError(f"threads: {config['threads']} is not at least 1.")
    for part in ("procedure", "logger"):
        if not isinstance(config.get(part), Mapping) or "_target_" not in config[part]:
            raise ConfigError(f"{part}: none is chosen; choose one with {part}=NAME (see dl-lab --help).")
    check_reference(config.get("reference") or {})
    preload.torch()  # nearly every target needs it
    for path, node in targets(config):
        check_call(path, node, locate(path, node["_target_"]))


# -- build --------------------------------------------------------------------------------------------------------


def build(config: Mapping[str, Any], key: str) -> Any:
    """The object that `config[key]` describes; everything below it is built exactly once.

    Raises UserError when a constructor refuses its arguments (ValueError, TypeError), naming the config path.
    """
    described, loaded = dict(config[key]), {}
    if key_of(described.get("dataset")) in _LOADED:
        loaded["dataset"] = _LOADED[key_of(described.pop("dataset"))]
    try:
        return _built(described, key, loaded)
    except _Refused as refusal:
        cause = refusal.__cause__ or refusal
        if isinstance(cause, UserError) or "OutOfMemory" in type(cause).__name__:
            raise cause from None
        raise ConfigError(f"{_short_path(config, refusal.path)}: {_fault(cause)}") from cause


class _Refused(Exception):
    """A constructor's exception (the cause), and the config path of what it was to build."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


def _built(value: Any, path: str, ready: Mapping[str, Any] | None = None) -> Any:
    """What `hydra.utils.instantiate(value, _convert_="object", **ready)` gives (a test compares them).

    Its rules on plain values: Hydra's own makes four copies of the config as OmegaConf nodes, which for a job of a
    sweep is a tenth of its time, and has an allow-list of its own kind.
    """
    if isinstance(value, list):
        return [_built(item, f"{path}.{i}") for i, item in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    if "_target_" not in value:
        return {name: _built(item, f"{path}.{name}") for name, item in value.items()}
    target = locate(path, value["_target_"])
    given = {name: item for name, item in value.items() if name not in INSTRUCTIONS}
    if value.get("_recursive_", True):
        arguments = {name: _built(item, f"{path}.{name}") for name, item in given.items()}
        positional = _built(value.get("_args_", []), path)
    else:
        arguments, positional = copy.deepcopy((given, value.get("_args_", [])))
    arguments |= ready or {}
    try:
        if value.get("_partial_"):
            return functools.partial(target, *positional, **arguments)
        return target(*positional, **arguments)
    except Exception as error:
        raise _Refused(path) from error


INSTRUCTIONS = ("_target_", "_args_", "_partial_", "_recursive_", "_convert_")


def _short_path(config: Mapping[str, Any], path: str) -> str:
    """procedure.learner.model is what the user calls model: the shortest end of the path that names the same part."""
    parts = path.split(".")
    for tail in [parts[i:] for i in range(len(parts) - 1, 0, -1)]:
        node = _at(config, tail)
        if isinstance(node, Mapping) and node.get("_target_") == _at(config, parts).get("_target_"):
            return ".".join(tail)
    return path


def _at(config: Mapping[str, Any], keys: Sequence[str]) -> Any:
    node: Any = config
    for key in keys:
        node = node.get(key, {}) if isinstance(node, Mapping) else {}
    return node


def _fault(error: BaseException) -> str:
    """What a part said when it refused its arguments; for what looks like a bug, also its kind and where it is."""
    message = _first_line(str(error))
    if isinstance(error, ValueError | TypeError | AssertionError) and message:
        return message
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {message}{place}"


def build_checked(node: Mapping[str, Any], name: str) -> Any:
    """What a part beside the job's own config describes. Raises ConfigError for wrong targets and arguments."""
    for path, part in targets(node, name):
        check_call(path, part, locate(path, part["_target_"]))
    return build({name: node}, name)


def load_dataset(config: Mapping[str, Any]) -> None:
    """Build the data set of a job now, for all later jobs of this process (and its forks) that describe the same."""
    dataset = config["procedure"].get("dataset")
    if isinstance(dataset, Mapping) and "_target_" in dataset:
        _LOADED[key_of(dataset)] = build({"dataset": dataset}, "dataset")


_LOADED: dict[str, Any] = {}


def key_of(description: Any) -> str:
    """Equal for equal descriptions."""
    return json.dumps(description, sort_keys=True, default=str)


def rehearse(config: Mapping[str, Any]) -> Any:
    """Build the experiment on a little generated data and run one step. Raises ConfigError; returns what was built."""
    import torch

    built = build({**config, "procedure": _small(config["procedure"])}, "procedure")
    if not hasattr(built, "rehearse"):
        return built
    try:
        built.rehearse()
    except torch.cuda.OutOfMemoryError:
        raise
    except ConfigError:
        raise
    except Exception as error:  # anything that a model, task or optimizer may raise
        raise ConfigError(
            f"The parts do not fit together, a first step on generated data fails.\n  {_fault(error)}"
        ) from error
    return built


def _small(procedure: Mapping[str, Any]) -> dict[str, Any]:
    """The same parts on a little generated data, not compiled."""
    small = dict(procedure)
    for part in ("dataset", "vectors"):
        if isinstance(small.get(part), Mapping) and "source" in small[part]:
            small[part] = {**small[part], "source": "generated", "n_generated": 16}
    if isinstance(small.get("learner"), Mapping) and small["learner"].get("compile"):
        small["learner"] = {**small["learner"], "compile": False}  # half a minute, and the same parts
    return small


def read_config(folder: Path) -> dict[str, Any]:
    """The frozen config of a run, checked again. Raises UserError where it cannot be read."""
    import yaml

    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        config["procedure"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        problem = catalogue.describe_yaml_error(error, folder / "config.yaml")
        raise UserError(f"This run's config cannot be read. {problem}") from error
    check(config)
    return config


def count_parameters(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """(all, trainable) of what the experiment trains, built without memory where its parts allow; None: nothing.

    Raises ConfigError where it cannot be built.
    """
    import torch

    procedure = config["procedure"]
    learner = procedure.get("learner")
    if not isinstance(learner, Mapping):
        return None
    if "optimizer" in learner:  # nothing is updated here, and fused ones refuse parameters without memory
        learner = {**learner, "optimizer": {"_target_": "torch.optim.SGD", "_partial_": True}, "scheduler": None}
    try:
        with torch.device("meta"):
            return build({"learner": learner}, "learner").n_parameters()
    except (ConfigError, RuntimeError, NotImplementedError):
        return build({"learner": learner}, "learner").n_parameters()


def describe_layers(config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of `training.summary.layers` for what the experiment trains; [] where that is no torch model."""
    from dl_lab.training.learners import GradientLearner
    from dl_lab.training.summary import layers

    procedure = _small(config["procedure"])
    if not {"dataset", "learner"} <= procedure.keys():
        return []
    learner: Any = build({"learner": procedure["learner"]}, "learner")
    if not isinstance(learner, GradientLearner):
        return []
    dataset: Any = build({"dataset": procedure["dataset"]}, "dataset")
    return layers(learner.model, learner.task, next(dataset.train.batches(1)))


# -- words --------------------------------------------------------------------------------------------------------


def key_paths(value: Any, path: str = "") -> Iterator[str]:
    """Every key of a config by its dotted path (Hydra's own left out)."""
    from omegaconf import DictConfig

    if not isinstance(value, DictConfig) or value._is_none() or value._is_missing() or value._is_interpolation():
        return
    for key in value:
        if path or key != "hydra":
            full = f"{path}.{key}" if path else str(key)
            yield full
            yield from key_paths(value._get_node(key), full)


def _is_null(word: str, groups: Sequence[str]) -> bool:
    return word.endswith("=null") and word.removesuffix("=null") in groups


def _not_an_override(word: str | None) -> str:
    return (
        f"{word!r} is not an override like key=value.\n"
        f"  a list: 'key=[1, 2]'   a text with spaces or signs: 'key=\"a b\"'   leave a group out: ~group"
    )


def _explain_value(error: Exception) -> str:
    """An interpolation that leads nowhere, or a value of the wrong kind, by its config path."""
    path, message = getattr(error, "full_key", None) or "", _first_line(str(error))
    if gone := re.match(r"Interpolation key '([^']+)' not found", message):
        top = gone[1].partition(".")[0]
        message = f"${{{gone[1]}}} names a key that this config does not have."
        if (catalogue.SHIPPED / top).is_dir():
            message += f" Is no {top} chosen? Choose one with {top}=NAME."
    elif gone := re.search(r"Missing mandatory value: (\S+)", message):
        return f"{gone[1]} has no value yet: give it on the command line, {gone[1]}=..."
    elif message.startswith("Recursive interpolation"):
        message = "this interpolation leads back to itself."
    return f"{path}: {message}" if path else message


def _new_id() -> str:
    return os.urandom(4).hex()


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _tidy(error: BaseException) -> str:
    """The message of a Hydra or OmegaConf error, its causes first, without their bookkeeping lines."""
    causes = []
    current: BaseException | None = error
    while current is not None:
        causes.append(str(current))
        current = current.__cause__
    lines = [line for text in causes for line in text.splitlines() if line.strip()]
    kept = [line for line in lines if not re.match(r"\s*(full_key|object_type|reference_type)[:=]", line)]
    return "\n".join(dict.fromkeys(kept))
