"""The targets of a config: the allow-list of `_target_`s, and whether their arguments fit.

A config is data, not a program. A target must be on the allow-list, both by its name in the config and by the module
that defines it. It must exist, and it must take the arguments given with their declared types. This module builds
nothing.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import pkgutil
import re
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dl_lab import project
from dl_lab.configs.older import find_new_name
from dl_lab.configs.words import did_you_mean, to_list
from dl_lab.types import ConfigError

ALLOWED = (
    "dl_lab.datasets",
    "dl_lab.from_scratch",
    "dl_lab.models",
    "dl_lab.procedures",
    "dl_lab.runs.board.NoBoard",
    "dl_lab.runs.boards.Boards",
    "dl_lab.runs.boards.CsvBoard",
    "dl_lab.runs.mlflow_board.MlflowBoard",
    "dl_lab.runs.tensorboard",
    "dl_lab.runs.wandb_board.WandbBoard",
    "dl_lab.sweeps.backends.ray.Ray",
    "dl_lab.sweeps.backends.slurm.Slurm",
    "dl_lab.sweeps.search.EveryCombination",
    "dl_lab.tasks",
    "dl_lab.training",
    "optuna.pruners",
    "optuna.samplers",
    "torch.nn",
    "torch.optim",
    "torchaudio.models",
    "torchaudio.transforms",
    "torchmetrics.classification",
    "torchmetrics.regression",
    "torchmetrics.segmentation",
    "torchvision.models",
    "torchvision.transforms",
)
REFUSED = (  # below an allowed name, but they fetch, read or write files that a config could name
    "dl_lab.datasets.archives",
    "dl_lab.datasets.cache",
    "dl_lab.datasets.download",
    "dl_lab.datasets.files",
    "dl_lab.datasets.images.files",
    "dl_lab.datasets.images.listing",
    "dl_lab.datasets.images.walk",
    "dl_lab.training.backbones",
    "dl_lab.training.startup",
)
ALLOW_VARIABLE = "DL_LAB_ALLOW"  # a user's own packages, comma separated: set by the user, never by a config


def targets(value: object, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every mapping with a `_target_`, with its path in the config."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            yield path, value
        for key, item in value.items():
            yield from targets(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from targets(item, f"{path}[{i}]")


def own_packages() -> tuple[str, ...]:
    """Return the user's own packages that are allowed: by the environment, and by a project that the user trusts."""
    words = [word.strip() for word in os.environ.get(ALLOW_VARIABLE, "").split(",")]
    return (*filter(None, words), *project.allowed_packages())


def allowed_prefixes() -> tuple[str, ...]:
    """Return the names with which a `_target_` may start."""
    return ALLOWED + own_packages()


def is_shipped(dotted: str) -> bool:
    """Whether a `_target_` is on dl-lab's own allow-list, not in one of the user's packages."""
    return _is_below(dotted, ALLOWED)


def make_importable() -> None:
    """Let Python find the user's packages in the current folder and the project's; installed packages come first."""
    found = project.find()
    folders = [os.getcwd()]
    if found is not None:
        folders.append(str(found.root))
    for folder in folders:
        if folder not in sys.path:
            sys.path.append(folder)


def locate(path: str, dotted: object) -> Callable[..., Any]:
    """Import the class or function that a `_target_` names.

    Args:
        path: The config path of the part, for error messages.
        dotted: The value of its `_target_`.

    Raises:
        ConfigError: The target is not allowed, by its name or by the module that defines it, or it does not exist.
    """
    if not isinstance(dotted, str):
        raise ConfigError(f"{path}._target_: {dotted!r} is not the dotted name of a class or function.")
    if not _is_allowed(dotted) or find_new_name(dotted) is not None:
        raise ConfigError(_explain_refusal(path, dotted))
    module_name, _, name = dotted.rpartition(".")
    if not module_name:
        raise ConfigError(f"{path}._target_: {dotted!r} names no module: write package.module.{dotted or 'Class'}.")
    if not is_shipped(dotted):
        make_importable()
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module may raise anything
        raise ConfigError(f"{path}._target_: {_explain_import(module_name, error)}") from error
    target = getattr(module, name, None)
    if target is None:
        public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise ConfigError(f"{path}._target_: {module_name} has no {name!r}.{did_you_mean(name, public)}")
    origin = f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', '')}"
    if not callable(target) or not _is_allowed(origin):
        raise ConfigError(_explain_refusal(path, dotted if _is_allowed(origin) else f"{dotted} (really {origin})"))
    return target


