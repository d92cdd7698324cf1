"""The targets of a config: the allow-list of `_target_`s.

A config is data, not a program. A target must be on the allow-list, both by its name in the config and by the module
that defines it, and it must exist. Whether its arguments fit is a question for `dl_lab.configs.arguments`. This module
builds nothing.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
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
    "torchvision.ops",
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
