"""The columns of TensorBoard's HParams table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dl_lab import keys
from dl_lab.runs.board import HParam
from dl_lab.runs.settings import flatten


def hparams(config: Mapping[str, Any], choices: Mapping[str, str], words: Sequence[str] = ()) -> dict[str, HParam]:
    """Return the columns of a run: the chosen parts, their numbers, and the other settings of the command line.

    TensorBoard opens with the first five columns. So a value that a model takes from its data set (n_classes) is left
    out. A setting without a value is left out too: a text beside the numbers of other runs would turn the column into
    one of texts, without those runs.

    Args:
        config: The resolved config.
        choices: The chosen option of each config group.
        words: The overrides of the command line.
    """
    columns: dict[str, HParam] = {}
    for group, choice in choices.items():
        if keys.counts(group).hparams in ("always", "choice"):
            columns[group] = choice
    asked = {keys.of_word(word) for word in words}
    data = config.get("dataset") or {}
    for key, value in flatten(config).items():
        about = keys.counts(key)
        name = key.rpartition(".")[2]
        is_from_data = about.kind == "choice" and name in data
        if value is None:
            continue
        if key in asked and about.hparams != "never":
            columns[key] = value if isinstance(value, HParam) else str(value)
        elif about.hparams == "always" and isinstance(value, HParam) and not is_from_data and not name.startswith("_"):
            columns[key] = value
    return columns
