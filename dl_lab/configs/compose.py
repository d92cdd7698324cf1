"""Compose the config of a job from the shipped `conf/`, a user's own folder and the command line, with Hydra."""

from __future__ import annotations

import contextlib
import difflib
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dl_lab import keys, project
from dl_lab.configs import catalogue, unknown_keys
from dl_lab.configs.explain import explain_value, key_paths, no_merge, not_an_override, tidy, unnamed_option
from dl_lab.configs.learned import learn
from dl_lab.configs.resolve import Composed, resolve
from dl_lab.configs.unread import unread_keys
from dl_lab.configs.words import did_you_mean, to_list
from dl_lab.runs.anchors import refuse_expansions
from dl_lab.types import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from dl_lab.datasets.storage import Storage

CONFIG_MODULE = "dl_lab.conf"
MANY = 48  # options of a group: more of them fill a screen, so only the nearest are shown
HYDRAS_OWN = "hydra._internal.core_plugins."  # the launcher and the sweeper that Hydra chooses by itself


class UnknownKeyError(ConfigError):
    """An override names a key that the config does not have."""


def _refuse_hydras_parts(hydra: DictConfig) -> None:
    """Refuse a part of Hydra that dl-lab never executes. To ignore it would mislead the user."""
    found = []
    if hydra.callbacks:
        found.append("hydra.callbacks")
    if hydra.job.env_set:
        found.append("hydra.job.env_set")
    for name in ("launcher", "sweeper"):
        if not str(hydra[name].get("_target_")).startswith(HYDRAS_OWN):
            found.append(f"hydra.{name}")
    if found:
        raise ConfigError(
            f"{', '.join(found)}: dl-lab does not execute this part of Hydra. It has groups of its own instead: "
            "callbacks, launcher and search."
        )


