"""Configs: compose, check, build. Only this package and `sweeps` import Hydra.

A config is data, not a program. It is first resolved to plain values. Every `_target_` in it must be on the allow-list,
exist, and take the arguments given. Only then is anything built, from those same plain values.
"""

from dl_lab.configs.build import build, build_checked, build_logger, forget_datasets, key_of, load_dataset
from dl_lab.configs.check import SETTINGS, check, read_config
from dl_lab.configs.compose import CONFIG_MODULE, Composer
from dl_lab.configs.explain import own_place
from dl_lab.configs.resolve import Composed, plain, resolve
from dl_lab.configs.unread import refuse_unread
from dl_lab.types import ConfigError

__all__ = [
    "CONFIG_MODULE",
    "SETTINGS",
    "Composed",
    "Composer",
    "ConfigError",
    "build",
    "build_checked",
    "build_logger",
    "check",
    "forget_datasets",
    "key_of",
    "load_dataset",
    "own_place",
    "plain",
    "read_config",
    "refuse_unread",
    "resolve",
]
