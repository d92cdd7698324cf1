"""The identity of a job: the part of its config that can change a result, its data and its code.

The code is dl-lab's and the user's own (`sources`). Nothing here imports torch or loads data.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dl_lab import keys
from dl_lab.configs import sources, start
from dl_lab.datasets.contents import Contents
from dl_lab.datasets.storage import storage_of

DATA_PARTS = ("dataset", "vectors")


def relevant(config: Mapping[str, object]) -> dict[str, object]:
    """Return the part of a resolved config that a result depends on."""
    settings = {key: config.get(key) for key in keys.settings() if keys.counts(key).identity}
    return {**settings, "procedure": _keep(config["procedure"], lambda about: about.identity)}


def job_id(config: Mapping[str, object], code: str, data: str, own: str = "") -> str:
    """Return eight hex digits that two jobs share if and only if they must give the same result.

    Args:
        config: The resolved config.
        code: The digest of dl-lab's code.
        data: The digest of the data.
        own: The digest of the user's own code.
    """
    return _digest(relevant(config), code, data, own) if own else _digest(relevant(config), code, data)


@dataclass(frozen=True)
class Identity:
    """The identity of a job.

    Attributes:
        id: The job's id.
        own: The digest of the user's own code; "" where the job uses none.
        data: The digest of the data files; "" where the job reads none.
        facts: The digests file by file, for the record of the run.
    """

    id: str
    own: str
    data: str
    facts: dict[str, dict[str, str]]


def describe_sources(config: Mapping[str, object]) -> dict[str, dict[str, str]]:
    """Return the digests of a run's own code and of its data, file by file, for the record of the run.

    Returns:
        "own_code" and "data_files" -> file -> digest. An entry without files is left out.
    """
    facts = {"own_code": own_code(config), "data_files": data_files(config)}
    return {name: digests for name, digests in facts.items() if digests}


class Identifier:
    """Identifies the jobs of one sweep. It reads code and data that many jobs share only once.

    Args:
        code: The digest of dl-lab's code when the sweep began. None: the digest of the code now.
    """

    def __init__(self, code: str | None = None) -> None:
        self.code = code_fingerprint() if code is None else code
        self._own_code: dict[str, dict[str, str]] = {}
        self._data_files: dict[str, dict[str, str]] = {}

    def identify(self, config: Mapping[str, Any]) -> Identity:
        """Return the identity of a job with this resolved config."""
        procedure = config["procedure"]
        targets = " ".join(sources.own_targets(procedure))
        if targets not in self._own_code:
            self._own_code[targets] = own_code(config)
        parts = [procedure.get(part) for part in DATA_PARTS]
        data_parts = json.dumps([parts, start.start_files(config)], sort_keys=True, default=str)
        if data_parts not in self._data_files:
            self._data_files[data_parts] = data_files(config)
        found = {"own_code": self._own_code[targets], "data_files": self._data_files[data_parts]}
        own = combine(found["own_code"])
        data = combine(found["data_files"])
        facts = {name: digests for name, digests in found.items() if digests}
        return Identity(job_id(config, self.code, data, own), own, data, facts)


def cost_key(config: Mapping[str, object]) -> str:
    """Return a digest that is equal for jobs whose epochs take about the same time."""
    return _digest(_keep(config["procedure"], lambda about: about.cost))


@functools.cache  # one process runs one version of dl-lab
def code_fingerprint() -> str:
    """Return a digest of dl-lab's own source."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def own_code(config: Mapping[str, object]) -> dict[str, str]:
    """Map the source files of the user's own classes in a job, and of their imports, to their digests."""
    return sources.own_code(config["procedure"])


def combine(digests: Mapping[str, str]) -> str:
    """Return one digest for several files; "" for none."""
    return _digest(sorted(digests.items())) if digests else ""


