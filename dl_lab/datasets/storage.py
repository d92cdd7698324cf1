"""Where the files of a data set lie: settings of a config. This module imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dl_lab.datasets.files import DataFile, FileEntry, data_files, ensure


@dataclass(frozen=True)
class Storage:
    """Where the files of a data set lie.

    Args:
        data_dir: The data folder.
        cache_dir: The folder for what is decoded once.
        files: The files of the data set, each as the fields of a `DataFile` by name.
    """

    data_dir: str
    cache_dir: str
    files: Sequence[FileEntry]

    @property
    def data(self) -> Path:
        """The data folder."""
        return Path(self.data_dir).expanduser()

    @property
    def cache(self) -> Path:
        """The folder for what is decoded once."""
        return Path(self.cache_dir).expanduser()

    def entries(self) -> list[DataFile]:
        """Return the files. Raise a ConfigError as `data_files` does."""
        return data_files(self.files)

    def ensure(self, file: DataFile) -> Path:
        """Return the path of a file or of an archive's folder; fetch it first if it is missing (see `ensure`)."""
        return ensure(file, self.data)

    def is_official(self) -> bool:
        """Return whether every file is there and has the published checksum."""
        return all(file.state(self.data) == "official" for file in self.entries())


def storage_of(part: Mapping[str, Any], paths: Mapping[str, Any]) -> Storage:
    """Return where the files of a configured data set lie.

    Args:
        part: The config of the data set, or of word vectors.
        paths: The folders of the whole config, for a part without a storage of its own.
    """
    own = part.get("storage") or {}
    data_dir = own.get("data_dir") or paths.get("data_dir") or ""
    cache_dir = own.get("cache_dir") or paths.get("cache_dir") or ""
    return Storage(str(data_dir), str(cache_dir), own.get("files") or ())
