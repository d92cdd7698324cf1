"""Configs: compose, check, build. The only file that imports Hydra besides sweeps/.

A config is data, not a program: it is resolved to plain values first; every `_target_` in it must lie inside the
allow-list, exist, and take the arguments given; only then is anything built, and from those same plain values.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import json
import math
import os
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dl_lab.judge import check_reference
from dl_lab.types import ConfigError, UserError

CONFIG_MODULE = "dl_lab.conf"
ALLOWED = (
    "dl_lab.board",
    "dl_lab.datasets",
    "dl_lab.experiments",
    "dl_lab.from_scratch",
    "dl_lab.models",
    "dl_lab.run.NoBoard",
    "dl_lab.tasks",
    "dl_lab.training",
    "torch.nn",
    "torch.optim",
    "torchaudio.models",
    "torchaudio.transforms",
    "torchvision.models",
    "torchvision.transforms",
)
ALLOW_VARIABLE = "DL_LAB_ALLOW"  # a user's own packages, comma separated: set by the user, never by a config


@dataclass(frozen=True)
class Composed:
    """One job's configuration: resolved plain values, and where they came from."""

    config: dict[str, Any]
    run_dir: str
    overrides: list[str]
    choices: dict[str, str]
    hydra_yaml: str


class Composer:
    """Composes jobs from the shipped `conf/` and a user's own folder in front of it."""

    def __init__(self, config_dir: str | None = None, config_name: str = "config") -> None:
        from hydra._internal.config_loader_impl import ConfigLoaderImpl
        from hydra._internal.utils import create_config_search_path
        from hydra.core.utils import setup_globals
        from omegaconf import OmegaConf

        search_path = create_config_search_path(f"pkg://{CONFIG_MODULE}")
        if config_dir is not None:
            if not Path(config_dir).is_dir():
                raise ConfigError(f"--config-dir {config_dir} is not a folder.")
            search_path.append("command-line", f"file://{Path(config_dir).resolve()}")
        setup_globals()
        OmegaConf.register_new_resolver("run_id", _new_id, replace=True)
        OmegaConf.register_new_resolver("product", math.prod, replace=True)  # n_features from an input_shape
        self.config_name, self.loader = config_name, ConfigLoaderImpl(search_path)

    def load(self, overrides: Sequence[str], multirun: bool = False) -> Any:
        """The composed config as Hydra's DictConfig. Raises ConfigError in the user's words."""
        from hydra.core.hydra_config import HydraConfig
        from hydra.errors import HydraException
        from hydra.types import RunMode

        mode = RunMode.MULTIRUN if multirun else RunMode.RUN
        try:
            config = self.loader.load_configuration(self.config_name, list(overrides), mode)
        except HydraException as error:
            raise ConfigError(self._explain(error, overrides)) from error
        HydraConfig.instance().set_config(config)
        return config

    def is_multirun(self, overrides: Sequence[str]) -> bool:
        """Whether hydra.mode, in the config or on the command line, asks for a sweep without -m."""
        if any(word == "hydra.mode=MULTIRUN" for word in overrides):
            return True
        return str(self.load(overrides).hydra.mode) in ("MULTIRUN", "RunMode.MULTIRUN")

    def compose(self, overrides: Sequence[str]) -> Composed:
        """One job, resolved. Raises ConfigError for an unknown key or value, and for what is still missing."""
        return resolve(self.load(overrides), overrides)

    def compose_all(self, jobs: Sequence[Sequence[str]]) -> list[Composed]:
        """Many jobs, as `compose` would give each: every distinct set of group choices is composed once.

        Jobs that differ in plain values only are copies of the first with the values put in, wherever an
        interpolation repeats them.
        """
        groups = set(self.loader.list_groups(""))
        families: dict[tuple[tuple[str, ...], ...], list[int]] = {}
        for i, job in enumerate(jobs):
            families.setdefault(_family(job, groups), []).append(i)
        composed: dict[int, Composed] = {}
        for (_, varying), members in families.items():
            composed |= self._compose_family([jobs[i] for i in members], members, varying)
        return [composed[i] for i in range(len(jobs))]

    def _compose_family(
        self, jobs: Sequence[Sequence[str]], numbers: Sequence[int], varying: Sequence[str]
    ) -> dict[int, Composed]:
        first = self.compose(jobs[0])
        places: dict[str, list[tuple[Any, ...]]] = {}
        for key in varying:
            other = next((job for job in jobs if _value_of(job, key) != _value_of(jobs[0], key)), None)
            if other is not None:
                changed = [_word_of(other, key) if word.partition("=")[0] == key else word for word in jobs[0]]
                found = _places(
                    first.config, self.compose(changed).config, _value_of(jobs[0], key), _value_of(other, key)
                )
                if found is None:  # something is derived from the value: compose each job
                    return {i: self.compose(job) for i, job in zip(numbers, jobs, strict=True)}
                places[key] = found
        return {
            i: Composed(
                _with_values(first.config, [(p, _value_of(job, key)) for key, ps in places.items() for p in ps]),
                first.run_dir,
                list(job),
                first.choices,
                first.hydra_yaml,
            )
            for i, job in zip(numbers, jobs, strict=True)
        }

    def groups(self) -> dict[str, list[str]]:
        """Config group -> its options."""
        return {
            name: sorted(self.loader.get_group_options(name))
            for name in self.loader.list_groups("")
            if name != "hydra" and self.loader.get_group_options(name)
        }

    def data_files(self, dataset: str) -> tuple[list[dict[str, Any]], str]:
        """The `files:` of a data set and the data folder. Raises ConfigError for a data set that is not there."""
        from omegaconf import OmegaConf

        config = self.load([f"dataset={dataset}"])
        files: Any = OmegaConf.to_container(config.dataset.get("files") or OmegaConf.create([]), resolve=True)
        return files, str(config.dataset.get("data_dir") or config.paths.data_dir)

    def _explain(self, error: Exception, overrides: Sequence[str]) -> str:
        """Hydra's message in one screen, with the nearest valid name."""
        from hydra.errors import MissingConfigException, OverrideParseException

        if isinstance(error, OverrideParseException):
            return f"{error.override!r} is not an override like key=value: {_first_line(str(error.__cause__ or error))}"
        if isinstance(error, MissingConfigException) and error.missing_cfg_file:
            group, _, option = str(error.missing_cfg_file).rpartition("/")
            options = sorted(error.options or self.loader.get_group_options(group))
            shown = f"  {group}: {', '.join(options)}" if options else ""
            return f"There is no {group or 'config'} {option!r}.{did_you_mean(option, options)}\n{shown}".rstrip()
        unknown = re.search(r"Could not override '([^']+)'", str(error))
        if unknown:
            key = unknown[1]
            return f"There is no key {key!r} in this config.{self._nearest_key(key, overrides)}"
        return _tidy(error)

    def _nearest_key(self, key: str, overrides: Sequence[str]) -> str:
        rest = [o for o in overrides if o.lstrip("+~").partition("=")[0] != key]
        try:
            known = [*key_paths(self.load(rest)), *self.groups()]
        except ConfigError:
            known = [*self.groups()]
        return did_you_mean(key, known)


