"""What a user tells about her own data: the names of the classes, and the facts that a predictor needs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from dl_lab.runs.files import as_numbers
from dl_lab.types import UserError


def as_class_names(names: Sequence[object]) -> tuple[str, ...]:
    """Return the names of the classes as texts.

    Raises:
        UserError: They are one text. Its letters would be the names.
    """
    if isinstance(names, str):
        raise UserError(f"class_names is the text {names!r}; it must be a list of names.")
    return tuple(map(str, names))


def as_json(preprocessing: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the facts for a predictor as they will be read from the run's folder. Arrays become lists of numbers.

    Raises:
        UserError: They are no mapping, or a value is nothing that JSON knows.
    """
    if not isinstance(preprocessing, Mapping | None):
        raise UserError(f"preprocessing is a {type(preprocessing).__name__}; it must be a mapping, {{name: value}}.")
    known: dict[str, Any] = {}
    for key, value in (preprocessing or {}).items():
        try:
            known[str(key)] = json.loads(json.dumps(value, default=_to_json))
        except (TypeError, ValueError) as error:
            raise UserError(f"preprocessing: {key} cannot be saved as JSON: {error}.") from error
    return known


def _to_json(value: object) -> object:
    plain = as_numbers(value)
    if plain is value:
        raise TypeError(f"a {type(value).__name__} is no plain value")
    return plain
