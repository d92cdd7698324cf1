"""Build the objects that a config describes, each exactly once."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Mapping
from typing import Any

from dl_lab.configs.arguments import check_call
from dl_lab.configs.explain import fault, short_path
from dl_lab.configs.targets import locate, targets
from dl_lab.runs.board import Board, refuse_wrong_board
from dl_lab.runs.boards import Boards
from dl_lab.types import ConfigError, UserError


def build(config: Mapping[str, Any], key: str) -> Any:
    """Build the object that `config[key]` describes. Everything below it is built exactly once.

    Args:
        config: A config of plain values.
        key: One of its top-level keys.

    Raises:
        UserError: A constructor refused its arguments. The message names the config path.
    """
    described = dict(config[key])
    loaded: dict[str, object] = {}
    if key_of(described.get("dataset")) in _LOADED:
        loaded["dataset"] = _LOADED[key_of(described.pop("dataset"))]
    try:
        return _build(described, key, loaded)
    except _RefusedError as refusal:
        cause = refusal.__cause__ or refusal
        import torch

        if isinstance(cause, UserError | torch.OutOfMemoryError):
            raise cause from None
        raise ConfigError(f"{short_path(config, refusal.path)}: {fault(cause)}") from cause


def build_logger(config: Mapping[str, Any]) -> Board:
    """Build the logger of a run.

    Raises:
        UserError: It cannot be built, or it is no logger.
    """
    board = build(config, "logger")
    parts = board.boards if isinstance(board, Boards) else {}
    for name, part in {"logger": board, **{f"logger.boards.{name}": part for name, part in parts.items()}}.items():
        refuse_wrong_board(name, part)
    return board


class _RefusedError(Exception):
    """A constructor failed: its exception is the cause, `path` is the config path of the part."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


def _build(value: object, path: str, ready: Mapping[str, object] | None = None) -> Any:
    """Return what `hydra.utils.instantiate(value, _convert_="object", **ready)` returns (a test compares them).

    This follows Hydra's rules on plain values. Hydra itself makes four copies of the config as OmegaConf nodes, which
    takes a tenth of the time of a sweep's job, and it has another kind of allow-list.

    Args:
        value: A part of the config.
        path: Its place in the config, for error messages.
        ready: Arguments that are built already.
    """
    if isinstance(value, list):
        return [_build(item, f"{path}.{i}") for i, item in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    if "_target_" not in value:
        return {name: _build(item, f"{path}.{name}") for name, item in value.items()}
    target = locate(path, value["_target_"])
    given = {name: item for name, item in value.items() if name not in INSTRUCTIONS}
    if value.get("_recursive_", True):
        arguments = {name: _build(item, f"{path}.{name}") for name, item in given.items()}
        positional = _build(value.get("_args_", []), path)
    else:
        arguments, positional = copy.deepcopy((given, value.get("_args_", [])))
    arguments |= ready or {}
    try:
        if value.get("_partial_"):
            return functools.partial(target, *positional, **arguments)
        return target(*positional, **arguments)
    except Exception as error:
        raise _RefusedError(path) from error


INSTRUCTIONS = ("_target_", "_args_", "_partial_", "_recursive_", "_convert_")


def build_checked(node: Mapping[str, Any], name: str) -> Any:
    """Check and build a part that stands beside the job's own config.

    Raises:
        ConfigError: A target is not allowed, or does not take its arguments.
    """
    for path, part in targets(node, name):
        check_call(path, part, locate(path, part["_target_"]))
    return build({name: node}, name)


def load_dataset(config: Mapping[str, Any]) -> None:
    """Build the data set of a job now. Later jobs of this process and its forks that describe the same one share it.

    A data set that draws from a global random generator is not kept, because it depends on the seed of each job.
    """
    dataset = config["procedure"].get("dataset")
    if isinstance(dataset, Mapping) and "_target_" in dataset and key_of(dataset) not in _LOADED:
        before = _random_states()
        built = build({"dataset": dataset}, "dataset")
        if before == _random_states():
            _LOADED[key_of(dataset)] = built


def forget_datasets() -> None:
    """Free the data sets that `load_dataset` keeps."""
    _LOADED.clear()


def _random_states() -> str:
    """Return the states of the global random generators as one text."""
    import random

    import numpy as np
    import torch

    numpy_state = [part.tobytes() if isinstance(part, np.ndarray) else part for part in np.random.get_state()]
    return repr((random.getstate(), numpy_state, torch.get_rng_state().numpy().tobytes()))


_LOADED: dict[str, object] = {}


def key_of(description: object) -> str:
    """Return a text that is equal for equal descriptions."""
    return json.dumps(description, sort_keys=True, default=str)