def resolve(config: Any, overrides: Sequence[str]) -> Composed:
    """Plain values of a composed config. Raises ConfigError for a missing value or a broken interpolation."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    own = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
    missing = sorted(OmegaConf.missing_keys(own))
    if missing:
        raise ConfigError(f"{missing[0]} has no value yet: give it on the command line, {missing[0]}=...")
    try:
        hydra = config.hydra
        run_dir, chosen = str(hydra.run.dir), hydra.runtime.choices.items()
        plain: Any = OmegaConf.to_container(own, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(_tidy(error)) from error
    choices = {
        k: str(v) for k, v in chosen if v not in (None, "null") and not k.startswith(("hydra/", "adapt", "local"))
    }
    return Composed(
        plain, run_dir, list(overrides), choices, OmegaConf.to_yaml(OmegaConf.masked_copy(config, ["hydra"]))
    )


# -- many jobs ----------------------------------------------------------------------------------------------------


def _family(job: Sequence[str], groups: set[str]) -> tuple[tuple[str, ...], ...]:
    """(all words that are not plain `key=scalar`, with their places; the keys of those that are)."""
    plain = [word for word in job if _is_plain(word) and word.partition("=")[0] not in groups]
    keys = tuple(word.partition("=")[0] for word in plain)
    return tuple("" if word in plain else word for word in job), keys if len(set(keys)) == len(keys) else (
        *keys,
        "",
    )


def _is_plain(word: str) -> bool:
    """`a.b=1`, `a=text`: replaces one existing scalar; nothing is quoted, added, deleted or interpolated."""
    return re.fullmatch(r"[A-Za-z_][\w.]*=[\w.+-]+", word) is not None and "/" not in word


def _word_of(job: Sequence[str], key: str) -> str:
    return next(word for word in job if word.partition("=")[0] == key)


def _value_of(job: Sequence[str], key: str) -> Any:
    return _parsed(_word_of(job, key))


@functools.cache
def _parsed(word: str) -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(word).value()


def _places(
    one: Any, two: Any, value_one: Any, value_two: Any, path: tuple[Any, ...] = ()
) -> list[tuple[Any, ...]] | None:
    """Where two configs differ, if they hold exactly the one and the other value there; else None."""
    if isinstance(one, dict) and isinstance(two, dict) and one.keys() == two.keys():
        parts = [_places(one[key], two[key], value_one, value_two, (*path, key)) for key in one]
    elif isinstance(one, list) and isinstance(two, list) and len(one) == len(two):
        parts = [_places(a, b, value_one, value_two, (*path, i)) for i, (a, b) in enumerate(zip(one, two, strict=True))]
    elif type(one) is type(two) and one == two:
        return []
    else:
        same = one == value_one and two == value_two and type(one) is type(value_one) and type(two) is type(value_two)
        return [path] if same else None
    return None if any(part is None for part in parts) else [place for part in parts for place in part or []]


def _with_values(config: Any, values: Sequence[tuple[tuple[Any, ...], Any]]) -> Any:
    """A copy of nested plain values with others at the given places."""
    copied = json.loads(json.dumps(config))
    for path, value in values:
        node = copied
        for key in path[:-1]:
            node = node[key]
        node[path[-1]] = value
    return copied


def plain(node: Any) -> Any:
    """The resolved plain values of a DictConfig."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(node, resolve=True)