class Composer:
    """Composes jobs from the shipped `conf/` and a user's own folder.

    Args:
        config_dir: The user's own folder of configs. None: the project's.
        config_name: The main config.

    Raises:
        ConfigError: A file in the user's own folder cannot be used.
    """

    def __init__(self, config_dir: str | None = None, config_name: str = "config") -> None:
        from hydra._internal.config_loader_impl import ConfigLoaderImpl
        from hydra._internal.utils import create_config_search_path
        from hydra.core.utils import setup_globals
        from omegaconf import OmegaConf

        from dl_lab.configs.packaged import speed_up

        config_dir = config_dir if config_dir is not None else project.config_dir()
        search_path = create_config_search_path(f"pkg://{CONFIG_MODULE}")
        if config_dir is not None:
            catalogue.refuse_shadowing(config_dir)
            refuse_expansions(config_dir)
            own_folder = f"file://{Path(config_dir).resolve()}"
            search_path.prepend("command-line", own_folder, "main")  # own files may replace shipped ones
        setup_globals()
        OmegaConf.register_new_resolver("run_id", _new_id, replace=True)
        OmegaConf.register_new_resolver("learned", learn, replace=True)
        OmegaConf.register_new_resolver("product", math.prod, replace=True)  # n_features from an input_shape
        self.config_name = config_name
        self.config_dir = config_dir
        self.loader = ConfigLoaderImpl(search_path)
        speed_up(self.loader)
        self._group_names: list[str] = []
        # The overrides that `is_multirun` has loaded, and their config: composing it again would take 0.1 s.
        self._loaded: tuple[list[str], DictConfig] | None = None

    def load(self, overrides: Sequence[str], multirun: bool = False) -> DictConfig:
        """Compose a config, and leave its interpolations as they are.

        Args:
            overrides: The words of the command line.
            multirun: Whether they are the words of a sweep.

        Raises:
            ConfigError: The words or the files do not fit. The message says what to write.
        """
        from hydra.core.hydra_config import HydraConfig
        from hydra.errors import HydraException
        from hydra.types import RunMode
        from omegaconf.errors import OmegaConfBaseException
        from yaml import YAMLError

        mode = RunMode.MULTIRUN if multirun else RunMode.RUN
        try:
            words = [*_project_words(overrides), *self.in_hydras_words(overrides)]
            config = self.loader.load_configuration(self.config_name, words, mode)
        except RecursionError:
            raise ConfigError("A value of the config, or of the command line, is nested too deeply.") from None
        except (HydraException, OmegaConfBaseException, YAMLError, ValueError, TypeError) as error:
            if isinstance(error, TypeError) and not unnamed_option(overrides, self.group_names()):
                raise  # a bug
            if not isinstance(error, YAMLError):  # a YAMLError names file and line itself
                self._refuse_wrong_files(_choices_of(overrides))
            unknown = re.search(r"Could not override '([^']+)'", str(error))
            kind = UnknownKeyError if unknown and not isinstance(error, YAMLError) else ConfigError
            raise kind(self._explain(error, overrides)) from error
        self._refuse_wrong_files({str(group): option for group, option in config.hydra.runtime.choices.items()})
        self._refuse_unused(config)
        _refuse_hydras_parts(config.hydra)
        HydraConfig.instance().set_config(config)
        return config

    def in_hydras_words(self, overrides: Sequence[str]) -> list[str]:
        """Translate `logger=null`: Hydra takes no null for a group.

        It becomes `logger=none` where the group has an option of this name, else `~logger`.
        """
        groups = self.group_names()
        words = []
        for word in overrides:
            group, _, value = word.rpartition("=")
            words.append(self._leave_out(group) if value == "null" and group in groups else word)
        return words

    def _leave_out(self, group: str) -> str:
        return f"{group}=none" if "none" in self.loader.get_group_options(group) else f"~{group}"

    def _refuse_wrong_files(self, choices: Mapping[str, object]) -> None:
        """Refuse a chosen file of the user's that Hydra would read as nothing, or not at all."""
        for group, option in choices.items():
            if self.config_dir is not None and isinstance(option, str):
                catalogue.refuse_wrong_file(group.partition("@")[0], option, self.config_dir)

    def _refuse_unused(self, config: DictConfig) -> None:
        """Refuse a top-level key, from `+key=1` or from a YAML, that dl-lab does not know and that no ${key} reads."""
        from omegaconf import OmegaConf

        own = catalogue.main_keys(self.config_name, self.config_dir)
        known = {*own, *self.group_names(), "hydra"}
        unknown = [str(key) for key in config if key not in known]
        if not unknown:
            return
        text = OmegaConf.to_yaml(OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"]))
        for key in unknown:
            if not re.search(rf"\$\{{{re.escape(key)}\b", text):
                raise ConfigError(f"{key}: nothing uses this key.{did_you_mean(key, sorted(known))}")

    def is_multirun(self, overrides: Sequence[str]) -> bool:
        """Whether hydra.mode, in the config or on the command line, asks for a sweep without -m.

        Raises:
            ConfigError: The words choose a part that only a sweep uses.
        """
        if "hydra.mode=MULTIRUN" in overrides:
            return True
        config = self.load(overrides)
        self._loaded = (list(overrides), config)
        if str(config.hydra.mode) in ("MULTIRUN", "RunMode.MULTIRUN"):
            return True
        for group in keys.sweep_groups():
            choice = config.hydra.runtime.choices.get(group)
            if choice not in (None, "null", "none", "local"):
                typed = " ".join(overrides)
                raise ConfigError(f"{group}={choice} is for a sweep: add -m.\n  dl-lab -m {typed}")
        return False

    def compose(self, overrides: Sequence[str]) -> Composed:
        """Compose and resolve the config of one job.

        Raises:
            ConfigError: A key or a value is unknown, or a key has no value yet.
        """
        loaded = self._loaded
        self._loaded = None
        if loaded is None or loaded[0] != list(overrides):
            loaded = (list(overrides), self.load(overrides))
        config = loaded[1]
        unread = unread_keys(config, overrides, self.group_names())
        return replace(resolve(config, overrides), unread=unread)

    def group_names(self) -> list[str]:
        """List the config groups, Hydra's own included."""
        from hydra.core.object_type import ObjectType

        if not self._group_names:  # they are asked for several times
            self._group_names = self.loader.repository.get_group_options("", ObjectType.GROUP)
        return self._group_names

    def groups(self) -> dict[str, list[str]]:
        """Map each config group to its options. Reading all their folders takes 0.1 s."""
        found = {}
        for name in self.group_names():
            options = self.loader.get_group_options(name)
            if options and name != "hydra":
                found[name] = sorted(options)
        return found

    def storage(self, name: str) -> Storage:
        """Return where the files of a data set, or of word vectors, lie.

        Raises:
            ConfigError: There is no data set of this name.
        """
        from omegaconf import OmegaConf

        from dl_lab.datasets.storage import storage_of  # here, because it imports archives and the web

        group = "vectors" if name in self.loader.get_group_options("vectors") else "dataset"
        config = self.load([f"{group}={name}"])
        own = config[group].get("storage") or OmegaConf.create({})
        return storage_of({"storage": OmegaConf.to_container(own, resolve=True)}, config.paths)

    def _explain(self, error: Exception, overrides: Sequence[str]) -> str:
        """Explain an error of Hydra's on one screen, with the nearest valid name."""
        from hydra.errors import MissingConfigException, OverrideParseException
        from omegaconf.errors import OmegaConfBaseException
        from yaml import YAMLError

        if isinstance(error, OverrideParseException):
            return not_an_override(error.override, overrides)
        if isinstance(error, MissingConfigException) and error.missing_cfg_file:
            return self._no_such_option(str(error.missing_cfg_file), error.options)
        if isinstance(error, YAMLError):
            file = getattr(getattr(error, "problem_mark", None), "name", "a config")
            return catalogue.describe_yaml_error(error, file)
        if twice := re.match(r"(\S+) appears more than once", str(error)):
            group = twice[1].partition("@")[0]
            return f"{group} is chosen twice: in the defaults of your file write `override /{group}: ...`."
        if group := re.search(r"In '([^']+)': Could not override '([^']+)'", str(error)):
            return self._no_such_group(group[1], group[2])
        if said := self._explain_value_of_word(error, overrides):
            return said
        if several := re.search(r"Ambiguous value for argument '([^']+)'", str(error)):
            key, _, values = several[1].partition("=")
            return (
                f"{several[1]} gives several values: add -m to try each one (a sweep).\n"
                f"  a list: {key}=[{values}]   a text: \"{key}='{values}'\""
            )
        if isinstance(error, OmegaConfBaseException):
            return explain_value(error)
        if isinstance(error, ValueError):  # a group without an option, a key without a name
            wrong = [word for word in overrides if not re.match(r"[+~]{0,2}[\w/.@:-]+(=|$)", word)]
            if wrong:
                return not_an_override(wrong[0], overrides)
        return tidy(error)

    def _explain_value_of_word(self, error: Exception, overrides: Sequence[str]) -> str:
        """Explain a value that the config has no place for; "" for other errors."""
        if word := unnamed_option(overrides, self.group_names()):
            key, _, value = word.lstrip("+").partition("=")
            options = self.loader.get_group_options(key.partition("@")[0])
            return f"{key}: {value} is not the name of an option.\n{to_list(key, options)}"
        if unknown := re.search(r"Could not override '([^']+)'", str(error)):
            inner = getattr(error.__cause__, "full_key", None) or ""
            if inner.startswith(f"{unknown[1]}."):  # callbacks={a: 1}
                given = [word for word in overrides if keys.of_word(word) == unknown[1]]
                add = f"\n  to add it: '+{given[0]}'" if given else ""
                return f"There is no key {inner!r} in this config.{add}"
            return self._no_such_key(unknown[1], overrides)
        if merged := re.match(r"Error merging override (.*)", str(error)):
            return f"{merged[1].lstrip('+')} does not fit: {no_merge(error)}"
        if nowhere := re.search(r"Error resolving interpolation '([^']*)'", str(error)):
            lists = {keys.of_word(word) for word in overrides if "=[" in word}
            for group in sorted(lists.intersection(re.findall(r"\$\{(\w+)\}", nowhere[1]))):
                return f"{group} takes one name: {group}=NAME."
        return ""

    def _no_such_option(self, name: str, options: Sequence[str] | None) -> str:
        group, _, option = name.rpartition("/")
        known = sorted(o for o in options or self.loader.get_group_options(group) if not o.startswith("_"))
        if not group:
            return f"There is no config {option!r}: --config-name is a main config like config.yaml."
        hint = did_you_mean(option, known)
        if len(known) > MANY:
            near = difflib.get_close_matches(option, known, n=MANY // 4, cutoff=0.3)
            shown = "\n" + to_list("near it", near) if near else ""
            return f"There is no {group} {option!r} among {len(known)}.{hint}{shown}\n  dl-lab list shows all of them."
        shown = "\n" + to_list(group, known) if known else ""
        return f"There is no {group} {option!r}.{hint}{shown}"

    def _no_such_group(self, file: str, group: str) -> str:
        """Say what is wrong with an `override` in a file's defaults list: the group's name, or the slash before it."""
        relative, _, bare = group.rpartition("@")
        if relative and bare in self.group_names():
            return f"{file}.yaml: write `override /{bare}: ...`, with a slash before the name of the group."
        return f"{file}.yaml overrides {group!r}, which is no group.{did_you_mean(group, self.group_names())}"

    def _no_such_key(self, key: str, overrides: Sequence[str]) -> str:
        """Say which key the user may mean: one beside it; else the nearest of all."""
        wrong = f"There is no key {key!r} in this config."
        rest = [word for word in overrides if keys.of_word(word) != key]
        # Where the command line does not give the key, loading again would fail in the same way.
        known = self._known_keys(rest) if len(rest) < len(overrides) else None
        if known is None:
            return wrong + did_you_mean(key, self.group_names())
        return wrong + unknown_keys.explain(key, known, self.group_names(), self.config_dir)

    def _known_keys(self, overrides: Sequence[str]) -> list[str] | None:
        """List the keys of the config that these words give; None where the chosen parts cannot be composed.

        Another of the words may name an unknown key too. Then only the words that choose parts count.
        """
        choices = [word for word in overrides if keys.of_word(word) in self.group_names()]
        for words in (overrides, choices):
            with contextlib.suppress(ConfigError):
                return [*key_paths(self.load(words))]
        return None


def _project_words(overrides: Sequence[str]) -> list[str]:
    """Return the override that names the folder of the project's runs, unless the command line has one."""
    folder = project.outputs()
    if folder == project.OUTPUTS or any(keys.of_word(word) == "paths.output_dir" for word in overrides):
        return []
    return [f"paths.output_dir='{folder}'"]


def _choices_of(overrides: Sequence[str]) -> dict[str, str]:
    """Map group to option, for the words that may choose one."""
    found = {}
    for word in overrides:
        key, _, value = word.lstrip("+").partition("=")
        if value:
            found[key] = value
    return found


def _new_id() -> str:
    return os.urandom(4).hex()
