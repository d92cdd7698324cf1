"""The groups, experiments, sweeps and data sets that the config files offer. Imports neither Hydra nor torch."""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dl_lab import keys, project
from dl_lab.runs.anchors import load_yaml, refuse_expansion
from dl_lab.types import ConfigError

SHIPPED = Path(next(iter(importlib.import_module("dl_lab.conf").__path__)))
UNUSED = "-"  # stands for a part that an experiment does not use


@dataclass(frozen=True)
class Entry:
    """One YAML of a group: its name, its path, its opening comment and its content."""

    name: str
    path: Path
    comment: str
    content: Mapping[str, Any] = field(repr=False, default_factory=dict)

    @property
    def question(self) -> str:
        """The first sentence of the opening comment."""
        sentence = re.match(r".*?\?|.*?\.(?=\s|$)", self.comment)
        return sentence[0] if sentence else self.comment


@dataclass(frozen=True)
class Experiment(Entry):
    """An experiment. `dataset` and `model` are "-" where it uses none."""

    id: str = ""
    dataset: str = UNUSED
    model: str = UNUSED
    procedure: str = "fit"
    reference: Mapping[str, Any] = field(default_factory=dict)


def folders(config_dir: str | None = None) -> list[Path]:
    """List the folders of configs: the shipped one, then the user's own.

    Args:
        config_dir: The user's own folder. None: the project's.

    Raises:
        ConfigError: The folder does not exist.
    """
    given = config_dir is not None
    config_dir = config_dir if given else project.config_dir()
    if config_dir is None:
        return [SHIPPED]
    if not Path(config_dir).is_dir():
        name = "--config-dir" if given else "config_dir of [tool.dl-lab]:"
        raise ConfigError(f"{name} {config_dir} is not a folder.")
    return [SHIPPED, Path(config_dir)]


def refuse_shadowing(config_dir: str) -> None:
    """Refuse a user's file that has the name of a shipped one by accident, or a wrong ending.

    A comment in the file says that it replaces a shipped one on purpose: `# replaces: model/mlp`.

    Raises:
        ConfigError: There is such a file.
    """
    own = folders(config_dir)[-1]
    for path in sorted(own.glob("**/*.yml")):
        raise ConfigError(f"{path}: the name of a config ends with .yaml. Call it {path.stem}.yaml.")
    for path in sorted(own.glob("**/*.yaml")):
        name = path.relative_to(own).with_suffix("").as_posix()
        is_shipped = (SHIPPED / f"{name}.yaml").exists()
        if is_shipped and not re.search(rf"^# *replaces: *{re.escape(name)} *$", read_text(path), re.MULTILINE):
            raise ConfigError(
                f"{path} has the name of a config that dl-lab ships. Give it another name; or, to replace the shipped "
                f"one on purpose, write the line\n  # replaces: {name}"
            )


GLOBAL_GROUPS = ("experiment", "profile")  # their files set keys of the whole config
PACKAGE = "# @package _global_"


def refuse_wrong_file(group: str, option: str, config_dir: str) -> None:
    """Refuse a user's file that is empty, that is no mapping, or that sets nothing because its first line is missing.

    Hydra reads `# @package _global_` only above every other comment. Without this line, Hydra puts the keys of an
    experiment where nothing looks for them.

    Raises:
        ConfigError: The file is of this kind. The message says what to write.
    """
    path = Path(config_dir) / group / f"{option}.yaml"
    if not path.is_file():
        return
    text = read_text(path)
    needs_package = group.partition("/")[0] in GLOBAL_GROUPS
    parse(text, path)
    if all(not line.strip() or line.lstrip().startswith("#") for line in text.splitlines()):
        first = f' and "{PACKAGE}" above them' if needs_package else ""
        raise ConfigError(f"{path} is empty: write the keys that it sets{first}.")
    if not needs_package or _package_of(text) == "_global_":
        return
    lines = text.splitlines()
    hidden = next((i for i, line in enumerate(lines, 1) if line.replace(" ", "") == "#@package_global_"), None)
    where = f"move line {hidden} to the top" if hidden else f'add the line "{PACKAGE}" at the top'
    raise ConfigError(f"{path} would set nothing: {where}, above every other comment.")


