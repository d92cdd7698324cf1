"""Check a config before anything is built: settings, targets and their arguments."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from dl_lab import keys, preload
from dl_lab.configs import catalogue
from dl_lab.configs.arguments import check_call, check_type
from dl_lab.configs.explain import short_path
from dl_lab.configs.older import upgrade
from dl_lab.configs.reference import check_reference
from dl_lab.configs.targets import locate, targets
from dl_lab.runs.anchors import refuse_expansion
from dl_lab.runs.files import as_mapping
from dl_lab.runs.records import overrides
from dl_lab.types import ConfigError, UserError

DATA_VARIABLE = "DL_LAB_DATA"  # names the data folder; also in conf/config.yaml
# The types of the settings that are no parts. `keys.settings()` names the same settings (a test compares).
SETTINGS: dict[str, object] = {
    "seed": int,
    "deterministic": bool,
    "threads": int | None,
    "id": str | None,
    "lanes": int | Literal["auto"],
    "on_failure": Literal["continue", "stop"],
    "job_process": Literal["fork", "fresh"],
    "n_trials": int | None,
    "search_seed": int,
    "objective": str | None,
    "paths": Mapping[str, str],
    "reference": Mapping[str, Any] | None,
}
# The least and the greatest value of a setting, where it is a number.
RANGES: dict[str, tuple[int, int | None]] = {
    "seed": (0, 2**63 - 1),
    "threads": (1, None),
    "lanes": (1, None),
    "n_trials": (1, None),
    "search_seed": (0, 2**63 - 1),
}


def check(config: Mapping[str, object]) -> None:
    """Check the types of the settings, and that every `_target_` is allowed, exists and takes its arguments.

    This builds nothing.

    Raises:
        ConfigError: Something does not fit. The message names the config path.
    """
    for name, hint in SETTINGS.items():
        if name in config:
            check_type(name, config[name], hint)
    for name, (least, most) in RANGES.items():
        _check_range(name, config.get(name), least, most)
    for part in ("procedure", "logger"):
        chosen = config.get(part)
        if not isinstance(chosen, Mapping) or not chosen:
            raise ConfigError(f"{part}: none is chosen. Choose one with {part}=NAME (see dl-lab --help).")
        if "_target_" not in chosen:
            raise ConfigError(f"{part}: the one that is chosen has no _target_, the name of its class or function.")
    check_reference(config.get("reference") or {})
    for part in ("dataset", "vectors"):
        files = as_mapping(as_mapping(config.get(part)).get("storage")).get("files")
        if isinstance(files, list):
            _check_files(f"{part}.storage", files)
    preload.torch()  # nearly every target needs it
    for path, node in targets(config):
        target = locate(path, node["_target_"])
        try:
            check_call(path, node, target)
        except ConfigError:
            check_call(short_path(config, path), node, target)  # the same message, with the path that the user knows
            raise


def _check_files(part: str, entries: Sequence[object]) -> None:
    """Refuse an entry of `files:` that cannot be used."""
    from dl_lab.datasets.files import data_files  # here, because it imports archives and the web

    mappings = [entry for entry in entries if isinstance(entry, Mapping)]
    if len(mappings) < len(entries):
        raise ConfigError(f"{part}.files: every entry is a mapping with a path, like {{path: a.csv}}.")
    try:
        data_files(mappings)
    except ConfigError as error:
        raise ConfigError(f"{part}.{error}") from None


def _check_range(name: str, value: object, least: int, most: int | None) -> None:
    if not isinstance(value, int):
        return
    if value < least or (most is not None and value > most):
        allowed = f"at least {least}" if most is None else f"between {least} and {most}"
        raise ConfigError(f"{name}: {value} is not {allowed}.")


def read_config(folder: Path) -> dict[str, Any]:
    """Read the frozen config of a run, translate it to this version, and check it again.

    Raises:
        UserError: The config cannot be read.
        ConfigError: A part of it is not allowed, or does not fit this version.
    """
    import yaml

    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        refuse_expansion(config, folder / "config.yaml")
        config = upgrade(config)
        config["procedure"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, RecursionError) as error:
        problem = catalogue.describe_yaml_error(error, folder / "config.yaml")
        raise UserError(f"This run's config cannot be read. {problem}") from error
    typed = {keys.of_word(word) for word in overrides(folder)}
    if "paths.data_dir" not in typed:  # the user did not choose the folder for this run
        config = relocate(config)
    check(config)
    return config


def relocate(config: Mapping[str, object]) -> dict[str, object]:
    """Return a recorded config with the data folder that DL_LAB_DATA names now.

    A folder belongs to the machine, not to the run. The run depends on the content of its data.
    """
    now = os.environ.get(DATA_VARIABLE)
    before = as_mapping(config.get("paths")).get("data_dir")
    if not now or not isinstance(before, str) or before == now:
        return dict(config)

    def move(value: object, key: str) -> object:
        if isinstance(value, Mapping):
            return {name: move(item, str(name)) for name, item in value.items()}
        if isinstance(value, list):
            return [move(item, key) for item in value]
        if value == before and (key.endswith("_dir") or "/" in before):
            return now
        if isinstance(value, str) and value.startswith(f"{before}/"):
            return now + value.removeprefix(before)
        return value

    return {key: move(value, key) for key, value in config.items()}
