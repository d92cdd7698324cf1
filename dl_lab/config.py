"""Configs: compose, check, build. The only file that imports Hydra besides sweeps/.

A config is data, not a program: it is resolved to plain values first; every `_target_` in it must lie inside the
allow-list, exist, and take the arguments given; only then is anything built, and from those same plain values.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import math
import os
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

    def compose(self, overrides: Sequence[str]) -> Composed:
        """One job, resolved. Raises ConfigError for an unknown key or value, and for what is still missing."""
        return resolve(self.load(overrides), overrides)

    def groups(self) -> dict[str, list[str]]:
        """Config group -> its options."""
        return {
            name: sorted(self.loader.get_group_options(name))
            for name in self.loader.list_groups("")
            if name != "hydra" and self.loader.get_group_options(name)
        }

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
        run_dir, choices = str(hydra.run.dir), {k: str(v) for k, v in hydra.runtime.choices.items()}
        plain: Any = OmegaConf.to_container(own, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(_tidy(error)) from error
    choices = {name: choice for name, choice in choices.items() if not name.startswith("hydra/")}
    return Composed(plain, run_dir, list(overrides), choices, OmegaConf.to_yaml(OmegaConf.masked_copy(config, ["hydra"])))


# -- check --------------------------------------------------------------------------------------------------------


def check(config: Mapping[str, Any]) -> None:
    """Every `_target_` is allowed, exists and takes its arguments. Raises ConfigError; builds nothing."""
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

    node = OmegaConf.create({"_": config[key]})._get_node("_")  # interpolations are resolved already
    try:
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


def flatten(value: Any, path: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}; lists and scalars are leaves."""
    if not isinstance(value, Mapping):
        return {path: value}
    parts = [flatten(item, f"{path}.{key}" if path else str(key)) for key, item in value.items()]
    return {key: item for part in parts for key, item in part.items()}


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