def data_files(config: Mapping[str, Any]) -> dict[str, str]:
    """Map the files and folders that a job reads to the digests of their content. This loads no data.

    These files count: the `files:` of a shipped data set; every file or folder that a key of the data set or of the
    word vectors names, below the data folder or the current one; and every file that the source of the user's own data
    set names. A missing file of `files:` counts as missing. Generated data have no files. The weights that a training
    begins with (`learner.start_from`, a file in `procedure.weights`) count under these keys.
    """
    paths = config.get("paths") or {}
    contents = Contents(Path(paths.get("cache_dir", "")), Path(paths.get("output_dir", "outputs")))
    found: dict[str, str] = {}
    for part in DATA_PARTS:
        data = config["procedure"].get(part)
        if not isinstance(data, Mapping) or data.get("source") == "generated":
            continue
        storage = storage_of(data, paths)
        for file in storage.entries():
            root = storage.data
            folder = file.folder(root)
            is_unpacked = folder is not None and folder.is_dir() and not file.locate(root).is_file()
            found[file.path] = contents.digest(folder if is_unpacked and folder else file.locate(root))
        folders = [Path.cwd()]
        for base in (data.get("data_dir"), storage.data_dir, paths.get("data_dir")):
            if base:
                folders.append(Path(base).expanduser())
        # The files of each name. The name is the key, so that a project may move to another folder.
        by_name = [(name, _find_existing(name, folders)) for name in _find_names(data)]
        for source, name in sources.string_constants(sources.own_sources(data)):
            there = _find_existing(name, [*folders, source.path.parent])
            by_name.append((name, [path for path in there if path.suffix != ".py" and not _holds_project(path)]))
        for name, there in by_name:
            if there:
                found[name] = "-".join(dict.fromkeys(contents.digest(path) for path in there))
    for key, paths_of_weights in start.start_files(config).items():
        found[key] = "-".join(contents.digest(path) for path in paths_of_weights)
    return found


def data_fingerprint(config: Mapping[str, object]) -> str:
    """Return one digest of the files that a job reads; "" for data without files."""
    return combine(data_files(config))


# Keys of a data set whose values name files or folders, besides every value that looks like a path.
PATH_KEY = re.compile(r"(^|_)(path|file|filename|folder|dir|directory|root|csv|parquet)s?$")
PATH_VALUE = re.compile(r".*(/|\.[A-Za-z0-9]{1,8}$)")
NOT_DATA = {"data_dir", "cache_dir", "storage", "_target_"}


def _find_names(value: object, key: str = "") -> Iterator[str]:
    """Yield the values of a data set that may name files or folders."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            if name not in NOT_DATA:
                yield from _find_names(item, str(name))
    elif isinstance(value, list):
        for item in value:
            yield from _find_names(item, key)
    elif isinstance(value, str) and value and (PATH_KEY.search(key) or PATH_VALUE.match(value)):
        yield value


def _holds_project(path: Path) -> bool:
    """Whether a path is the current folder or one above it. A text like "." or "/" in a source names no data."""
    return Path.cwd().is_relative_to(path.resolve())


def _find_existing(value: str, bases: Sequence[Path]) -> list[Path]:
    """List the files and folders that a text names, as seen from each of the folders."""
    found = []
    for base in bases:
        with contextlib.suppress(OSError, ValueError):  # the name is too long, or has a zero byte
            path = base / Path(value).expanduser()
            if path.exists() and path not in found:
                found.append(path)
    return found


def _keep(value: object, wanted: Callable[[keys.Counts], bool], path: str = "") -> object:
    """Return the part of a procedure's config whose keys are wanted.

    Args:
        value: The config, or a node of it.
        wanted: Whether to keep a key, by what it counts for.
        path: Where the node stands below `procedure`.
    """
    if not isinstance(value, Mapping):
        return value
    kept = {}
    for key, item in value.items():
        inside = f"{path}.{key}" if path else str(key)
        if wanted(keys.counts_inside(inside)):
            kept[key] = _keep(item, wanted, inside)
    return kept


def _digest(*parts: object) -> str:
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
