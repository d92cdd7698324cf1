"""The published figures of an experiment: what a `reference:` block may say."""

from __future__ import annotations

from collections.abc import Mapping

from dl_lab.types import ConfigError

MODES = ("max", "min", "equal")
FACTS = ("value", "tolerance", "source", "mode")


def check_reference(reference: object) -> None:
    """Check the `reference:` of a config.

    Raises:
        ConfigError: An entry has no number to judge by. The message names the config path.
    """
    if not isinstance(reference, Mapping):
        raise ConfigError(f"reference: {reference!r} is not a mapping of metrics to published figures.")
    for name, entry in reference.items():
        path = f"reference.{name}"
        if not isinstance(entry, Mapping) or not _is_number(entry.get("value")):
            raise ConfigError(
                f"{path}: must be a mapping with a number as value, like {{value: 0.95, tolerance: 0.01}}."
            )
        unknown = [key for key in entry if key not in FACTS]
        if unknown:
            raise ConfigError(f"{path}.{unknown[0]}: a published figure has only {', '.join(FACTS)}.")
        if not _is_number(entry.get("tolerance", 0)) or entry.get("tolerance", 0) < 0:
            raise ConfigError(f"{path}.tolerance: {entry['tolerance']!r} is not a number of at least 0.")
        if entry.get("mode", "max") not in MODES:
            raise ConfigError(f"{path}.mode: {entry['mode']!r} must be one of {', '.join(MODES)}.")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