def _is_allowed(dotted: str) -> bool:
    """Whether a name is below an allowed one, not below a refused one, and has no private part."""
    is_below = is_shipped(dotted) or _is_below(dotted, own_packages())  # own packages are looked for only if need be
    if not is_below or _is_below(dotted, REFUSED):
        return False
    if dotted.startswith(("torch", "torchvision", "optuna")):  # they define public classes in private modules
        return True
    return not any(part.startswith("_") for part in dotted.split("."))


def _is_below(dotted: str, prefixes: Sequence[str]) -> bool:
    return any(dotted == prefix or dotted.startswith(prefix + ".") for prefix in prefixes)


def _explain_refusal(path: str, dotted: str) -> str:
    new_name = find_new_name(dotted)
    if new_name is not None:
        return f"{path}._target_: {dotted} has moved; write {new_name}."
    found = project.find()
    if found is not None and not found.is_trusted and _is_below(dotted, found.allow):
        return (
            f"{path}._target_: {dotted} is code of the project {found.root}, which you have not trusted yet.\n"
            "  allow it once, for you alone:  dl-lab trust"
        )
    return (
        f"{path}._target_: {dotted} is not allowed in a config.\n{to_list('allowed', ALLOWED)}\n"
        f"  your own packages: set {ALLOW_VARIABLE}=package in the environment"
    )


def _explain_import(module_name: str, error: Exception) -> str:
    """Say which part of a module's name is wrong and what the user may mean, or what went wrong inside the module."""
    package, _, last = module_name.rpartition(".")
    if not isinstance(error, ModuleNotFoundError) or error.name is None or not module_name.startswith(error.name):
        first_line = str(error).strip().partition("\n")[0]
        return f"{module_name} cannot be imported ({type(error).__name__}: {first_line})."
    if error.name != module_name:
        return _explain_import(error.name, error)
    if not package:
        return f"there is no package {module_name}: it is neither installed nor in the current folder ({os.getcwd()})."
    try:
        folder = getattr(importlib.import_module(package), "__path__", [])
    except ImportError:
        folder = []
    near = did_you_mean(last, [module.name for module in pkgutil.iter_modules(folder)])
    return f"there is no module {module_name}.{near}"


def check_call(path: str, node: Mapping[str, object], target: Callable[..., object]) -> None:
    """Check that the arguments of a target exist, that none is missing, and that plain values have the declared types.

    Args:
        path: The config path of the part.
        node: The part.
        target: Its class or function.

    Raises:
        ConfigError: An argument is unknown, missing or of the wrong type.
    """
    arguments = {key: value for key, value in node.items() if not re.fullmatch(r"_[a-z]+_", str(key))}
    try:
        parameters, takes_any = _parameters_of(target)
    except (ValueError, TypeError):  # builtins without a signature, callables without a hash
        return
    for key in arguments:
        if key not in parameters and not takes_any:
            names = [n for n in parameters if n not in ("self", "args", "kwargs")]
            raise ConfigError(
                f"{path}.{key}: {node['_target_']} has no argument {key!r}.{did_you_mean(key, names)}\n"
                f"{to_list('arguments', names)}"
            )
    missing = [name for name, parameter in parameters.items() if _is_required(parameter) and name not in arguments]
    if missing and not node.get("_partial_") and "_args_" not in node:
        raise ConfigError(f"{path}: {node['_target_']} needs a value for {', '.join(missing)}.")
    hints = _type_hints(target)
    for key, value in arguments.items():
        if key in hints and not _holds_target(value):
            check_type(f"{path}.{key}", value, hints[key])


@functools.cache  # the jobs of a sweep call the same functions
def _parameters_of(target: Callable[..., object]) -> tuple[Mapping[str, inspect.Parameter], bool]:
    """Return the parameters of a class or function by name, and whether it takes any other keyword, too."""
    parameters = inspect.signature(target).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return parameters, takes_any or _passes_on_keywords(target)


