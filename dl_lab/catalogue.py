"""What the configs offer, read from their files: groups, experiments, sweeps, data sets. Neither Hydra nor torch."""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dl_lab.types import ConfigError

SHIPPED = Path(next(iter(importlib.import_module("dl_lab.conf").__path__)))
NOT_GROUPS = ("adapt", "hydra", "local", "sweep")
UNUSED = "-"


@dataclass(frozen=True)
class Entry:
    """One YAML of a group: its name, its opening comment, and what it says."""

    name: str
    path: Path
    comment: str
    content: Mapping[str, Any] = field(repr=False, default_factory=dict)

    @property
    def question(self) -> str:
        """The sentence the file opens with."""
        sentence = re.match(r".*?\?|.*?\.(?=\s|$)", self.comment)
        return sentence[0] if sentence else self.comment


@dataclass(frozen=True)
class Experiment(Entry):
    """An experiment; `dataset`, `model` and `procedure` are "-" where it uses none."""

    id: str = ""
    dataset: str = UNUSED
    model: str = UNUSED
    procedure: str = "fit"
    reference: Mapping[str, Any] = field(default_factory=dict)


def folders(config_dir: str | None = None) -> list[Path]:
    """Where configs lie: the shipped ones, then a user's own. Raises ConfigError for a folder that is not there."""
    if config_dir is None:
        return [SHIPPED]
    if not Path(config_dir).is_dir():
        raise ConfigError(f"--config-dir {config_dir} is not a folder.")
    return [SHIPPED, Path(config_dir)]


def refuse_shadowing(config_dir: str) -> None:
    """Raises ConfigError for a file of a user's folder with the name of a shipped one, which would not be read."""
    own = folders(config_dir)[-1]
    for path in sorted(own.glob("**/*.yaml")):
        if (SHIPPED / path.relative_to(own)).exists():
            raise ConfigError(f"{path} has the name of a config that dl-lab ships: give it another name.")


def main_keys(config_name: str, config_dir: str | None = None) -> list[str]:
    """The top-level keys of the main configs."""
    names = dict.fromkeys(("config", config_name))
    paths = [root / f"{name}.yaml" for root in folders(config_dir) for name in names]
    return [key for path in paths if path.exists() for key in parse(read_text(path), path)]


def groups(config_dir: str | None = None) -> dict[str, list[str]]:
    """Config group -> its options, those of subgroups ("model/attention") too; reads folders, opens no file."""
    found: dict[str, set[str]] = {}
    for root in folders(config_dir):
        for path in root.glob("*/**/*.yaml"):
            group = path.parent.relative_to(root).as_posix()
            if group.partition("/")[0] not in NOT_GROUPS:
                found.setdefault(group, set()).add(path.stem)
    return {group: sorted(found[group]) for group in sorted(found)}


def entries(group: str, config_dir: str | None = None) -> list[Entry]:
    """The YAMLs of a group by name. Raises ConfigError, with file and line, for one that is no YAML."""
    return list(_Entries(group, config_dir).values())


def experiments(config_dir: str | None = None) -> list[Experiment]:
    """All experiments, with what each one chooses."""
    found, procedures = _Entries("experiment", config_dir), _Entries("procedure", config_dir)
    return [_experiment(entry, found, procedures) for entry in found.values()]


def experiment(name: str, config_dir: str | None = None) -> Experiment | None:
    """The experiment of that name, reading only the files it stands on; None where there is none."""
    found = _Entries("experiment", config_dir)
    return _experiment(found[name], found, _Entries("procedure", config_dir)) if name in found else None


class _Entries(Mapping[str, Entry]):
    """The YAMLs of a group, by name in order, each read when it is first asked for (1 ms and more apiece)."""

    def __init__(self, group: str, config_dir: str | None = None) -> None:
        paths = {path.stem: path for root in folders(config_dir) for path in (root / group).glob("*.yaml")}
        self._paths, self._read = dict(sorted(paths.items())), dict[str, Entry]()

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
        changed = 0  # reading says what is wrong
    return _entry_as_of(path, changed)


@functools.cache
def _entry_as_of(path: Path, changed: int) -> Entry:
    """A lane runs many jobs of one experiment."""
    text = read_text(path)
    return Entry(path.stem, path, " ".join(_opening_comment(text)), parse(text, path))


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}.") from error


def parse(text: str, path: Path) -> dict[str, Any]:
    """The mapping in a YAML text. Raises ConfigError, with file and line, for a text that is none."""
    import yaml

    try:
        value = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 (both are safe)
    except yaml.YAMLError as error:
        raise ConfigError(describe_yaml_error(error, path)) from error
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: a config is a mapping of keys to values, this is a {type(value).__name__}.")
    return value


def describe_yaml_error(error: Exception, path: Path | str) -> str:
    """`file, line 3: what is wrong`, with the line itself where it can be read."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
    if mark is None:
        return f"{path} is not valid YAML: {problem}."
    try:
        line = Path(path).read_text(encoding="utf-8").splitlines()[mark.line].rstrip()
    except (OSError, IndexError, UnicodeDecodeError):
        line = ""
    return f"{path}, line {mark.line + 1} is not valid YAML: {problem}." + (f"\n  {line}" if line else "")


def _opening_comment(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if not line.startswith("#"):
            return
        if "@package" not in line:
            yield line.lstrip("# ")


def _experiment(entry: Entry, found: Mapping[str, Entry], procedures: Mapping[str, Entry]) -> Experiment:
    chosen = {"dataset": "digits", "model": "mlp", "procedure": "fit", **_main_defaults()}
    facts = {"id": "", "reference": {}}
    for content in _lineage(entry, found):
        chosen |= _overrides(content)
        facts |= {key: content[key] or facts[key] for key in facts if key in content}
    procedure = procedures.get(str(chosen["procedure"]))
    used = read_text(procedure.path) if procedure else ""
    learner = "${learner}" in used
    for part in ("dataset", "model"):
        if (procedure and f"${{{part}" not in used and not (part == "model" and learner)) or chosen[part] is None:
            chosen[part] = UNUSED
    return Experiment(
        entry.name,
        entry.path,
        entry.comment,
        entry.content,
        id=str(facts["id"]),
        dataset=str(chosen["dataset"]),
        model=str(chosen["model"]),
        procedure=str(chosen["procedure"]),
        reference=facts["reference"],
    )


@functools.cache
def _main_defaults() -> dict[str, Any]:
    return _choices(parse(read_text(SHIPPED / "config.yaml"), SHIPPED / "config.yaml").get("defaults", []))


def _lineage(entry: Entry, found: Mapping[str, Entry]) -> list[Mapping[str, Any]]:
    """The experiments it starts from, oldest first, then itself."""
    bases = [item.rpartition("/")[2] for item in entry.content.get("defaults", []) if isinstance(item, str)]
    older = [
        content for name in bases if name in found and name != entry.name for content in _lineage(found[name], found)
    ]
    return [*older, entry.content]


def _overrides(content: Mapping[str, Any]) -> dict[str, Any]:
    """{"dataset": "octmnist"} of `override /dataset: octmnist`."""
    return {
        key.rpartition("/")[2]: value
        for key, value in _choices(content.get("defaults", [])).items()
        if key.startswith("override ")
    }


def _choices(defaults: Any) -> dict[str, Any]:
    return {str(key): value for item in defaults if isinstance(item, Mapping) for key, value in item.items()}
