"""What a config may name: the allow-list of `_target_`s, and whether their arguments fit.

A config is data, not a program. A target must lie inside the allow-list by the name given and by where it really comes
from, exist, and take the arguments given with their declared types. Nothing is built here.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import os
import pkgutil
import re
import sys
import textwrap
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dl_lab.types import ConfigError

ALLOWED = (
    "dl_lab.board",
    "dl_lab.datasets",
    "dl_lab.experiments",
    "dl_lab.from_scratch",
    "dl_lab.models",
    "dl_lab.run.NoBoard",
    "dl_lab.sweeps.ray.Ray",
    "dl_lab.sweeps.search.EveryCombination",
    "dl_lab.sweeps.slurm.Slurm",
    "dl_lab.tasks",
    "dl_lab.training",
    "optuna.pruners",
    "optuna.samplers",
    "torch.nn",
    "torch.optim",
    "torchaudio.models",
    "torchaudio.transforms",
    "torchvision.models",
    "torchvision.transforms",
)
REFUSED = (  # inside the allow-list, but they fetch, read or write files that a config could name
    "dl_lab.datasets.download",
    "dl_lab.datasets.files",
    "dl_lab.datasets.image_files",
    "dl_lab.training.backbones",
    "dl_lab.training.checkpoints",
    "dl_lab.training.startup",
)
ALLOW_VARIABLE = "DL_LAB_ALLOW"  # a user's own packages, comma separated: set by the user, never by a config


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
    if not dotted.startswith(ALLOWED) and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # the user's own package, allowed by the user, may lie in this folder
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module may raise anything
        raise ConfigError(f"{path}._target_: {_not_importable(module_name, error)}") from error
    target = getattr(module, name, None)
    if target is None:
        public = [n for n, v in vars(module).items() if callable(v) and not n.startswith("_")]
        raise ConfigError(f"{path}._target_: {module_name} has no {name!r}.{did_you_mean(name, public)}")
    origin = f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', '')}"
    if not callable(target) or not _inside(origin):
        raise ConfigError(_refused(path, dotted if _inside(origin) else f"{dotted} (really {origin})"))
    return target


def _inside(dotted: str) -> bool:
    """Below an allowed name, not below a refused one, and nothing private on the way."""
    private = any(part.startswith("_") for part in dotted.split(".")) and not dotted.startswith(
        ("torch", "torchvision", "optuna")
    )
    return _below(dotted, allowed_prefixes()) and not _below(dotted, REFUSED) and not private


def _below(dotted: str, prefixes: Sequence[str]) -> bool:
    return any(dotted == prefix or dotted.startswith(prefix + ".") for prefix in prefixes)


def _refused(path: str, dotted: str) -> str:
    return (
        f"{path}._target_: {dotted} is not allowed in a config.\n{listed('allowed', ALLOWED)}\n"
        f"  your own packages: set {ALLOW_VARIABLE}=package in the environment"
    )


def _not_importable(module_name: str, error: Exception) -> str:
    """Which part of a module's name is wrong, and what is there instead; or what went wrong inside it."""
    package, _, last = module_name.rpartition(".")
    if not isinstance(error, ModuleNotFoundError) or error.name is None or not module_name.startswith(error.name):
        return f"{module_name} cannot be imported ({type(error).__name__}: {str(error).strip().partition(chr(10))[0]})."
    if error.name != module_name:
        return _not_importable(error.name, error)
    try:
        folder = getattr(importlib.import_module(package), "__path__", [])
    except ImportError:
        folder = []
    near = did_you_mean(last, [module.name for module in pkgutil.iter_modules(folder)])
    return f"there is no module {module_name}.{near}"


def check_call(path: str, node: Mapping[str, Any], target: Callable[..., Any]) -> None:
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
                f"{listed('arguments', names)}"
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
            check_type(f"{path}.{key}", value, hints[key])


def _type_hints(target: Callable[..., Any]) -> dict[str, Any]:
    try:
        return _hints_of(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError, AttributeError):  # names that only the type checker sees
        return {}


@functools.cache  # the jobs of a sweep call the same functions
def _hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    return typing.get_type_hints(function)


def _holds_target(value: Any) -> bool:
    return next(iter(targets(value)), None) is not None


def check_type(path: str, value: Any, hint: Any) -> None:
    os.environ.setdefault("TYPEGUARD_DISABLE_PLUGIN_AUTOLOAD", "1")  # reading all packages' entry points: 35 ms
    import typeguard

    candidates = [value, tuple(value)] if isinstance(value, list) else [value]
    for candidate in candidates:
        try:
            typeguard.check_type(candidate, hint, collection_check_strategy=typeguard.CollectionCheckStrategy.ALL_ITEMS)
        except typeguard.TypeCheckError:
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


# -- words --------------------------------------------------------------------------------------------------------


def did_you_mean(wrong: str, known: Sequence[str]) -> str:
    """' Did you mean lr?' for the nearest of the known names, by the whole name or its last part; else ''."""
    near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.6)
    if not near:  # learning_rate -> lr
        near = [name for name in known if "".join(word[:1] for word in wrong.split("_")) == name][:1]
    if not near:
        last = wrong.rpartition(".")[2]
        by_last = {name.rpartition(".")[2]: name for name in reversed(list(known))}
        near = [by_last[n] for n in difflib.get_close_matches(last, list(by_last), n=1, cutoff=0.7)]
    return f" Did you mean {near[0]}?" if near else ""


def listed(title: str, names: Sequence[str]) -> str:
    """`  title: a, b, c`, wrapped."""
    return textwrap.fill(
        ", ".join(names),
        96,
        initial_indent=f"  {title}: ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