def _is_required(parameter: inspect.Parameter) -> bool:
    """Whether a call must give the parameter."""
    is_open = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    return parameter.default is parameter.empty and not is_open


def _passes_on_keywords(target: Callable[..., object]) -> bool:
    """Whether a constructor takes any keyword although its signature names only a few, because of a decorator.

    `transformers.BertConfig` is a dataclass whose decorated constructor takes `**kwargs`. Where the decorator only
    passes them on, the constructor itself will refuse a wrong one.
    """
    function: Any = target.__init__ if inspect.isclass(target) else target
    try:
        parameters = inspect.signature(function, follow_wrapped=False).parameters
    except (ValueError, TypeError):
        return False
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())


def _type_hints(target: Callable[..., object]) -> dict[str, object]:
    try:
        return _hints_of(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError, AttributeError):  # names that only the type checker sees
        return {}


@functools.cache
def _hints_of(function: Callable[..., object]) -> dict[str, object]:
    return typing.get_type_hints(function)


def _holds_target(value: object) -> bool:
    return next(iter(targets(value)), None) is not None


def check_type(path: str, value: object, hint: Any) -> None:
    """Check that a value has a type.

    Args:
        path: The config path of the value.
        value: A value of a YAML file.
        hint: A type hint. A list also fits where the hint is a tuple.

    Raises:
        ConfigError: The value does not fit. The message says what would.
    """
    os.environ.setdefault("TYPEGUARD_DISABLE_PLUGIN_AUTOLOAD", "1")  # saves reading all packages' entry points, 35 ms
    import typeguard

    candidates: list[object] = [value, tuple(value)] if isinstance(value, list) else [value]
    if _has_bool_for_number(value, hint):
        candidates = []
    for candidate in candidates:
        try:
            typeguard.check_type(candidate, hint, collection_check_strategy=typeguard.CollectionCheckStrategy.ALL_ITEMS)
        except typeguard.TypeCheckError:
            continue
        return
    wanted = _describe_type(hint, str(value))
    raise ConfigError(f"{path}: {value!r} ({type(value).__name__}) does not fit; it must be {wanted}")


def _has_bool_for_number(value: object, hint: object) -> bool:
    """Whether a boolean stands where a number is meant. For Python, True is the number 1."""
    parts = typing.get_args(hint)
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    if isinstance(value, bool):
        options = parts if is_union else (hint,)
        takes_bool = any(option in (bool, object, Any) or value in typing.get_args(option) for option in options)
        return not takes_bool and any(option in (int, float, complex) for option in options)
    if is_union:
        return all(_has_bool_for_number(value, part) for part in parts if part is not types.NoneType)
    if isinstance(value, list) and parts:
        return any(_has_bool_for_number(item, parts[0]) for item in value)
    if isinstance(value, Mapping) and len(parts) == 2:
        return any(_has_bool_for_number(item, parts[1]) for item in value.values())
    return False


def _describe_type(hint: object, value: str) -> str:
    """Return in words what a value must be, with the choice that is nearest to the value given."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    parts = typing.get_args(hint) if is_union else (hint,)
    choices: list[str] = []
    others: list[str] = []
    for part in parts:
        if typing.get_origin(part) is typing.Literal:
            choices += map(str, typing.get_args(part))
        else:
            others.append(_type_name(part))
    if not choices or hint == int | typing.Literal["auto"]:
        return f"{_type_name(hint)}."
    named = choices[0] if is_union and len(choices) == 1 else f"one of {', '.join(choices)}"
    return " or ".join([named, *others]) + f".{did_you_mean(value, choices)}"


def _type_name(hint: object) -> str:
    if hint == int | typing.Literal["auto"]:
        return "auto or a whole number"
    if hint is types.NoneType:
        return "null"
    if typing.get_origin(hint) is Callable:
        return "a function or class (_target_)"
    if isinstance(hint, type):
        return hint.__name__
    return re.sub(r"\b(typing|collections\.abc)\.", "", str(hint))