def _package_of(text: str) -> str:
    """Return the package that a file's first lines name, by Hydra's rule; "" for none."""
    for line in text.splitlines():
        if line.strip() and not re.match(r"\s*#\s*@", line):
            break
        words = line.strip().lstrip("#").split()
        if len(words) == 2 and words[0] == "@package":
            return words[1]
    return ""


def main_keys(config_name: str, config_dir: str | None = None) -> list[str]:
    """List the top-level keys of the main configs: config.yaml and the one of this name."""
    names = dict.fromkeys(("config", config_name))
    found: list[str] = []
    for root in folders(config_dir):
        for name in names:
            path = root / f"{name}.yaml"
            if path.exists():
                found += parse(read_text(path), path)
    return found


def groups(config_dir: str | None = None) -> dict[str, list[str]]:
    """Map each config group, subgroups ("model/attention") included, to its options. This opens no file."""
    found: dict[str, set[str]] = {}
    for root in folders(config_dir):
        for path in root.glob("*/**/*.yaml"):
            group = path.parent.relative_to(root).as_posix()
            if keys.counts(group.partition("/")[0]).listed:
                found.setdefault(group, set()).add(path.stem)
    return {group: sorted(found[group]) for group in sorted(found)}


def entries(group: str, config_dir: str | None = None) -> list[Entry]:
    """List the YAMLs of a group by name.

    Raises:
        ConfigError: A file is no YAML. The message names file and line.
    """
    return list(_Entries(group, config_dir).values())


def experiments(config_dir: str | None = None, problems: list[str] | None = None) -> list[Experiment]:
    """List the experiments, with what each one chooses.

    Args:
        config_dir: A folder of the user's own configs.
        problems: Gets a message for each experiment that cannot be read. None: the first problem is raised.

    Raises:
        ConfigError: An experiment cannot be read, and `problems` is None.
    """
    found = _Entries("experiment", config_dir)
    procedures = _Entries("procedure", config_dir)
    readable = []
    for name in found:
        try:
            readable.append(_experiment(found[name], found, procedures))
        except ConfigError as error:
            if problems is None:
                raise
            problems.append(str(error))
    return readable


def experiment(name: str, config_dir: str | None = None) -> Experiment | None:
    """Return the experiment of that name; None where there is none. This reads only the files that it builds on."""
    found = _Entries("experiment", config_dir)
    if name not in found:
        return None
    return _experiment(found[name], found, _Entries("procedure", config_dir))


class _Entries(Mapping[str, Entry]):
    """The YAMLs of a group, in the order of their names. Each is read at its first use, because that takes 1 ms."""

    def __init__(self, group: str, config_dir: str | None = None) -> None:
        paths = {path.stem: path for root in folders(config_dir) for path in (root / group).glob("*.yaml")}
        self._paths = dict(sorted(paths.items()))
        self._read: dict[str, Entry] = {}

    def __getitem__(self, name: str) -> Entry:
        if name not in self._read:
            self._read[name] = _entry(self._paths[name])
        return self._read[name]

    def __contains__(self, name: object) -> bool:
        return name in self._paths

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


def _entry(path: Path) -> Entry:
    try:
        changed = path.stat().st_mtime_ns
    except OSError:
        changed = 0  # reading the file will raise the error
    return _read_entry(path, changed)


@functools.cache  # a lane runs many jobs of one experiment
def _read_entry(path: Path, changed: int) -> Entry:
    """Read one YAML. `changed` is part of the cache's key, so that an edited file is read again."""
    text = read_text(path)
    return Entry(path.stem, path, " ".join(_opening_comment(text)), parse(text, path))


