"""Values that a config takes from the data: `${learned:n_classes}` in a data set's YAML is read from its files.

The data set's module has a function `learn`, which takes the settings of the data set and returns values by name. It is
called while a job is composed, so that the config of a run holds numbers only.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dl_lab.configs.arguments import check_call, check_types
from dl_lab.configs.build import build
from dl_lab.configs.targets import locate
from dl_lab.types import ConfigError, UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def learn(name: str, *, _parent_: DictConfig) -> object:
    """Read one value that the data set's YAML leaves to the data. OmegaConf calls this for `${learned:NAME}`.

    Args:
        name: The name of the value.
        _parent_: The mapping that holds the value.

    Raises:
        UserError: The data cannot be read.
        ConfigError: The data set learns no value of this name.
    """
    found = _find_data_set(_parent_)
    if found is None:
        raise ConfigError(f"${{learned:{name}}} stands in no data set that learns anything from its files.")
    node, module = found
    given = _without_learned(node, "dataset")
    given.pop("_target_")
    values = locate("dataset", f"{module}.learn")(**given)
    if name not in values:
        raise ConfigError(f"The data set {module} learns {', '.join(values)}, not {name!r}.")
    return values[name]


def _find_data_set(part: DictConfig) -> tuple[DictConfig, str] | None:
    """Return the nearest part, this one or one around it, whose module has a function `learn`; and this module."""
    from omegaconf import DictConfig, Node

    node: object = part
    while isinstance(node, Node):
        module = _module(node)
        if module is not None and isinstance(node, DictConfig):
            return node, module
        node = node._get_parent()
    return None


def _module(node: object) -> str | None:
    """Return the module of a part whose `_target_` lies beside a function `learn`; None for any other part."""
    target = node.get("_target_") if isinstance(node, Mapping) else None
    if not isinstance(target, str):
        return None
    module = sys.modules.get(locate("dataset", target).__module__)
    return module.__name__ if module is not None and hasattr(module, "learn") else None


def _without_learned(node: DictConfig, path: str) -> dict[str, object]:
    """Return the settings of a data set that its YAML gives, with its parts built.

    A part that itself takes a value from the data stays a mapping.

    Raises:
        ConfigError: A setting has the wrong type. This is found here, because the data set reads its files next.
    """
    from omegaconf import OmegaConf

    target = locate(path, node["_target_"]) if "_target_" in node else None
    given: dict[str, object] = {}
    texts: Any = OmegaConf.to_container(node, resolve=False)
    for key, text in texts.items():
        if isinstance(text, str) and text.startswith("${learned:"):
            continue
        item = node[key]
        where = f"{path}.{key}"
        if OmegaConf.is_config(item) and _takes_from_data(item):
            part = _without_learned(item, where)
            part.pop("_target_", None)
            given[key] = part
            continue
        plain: Any = OmegaConf.to_container(item, resolve=True) if OmegaConf.is_config(item) else item
        if _is_part(plain):
            check_call(where, plain, locate(where, plain["_target_"]))
            given[key] = build({where: plain}, where)
            continue
        if target is not None:
            check_types(path, {key: plain}, target)
        given[key] = plain
    return given


def _takes_from_data(node: DictConfig) -> bool:
    from omegaconf import OmegaConf

    return "${learned:" in OmegaConf.to_yaml(node, resolve=False)


def _is_part(value: object) -> bool:
    return isinstance(value, Mapping) and "_target_" in value


def cause_of(error: BaseException) -> UserError | None:
    """Return the UserError that an error of OmegaConf wraps; None where there is none."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None
