"""Lets OmegaConf copy, merge and resolve a config faster, with the same result.

Hydra copies the content of each file several times while it composes. OmegaConf copies node by node: it makes a new
node, with all its checks, and leaves the node's metadata to Python's general `deepcopy`. Here a copy takes over the
attributes of its original. After each merge OmegaConf tells every node anew who its parent is; here only a node with
another parent. OmegaConf also parses an interpolation anew each time that it meets one; here it parses each text once.

Both lean on private parts of OmegaConf. Where these are built otherwise, OmegaConf stays as it is.
"""

from __future__ import annotations

import copy
import functools
from collections import defaultdict
from typing import Any

from omegaconf import AnyNode, DictConfig, ListConfig, base

NODE = {"_metadata", "_parent", "_flags_cache"}  # the attributes of every node
METADATA = {"ref_type", "object_type", "optional", "key", "flags", "flags_root", "resolver_cache"}
OF_CONTAINERS = {"key_type", "element_type"}
MOST_TEXTS = 1024  # interpolations whose trees are kept

_parse: Any = getattr(base, "parse", None)
_set_parents: Any = getattr(base.Box, "_re_parent", None)
_deepcopies: dict[type, Any] = {kind: kind.__deepcopy__ for kind in (AnyNode, DictConfig, ListConfig)}


def speed_up() -> None:
    """Let OmegaConf, in this process, copy and parse as described above, where it is built as expected."""
    if is_as_expected():
        base.Metadata.__deepcopy__ = _copy_metadata  # pyright: ignore[reportAttributeAccessIssue]
        AnyNode.__deepcopy__ = _copy_value
        DictConfig.__deepcopy__ = _copy_container
        ListConfig.__deepcopy__ = _copy_container
        base.Box._re_parent = _set_new_parents
        base.parse = _parse_once  # pyright: ignore[reportPrivateImportUsage]


def is_as_expected() -> bool:
    """Whether OmegaConf has its functions in the usual places, and its nodes the attributes that are known here."""
    value = AnyNode(1)
    containers = (DictConfig({}), ListConfig([]))
    return (
        _parse is not None
        and _set_parents is not None
        and vars(value).keys() == NODE | {"_val"}
        and vars(vars(value)["_metadata"]).keys() == METADATA
        and all(vars(node).keys() == NODE | {"_content"} for node in containers)
        and all(vars(vars(node)["_metadata"]).keys() == METADATA | OF_CONTAINERS for node in containers)
    )


@functools.lru_cache(MOST_TEXTS)
def _parse_once(text: str) -> Any:
    return _parse(text)  # the visitors of the tree only read it


def _set_new_parents(self: Any) -> None:
    content = vars(self)["_content"]
    if isinstance(content, dict | list):
        for child in content.values() if isinstance(content, dict) else content:
            own = vars(child)
            if own["_parent"] is not self:
                child._set_parent(self)
            if "_content" in own:
                child._re_parent()
    else:  # an interpolation, no value, or a node of several types
        _set_parents(self)


def _copy_attributes(original: Any) -> Any:
    copied = object.__new__(type(original))
    vars(copied).update(vars(original))
    return copied


def _copy_metadata(self: Any, memo: dict[int, Any]) -> Any:
    copied = _copy_attributes(self)
    own = vars(copied)  # types and keys never change
    if self.flags is not None:
        own["flags"] = dict(self.flags)
    own["resolver_cache"] = copy.deepcopy(self.resolver_cache, memo) if self.resolver_cache else defaultdict(dict)
    return copied


def _copy_value(self: Any, memo: dict[int, Any]) -> Any:
    copied = _copy_attributes(self)  # the parent is kept; the value cannot change
    own = vars(copied)
    own["_metadata"] = _copy_metadata(own["_metadata"], memo)
    own["_flags_cache"] = None
    return copied


def _copy_container(self: Any, memo: dict[int, Any]) -> Any:
    copied = _copy_value(self, memo)
    own = vars(copied)
    content = own["_content"]
    if isinstance(content, dict):
        own["_content"] = {key: _copy_child(child, copied, memo) for key, child in content.items()}
    elif isinstance(content, list):
        own["_content"] = [_copy_child(child, copied, memo) for child in content]
    return copied


def _copy_child(child: Any, parent: Any, memo: dict[int, Any]) -> Any:
    kind = type(child)
    if kind is AnyNode:
        copied = _copy_value(child, memo)
    elif kind is DictConfig or kind is ListConfig:
        copied = _copy_container(child, memo)
    else:  # a typed node, which copies itself
        copied = copy.deepcopy(child, memo)
    vars(copied)["_parent"] = parent
    return copied