def read_text(path: Path) -> str:
    """Read a text file.

    Raises:
        ConfigError: The file cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from error


def parse(text: str, path: Path) -> dict[str, Any]:
    """Parse the text of a YAML file whose content is a mapping.

    Raises:
        ConfigError: The text is no YAML, is no mapping, or stands for too many values.
    """
    import yaml

    try:
        value = load_yaml(text)
    except yaml.YAMLError as error:
        raise ConfigError(describe_yaml_error(error, path)) from error
    except RecursionError as error:
        raise ConfigError(f"{path}: its values are nested too deeply.") from error
    refuse_expansion(value, path)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: a config is a mapping of keys to values; this is a {type(value).__name__}.")
    return value


def describe_yaml_error(error: Exception, path: Path | str) -> str:
    """Describe a YAML error by its file and line, with the text of the line where it can be read."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
    if mark is None:
        return f"{path} is not valid YAML: {problem}."
    try:
        line = Path(path).read_text(encoding="utf-8").splitlines()[mark.line].rstrip()
    except (OSError, IndexError, UnicodeDecodeError):
        line = ""
    message = f"{path}, line {mark.line + 1} is not valid YAML: {problem}."
    return f"{message}\n  {line}" if line else message


def _opening_comment(text: str) -> Iterator[str]:
    """Yield the lines of the comment that a file opens with, without Hydra's `@package` line."""
    for line in text.splitlines():
        if not line.startswith("#"):
            return
        if "@package" not in line:
            yield line.lstrip("# ")


def _experiment(entry: Entry, found: Mapping[str, Entry], procedures: Mapping[str, Entry]) -> Experiment:
    chosen = {"dataset": "digits", "model": "mlp", "procedure": "fit", **_main_defaults()}
    id_ = ""
    reference: Mapping[str, Any] = {}
    for content in _lineage(entry, found):
        chosen |= _overrides(content)
        id_ = content.get("id") or id_
        reference = content.get("reference") or reference
    procedure = procedures.get(str(chosen["procedure"]))
    for part in ("dataset", "model"):
        if chosen[part] is None or (procedure is not None and not _uses(procedure, part)):
            chosen[part] = UNUSED
    return Experiment(
        entry.name,
        entry.path,
        entry.comment,
        entry.content,
        id=str(id_),
        dataset=str(chosen["dataset"]),
        model=str(chosen["model"]),
        procedure=str(chosen["procedure"]),
        reference=reference,
    )


def _uses(procedure: Entry, part: str) -> bool:
    """Whether the file of a procedure refers to a part. A learner holds the model."""
    text = read_text(procedure.path)
    return f"${{{part}" in text or (part == "model" and "${learner}" in text)


@functools.cache
def _main_defaults() -> dict[str, object]:
    return _choices(parse(read_text(SHIPPED / "config.yaml"), SHIPPED / "config.yaml").get("defaults", []))


def _lineage(entry: Entry, found: Mapping[str, Entry]) -> list[Mapping[str, Any]]:
    """List the contents of the experiments that this one builds on, oldest first, and then its own."""
    lineage: list[Mapping[str, Any]] = []
    for item in entry.content.get("defaults", []):
        name = item.rpartition("/")[2] if isinstance(item, str) else ""
        if name in found and name != entry.name:
            lineage += _lineage(found[name], found)
    return [*lineage, entry.content]


def _overrides(content: Mapping[str, object]) -> dict[str, object]:
    """Return {"dataset": "octmnist"} for a file with `override /dataset: octmnist`."""
    return {
        key.rpartition("/")[2]: value
        for key, value in _choices(content.get("defaults", [])).items()
        if key.startswith("override ")
    }


def _choices(defaults: object) -> dict[str, object]:
    """Map group to option, from the entries of a defaults list that are no plain names."""
    found: dict[str, object] = {}
    for item in defaults if isinstance(defaults, list) else ():
        if isinstance(item, Mapping):
            found |= {str(group): option for group, option in item.items()}
    return found
