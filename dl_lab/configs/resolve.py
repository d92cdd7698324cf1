"""Resolve a composed config to plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dl_lab import keys
from dl_lab.configs.explain import explain_value
from dl_lab.configs.learned import cause_of
from dl_lab.configs.start import pin_start
from dl_lab.types import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True)
class Composed:
    """The configuration of one job, and where it came from.

    Attributes:
        config: The resolved plain values.
        run_dir: The folder of the run.
        overrides: The words of the command line.
        choices: The chosen option of each config group.
        hydra: Hydra's own settings as plain values, with their interpolations.
        unread: Keys of the overrides that change nothing.
        local: Settings of `dl-lab tune` that the config contains.
    """

    config: dict[str, Any]
    run_dir: str
    overrides: list[str]
    choices: dict[str, str]
    hydra: Mapping[str, Any]
    unread: tuple[str, ...] = ()
    local: Mapping[str, Any] = field(default_factory=dict)

    def hydra_yaml(self) -> str:
        """Return Hydra's own settings as the text of a run's .hydra/hydra.yaml."""
        from omegaconf import OmegaConf

        return OmegaConf.to_yaml(OmegaConf.create({"hydra": self.hydra}))


def resolve(config: DictConfig, overrides: Sequence[str]) -> Composed:
    """Resolve a composed config to plain values.

    Raises:
        ConfigError: A key has no value, or an interpolation leads nowhere.
        UserError: The data that a `${learned:...}` reads cannot be used.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    own = OmegaConf.masked_copy(config, [str(key) for key in config if key not in ("hydra", *keys.sweep_groups())])
    try:
        values = _to_plain(own)
        run_dir = str(config.hydra.run.dir)
        options = config.hydra.runtime.choices.items()
    except OmegaConfBaseException as error:
        cause = cause_of(error)  # an error of the data that ${learned:...} reads
        if cause is not None:
            raise cause from None
        raise ConfigError(explain_value(error)) from error
    pin_start(values)
    choices = {}
    for group, option in options:
        if option not in (None, "null") and _describes_a_run(group):
            choices[group] = str(option)
    hydra: Any = OmegaConf.to_container(config.hydra, resolve=False, enum_to_str=True)
    return Composed(values, run_dir, list(overrides), choices, hydra)


def _to_plain(own: DictConfig) -> dict[str, Any]:
    """Return the resolved plain values of a config.

    Raises:
        ConfigError: A key has no value.
        OmegaConfBaseException: An interpolation leads nowhere.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        values: Any = OmegaConf.to_container(own, resolve=True)
    except OmegaConfBaseException:
        _refuse_missing(own)  # an interpolation may lead to a key without a value
        raise
    if _has_missing(values):  # only then: finding the keys resolves every interpolation once more
        _refuse_missing(own)
    return values


def _refuse_missing(own: DictConfig) -> None:
    """Refuse a config that has a key without a value.

    Raises:
        ConfigError: The message names the first such key.
    """
    from omegaconf import OmegaConf

    missing = sorted(OmegaConf.missing_keys(own))
    if missing:
        raise ConfigError(f"{missing[0]} has no value yet: give it on the command line, {missing[0]}=...")


def _has_missing(value: object) -> bool:
    """Whether a plain value is `???`, or holds it."""
    if isinstance(value, dict):
        return any(_has_missing(part) for part in value.values())
    if isinstance(value, list):
        return any(_has_missing(part) for part in value)
    return value == "???"


def _describes_a_run(group: str) -> bool:
    """Whether a run keeps the choice of a group, such as "model/attention@mechanisms.elu"."""
    about = keys.counts(group.partition("/")[0])
    return about.listed and not about.sweep_only and not group.startswith("profile@")


def plain(node: object) -> Any:
    """Return the resolved plain values of a DictConfig or ListConfig."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(node, resolve=True)
