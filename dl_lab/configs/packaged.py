"""Lets Hydra compose faster, with the same result.

Hydra reads each file anew for each composition, with the YAML parser that is written in Python. Here libyaml reads the
files of a package, and a process reads each of them once while the file does not change.

For each file, Hydra also makes a table of the chosen options. Only a defaults list with an interpolation, such as
`- /task: ${dataset}`, needs the table. For each entry of a list, Hydra also parses the number of its own version, and
copies the entry with Python's general `deepcopy`.
"""

from __future__ import annotations

import copy
import functools
import os
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra import version
from hydra._internal import defaults_list
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.default_element import InputDefault
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader

from dl_lab.configs import fast_omegaconf

if TYPE_CHECKING:
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra.core.object_type import ObjectType
    from omegaconf import DictConfig

_make_table = defaults_list._create_interpolation_map
_parse_version = functools.cache(version._get_version)
_NOTHING = OmegaConf.create()
_READ: dict[tuple[str, str], tuple[tuple[int, int], ConfigResult]] = {}


def speed_up(loader: ConfigLoaderImpl) -> None:
    """Let a loader of Hydra's read the files of packages as described above. The user's own files are not concerned."""
    sources = loader.repository.sources
    for i, source in enumerate(sources):
        if source.scheme() == PackagedConfigs.scheme():
            sources[i] = PackagedConfigs(source.provider, f"{source.scheme()}://{source.path}")
    defaults_list._create_interpolation_map = _table_where_needed
    version._get_version = _parse_version
    InputDefault.__deepcopy__ = _copy_entry  # pyright: ignore[reportAttributeAccessIssue]
    fast_omegaconf.speed_up()


def _table_where_needed(overrides: Any, items: list[InputDefault], self_added: bool) -> DictConfig:
    if any("${" in str(vars(item)) for item in items):
        return _make_table(overrides, items, self_added)
    return _NOTHING


def _copy_entry(self: InputDefault, memo: object) -> InputDefault:
    """Copy an entry of a defaults list: texts, flags, and a list of options."""
    copied = object.__new__(type(self))
    vars(copied).update((key, list(value) if isinstance(value, list) else value) for key, value in vars(self).items())
    return copied


class PackagedConfigs(ConfigSource):
    """The configs of a package whose files lie in a folder.

    Args:
        provider: Hydra's name for the source.
        path: "pkg://" and the name of the package.
    """

    def __init__(self, provider: str, path: str) -> None:
        super().__init__(provider, path)
        self._folder = str(next(iter(import_module(self.path).__path__)))
        self._files = FileConfigSource(provider, self._folder)

    @staticmethod
    def scheme() -> str:
        """Return the beginning of the source's path."""
        return "pkg"

    def load_config(self, config_path: str) -> ConfigResult:
        """Return the content of a file, which the caller may change."""
        file = Path(self._folder, self._normalize_file_name(config_path))
        about = os.stat(file)
        state = (about.st_mtime_ns, about.st_size)
        known = _READ.get((self.provider, str(file)))
        if known is None or known[0] != state:
            known = _READ[self.provider, str(file)] = (state, self._read(file))
        return replace(known[1], config=copy.deepcopy(known[1].config), header=dict(known[1].header))

    def _read(self, file: Path) -> ConfigResult:
        text = file.read_text(encoding="utf-8")
        content = yaml.load(text, Loader=_loader())  # noqa: S506 (a safe loader)
        return ConfigResult(
            config=OmegaConf.create() if content is None else OmegaConf.create(content),
            path=f"{self.scheme()}://{self.path}",
            provider=self.provider,
            header=self._get_header_dict(text[:512]),
        )

    def available(self) -> bool:
        """Return whether the folder is there."""
        return self._files.available()

    def is_group(self, config_path: str) -> bool:
        """Return whether the path is a folder."""
        return os.path.isdir(os.path.join(self._folder, config_path))

    def is_config(self, config_path: str) -> bool:
        """Return whether the path is a file."""
        return os.path.isfile(os.path.join(self._folder, self._normalize_file_name(config_path)))

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """List the groups or the configs of a folder, in order."""
        return self._files.list(config_path, results_filter)


@functools.cache
def _loader() -> Any:
    """OmegaConf's loader, on top of libyaml's parser where PyYAML has it."""
    own = get_yaml_loader()
    if not yaml.__with_libyaml__:
        return own
    parser: Any = import_module("yaml.cyaml").CParser

    class Loader(parser, own):
        def __init__(self, stream: str) -> None:
            parser.__init__(self, stream)
            yaml.constructor.SafeConstructor.__init__(self)
            yaml.resolver.Resolver.__init__(self)

    return Loader