# -- check --------------------------------------------------------------------------------------------------------


def check(config: Mapping[str, Any]) -> None:
    """Every `_target_` is allowed, exists and takes its arguments. Raises ConfigError; builds nothing."""
    check_reference(config.get("reference") or {})
    for path, node in targets(config):
        _check_call(path, node, locate(path, node["_target_"]))


def targets(value: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every mapping with a `_target_`, by its path in the config."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            yield path, value
        for key, item in value.items():
            yield from targets(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from targets(item, f"{path}[{i}]")


def allowed_prefixes() -> tuple[str, ...]:
    own = os.environ.get(ALLOW_VARIABLE, "")
    return ALLOWED + tuple(name.strip() for name in own.split(",") if name.strip())


def locate(path: str, dotted: Any) -> Callable[..., Any]:
    """The class or function a `_target_` names: by the name given and by where it really comes from."""
    if not isinstance(dotted, str):
        raise ConfigError(f"{path}._target_: {dotted!r} is not the dotted name of a class or function.")
    if not _inside(dotted):
        raise ConfigError(_refused(path, dotted))
    module_name, _, name = dotted.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"{path}._target_: {dotted} cannot be imported ({error}).") from error
    target = getattr(module, name, None)
    if target is None:
        public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise ConfigError(f"{path}._target_: {module_name} has no {name!r}.{did_you_mean(name, public)}")
    origin = f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', '')}"
    if not callable(target) or not _inside(origin):
        raise ConfigError(_refused(path, dotted if _inside(origin) else f"{dotted} (really {origin})"))
    return target


def _inside(dotted: str) -> bool:
    return any(dotted == prefix or dotted.startswith(prefix + ".") for prefix in allowed_prefixes())


def _refused(path: str, dotted: str) -> str:
    return (
        f"{path}._target_: {dotted} is not allowed in a config. Allowed are {', '.join(ALLOWED)}; "
        f"your own packages by {ALLOW_VARIABLE}=package."
    )


def _check_call(path: str, node: Mapping[str, Any], target: Callable[..., Any]) -> None:
    """The arguments exist, none is missing, and plain values have the declared types."""
    arguments = {key: value for key, value in node.items() if not re.fullmatch(r"_[a-z]+_", str(key))}
    try:
        parameters = inspect.signature(target).parameters
    except ValueError:  # builtins without a signature
        return
    kinds = {parameter.kind for parameter in parameters.values()}
    open_ended = inspect.Parameter.VAR_KEYWORD in kinds
    for key in arguments:
        if key not in parameters and not open_ended:
            names = [n for n in parameters if n not in ("self", "args", "kwargs")]
            raise ConfigError(
                f"{path}.{key}: {node['_target_']} has no argument {key!r}.{did_you_mean(key, names)}\n"
                f"  arguments: {', '.join(names)}"
            )
    required = [
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        and name not in arguments
    ]
    if required and not node.get("_partial_") and "_args_" not in node:
        raise ConfigError(f"{path}: {node['_target_']} needs a value for {', '.join(required)}.")
    hints = _type_hints(target)
    for key, value in arguments.items():
        if key in hints and not _holds_target(value):
            _check_type(f"{path}.{key}", value, hints[key])


def _type_hints(target: Callable[..., Any]) -> dict[str, Any]:
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError, AttributeError):  # names that only the type checker sees
        return {}


