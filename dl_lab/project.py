"""A project of the user's own: `[tool.dl-lab]` in its pyproject.toml, and whether the user trusts its code.

The table names the folder of configs, the packages that a config may use, and the folder of the runs:

    [tool.dl-lab]
    config_dir = "conf"
    allow = ["my_lab"]
    output_dir = "outputs"

Configs are data, so `config_dir` and `output_dir` take effect at once. `allow` lets a config run Python code; a file in
a cloned repository cannot give this permission. The user gives it once, and it is kept outside the project.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, cast

from dl_lab.types import ConfigError, UserError

KEYS = ("allow", "config_dir", "output_dir")
OUTPUTS = Path("outputs")


@dataclass(frozen=True)
class Project:
    """One project.

    Attributes:
        root: The folder of its pyproject.toml.
        config_dir: Its folder of configs. None: it has none.
        allow: The packages that its configs may use once the user trusts it.
        output_dir: The folder of its runs.
    """

    root: Path
    config_dir: Path | None
    allow: tuple[str, ...]
    output_dir: Path

    @property
    def is_trusted(self) -> bool:
        """Whether the user has allowed these packages in this folder."""
        known = _read_trusted().get(str(self.root))
        return not self.allow or (isinstance(known, list) and set(self.allow) <= set(known))


def find() -> Project | None:
    """Find the project of the current folder: the nearest pyproject.toml with a table [tool.dl-lab], here or above.

    Raises:
        ConfigError: The file is no TOML, or its table has an unknown key or a value of the wrong type.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        path = folder / "pyproject.toml"
        try:
            modified = path.stat().st_mtime_ns
        except OSError:
            continue
        table = _read_table(path, modified)
        if table is not None:
            return _describe(folder, here, table)
    return None


def allowed_packages() -> tuple[str, ...]:
    """Return the packages that the configs of the current project may use: none before the user trusts it."""
    project = find()
    return project.allow if project is not None and project.is_trusted else ()


def config_dir() -> str | None:
    """Return the project's folder of configs; None where it has none."""
    project = find()
    return None if project is None or project.config_dir is None else str(project.config_dir)


def outputs() -> Path:
    """Return the folder in which runs lie: the project's, else `outputs`."""
    project = find()
    return OUTPUTS if project is None else project.output_dir


def trust(project: Project) -> None:
    """Remember that the user allows the project's packages."""
    _write_trusted({**_read_trusted(), str(project.root): sorted(project.allow)})


def distrust(project: Project) -> None:
    """Forget the user's permission for this project."""
    _write_trusted({root: names for root, names in _read_trusted().items() if root != str(project.root)})


def ask() -> None:
    """Ask the user whether dl-lab may run the project's own code. Without a terminal, ask nothing.

    Where the user has not agreed, a config that names a class of the project is refused with a sentence that says how
    to allow it.
    """
    project = find()
    if project is None or project.is_trusted or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    print(f"The project {project.root} runs its own code: {', '.join(project.allow)}.", file=sys.stderr)
    print("Do you trust it? This is asked once. [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        trust(project)


class Table(TypedDict, total=False):
    """The table [tool.dl-lab] as it stands in the file."""

    config_dir: str
    allow: list[str]
    output_dir: str


def _describe(folder: Path, here: Path, table: Table) -> Project:
    def below(name: str) -> Path:
        return Path(name) if folder == here else folder / name

    configs = table.get("config_dir")
    outputs = table.get("output_dir", str(OUTPUTS))
    for key, value in (("config_dir", configs), ("output_dir", outputs)):
        if value is not None and not (folder / value).resolve().is_relative_to(folder.resolve()):
            raise ConfigError(f"{folder / 'pyproject.toml'}: [tool.dl-lab] {key} = {value!r} lies outside the project.")
    return Project(
        root=folder.resolve(),
        config_dir=None if configs is None else below(configs),
        allow=tuple(table.get("allow", ())),
        output_dir=below(outputs),
    )


@functools.cache  # each config of a sweep asks for it
def _read_table(path: Path, modified: int) -> Table | None:
    """Read and check the table; None where the file has none. `modified` is part of the cache's key."""
    import tomllib

    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}.") from error
    tools = content.get("tool")
    found = tools.get("dl-lab") if isinstance(tools, dict) else None
    if found is None:
        return None
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: [tool.dl-lab] is not a table.")
    for key, value in found.items():
        if key not in KEYS:
            raise ConfigError(f"{path}: [tool.dl-lab] has no key {key!r}; there are {', '.join(KEYS)}.")
        is_list = isinstance(value, list) and all(isinstance(name, str) for name in value)
        if key == "allow" and not is_list:
            raise ConfigError(f'{path}: [tool.dl-lab] allow is a list of packages, like ["my_lab"].')
        if key != "allow" and not isinstance(value, str):
            raise ConfigError(f"{path}: [tool.dl-lab] {key} is the name of a folder.")
    return cast("Table", found)  # just checked


# -- what the user allowed ----------------------------------------------------------------------------------------


def user_folder() -> Path:
    """The folder of what dl-lab keeps for this user: permissions, and what `dl-lab tune` has found."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "dl-lab"


def _trust_file() -> Path:
    return user_folder() / "trusted.json"


def _read_trusted() -> dict[str, object]:
    """Read what the user allowed: the folder of a project -> the names of its packages."""
    try:
        known = json.loads(_trust_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write_trusted(known: dict[str, object]) -> None:
    path = _trust_file()
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"Cannot write {path}: {error.strerror}. Your permission was not kept.") from error
