"""The parts of a resolved config that many places read.

Their values are `Any`: a YAML may say anything, and whoever uses a value checks it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def procedure_of(config: Mapping[str, object]) -> Mapping[str, Any]:
    """Return what the config says about its procedure; {} where it has none."""
    return _as_mapping(config.get("procedure"))


def trainer_of(config: Mapping[str, object]) -> Mapping[str, Any]:
    """Return what the config says about its trainer; {} for a procedure without one."""
    return _as_mapping(procedure_of(config).get("trainer"))


def dataset_of(config: Mapping[str, object]) -> Mapping[str, Any] | None:
    """Return what the config says about its data set; None for a procedure without one."""
    dataset = procedure_of(config).get("dataset")
    return dataset if isinstance(dataset, Mapping) else None


def _as_mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