def _holds_target(value: Any) -> bool:
    return next(iter(targets(value)), None) is not None


def _check_type(path: str, value: Any, hint: Any) -> None:
    from typeguard import CollectionCheckStrategy, TypeCheckError, check_type

    candidates = [value, tuple(value)] if isinstance(value, list) else [value]
    for candidate in candidates:
        try:
            check_type(candidate, hint, collection_check_strategy=CollectionCheckStrategy.ALL_ITEMS)
        except TypeCheckError:
            continue
        return
    choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
    if choices:
        wanted = f"one of {', '.join(map(str, choices))}.{did_you_mean(str(value), list(map(str, choices)))}"
    else:
        wanted = f"{_type_name(hint)}."
    raise ConfigError(f"{path}: {value!r} ({type(value).__name__}) does not fit; it must be {wanted}")


def _type_name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else re.sub(r"\b(typing|collections\.abc)\.", "", str(hint))


# -- build --------------------------------------------------------------------------------------------------------


def build(config: Mapping[str, Any], key: str) -> Any:
    """The object that `config[key]` describes; everything below it is built exactly once.

    Raises UserError when a constructor refuses its arguments (ValueError, TypeError), naming the config path.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    described, loaded = dict(config[key]), {}
    if key_of(described.get("dataset")) in _LOADED:
        loaded["dataset"] = _LOADED[key_of(described.pop("dataset"))]
    node = OmegaConf.create({"_": described})._get_node("_")  # interpolations are resolved already
    try:
        if loaded:
            return instantiate(node, _convert_="object", _partial_=True)(**loaded)
        return instantiate(node, _convert_="object")
    except InstantiationException as error:
        cause = error.__cause__ or error
        if isinstance(cause, UserError):
            raise cause from None
        where = re.search(r"full_key: (\S+)", str(error))
        path = ".".join([key, *(where[1].split(".")[1:] if where else [])])
        if isinstance(cause, ValueError | TypeError):
            raise ConfigError(f"{path}: {cause}") from cause
        raise cause from error


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

    small = dict(config["procedure"])
    if isinstance(small.get("dataset"), Mapping) and "source" in small["dataset"]:
        small["dataset"] = {**small["dataset"], "source": "generated", "n_generated": 16}
    built = build({"procedure": small}, "procedure")
    if not hasattr(built, "rehearse"):
        return built
    try:
        built.rehearse()
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        raise ConfigError(f"The parts do not fit together; a first step fails: {_first_line(str(error))}") from error
    return built


def read_config(folder: Path) -> dict[str, Any]:
    """The frozen config of a run, checked again. Raises UserError where it cannot be read."""
    import yaml

    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        config["procedure"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise UserError(f"{folder / 'config.yaml'} is not a readable config: {error}.") from error
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


# -- words --------------------------------------------------------------------------------------------------------


def did_you_mean(wrong: str, known: Sequence[str]) -> str:
    """' Did you mean lr?' for the nearest of the known names, by the whole name or its last part; else ''."""
    near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.6)
    if not near:
        last = wrong.rpartition(".")[2]
        by_last = {name.rpartition(".")[2]: name for name in reversed(list(known))}
        near = [by_last[n] for n in difflib.get_close_matches(last, list(by_last), n=1, cutoff=0.7)]
    return f" Did you mean {near[0]}?" if near else ""


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
