"""The source files of a user's own classes: those that a config names, and their imports from the same place.

This module finds them without importing them. It looks for a module where the run looks for it: among the loaded
modules, on `sys.path`, and in the current folder.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from dl_lab.configs.targets import is_shipped, make_importable, own_packages, targets

DYNAMIC_IMPORTS = {"import_module", "__import__"}  # after one of these, every file of the package may be needed


@dataclass(frozen=True)
class Source:
    """One file of a user's own code.

    Attributes:
        name: Its path below the folder that holds the package, `my_lab/nets.py`.
        path: The file.
    """

    name: str
    path: Path


def own_targets(value: object) -> list[str]:
    """List the `_target_`s in a part of a config that dl-lab does not ship."""
    names = {node["_target_"] for _, node in targets(value) if isinstance(node["_target_"], str)}
    return sorted(name for name in names if not is_shipped(name))


def own_sources(value: object) -> list[Source]:
    """List the files of the user's own classes in a part of a config, and of their imports from the same package."""
    targets_ = own_targets(value)
    if not targets_:
        return []
    make_importable()
    importlib.invalidate_caches()
    found: dict[str, Source] = {}
    for dotted in targets_:
        _Package(dotted).collect(found)
    return [found[name] for name in sorted(found)]


def own_code(value: object) -> dict[str, str]:
    """Map the files of the user's own code in a part of a config to the digests of their content."""
    return {source.name: _digest_of(source.path) for source in own_sources(value)}


def string_constants(sources: Iterable[Source]) -> Iterator[tuple[Source, str]]:
    """Yield every one-line text that a source file mentions. Some of these texts name data files."""
    for source in sources:
        for text in _read(source.path).constants:
            yield source, text


class _Package:
    """The package, or the folder of loose modules, that holds one of the user's own classes."""

    def __init__(self, dotted: str) -> None:
        self.start = dotted.rpartition(".")[0]
        self.top = self.start.partition(".")[0]
        spec = _top_spec(self.top)
        self.root = _root_of(spec) if spec else None
        self.names = {self.top, *(name.partition(".")[0] for name in own_packages())}

    def collect(self, found: dict[str, Source]) -> None:
        """Add the files that a run imports for this class."""
        waiting = [self.start]
        seen: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            spec = self._spec(name)
            if spec is None:
                continue
            if "." in name:
                waiting.append(name.rpartition(".")[0])  # importing a.b.c runs a/__init__.py and a/b/__init__.py
            if not spec.origin or not Path(spec.origin).is_file():
                continue  # a folder without __init__.py
            path = Path(spec.origin)
            source = Source(_name_file(path, self.root), path)
            found[source.name] = source
            if path.suffix != ".py":
                continue
            read = _read(path)
            package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
            waiting += [full for imported in read.imports for full in _absolute(imported, package)]
            if read.is_dynamic:
                self._collect_all(found)

    def _collect_all(self, found: dict[str, Source]) -> None:
        spec = self._spec(self.top)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            for path in Path(folder).rglob("*.py"):
                source = Source(_name_file(path, self.root), path)
                found[source.name] = source

    def _spec(self, name: str) -> ModuleSpec | None:
        """Find a module of this package, or one of the loose modules beside it; None for any other module."""
        top, _, rest = name.partition(".")
        spec = _top_spec(top)
        if spec is None or not (top in self.names or self._is_beside(spec)):
            return None
        path = top
        for part in rest.split(".") if rest else []:
            if spec is None or spec.submodule_search_locations is None:
                return None
            path = f"{path}.{part}"
            spec = PathFinder.find_spec(path, list(spec.submodule_search_locations))
        return spec

    def _is_beside(self, spec: ModuleSpec) -> bool:
        root = _root_of(spec)
        return root is not None and root == self.root and root not in _folders_of_python()


def _top_spec(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name) if name else None
    except (ValueError, ImportError):  # a module without a spec, like __main__
        return None


def _root_of(spec: ModuleSpec) -> Path | None:
    """Return the folder that holds a top-level package or module; None where it is no file."""
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve().parent
    if spec.origin and Path(spec.origin).is_file():
        return Path(spec.origin).resolve().parent
    return None


@functools.cache
def _folders_of_python() -> frozenset[Path]:
    """Return the folders of the standard library and of installed packages."""
    return frozenset(Path(path).resolve() for path in sysconfig.get_paths().values())


def _name_file(path: Path, root: Path | None) -> str:
    real = path.resolve()
    return real.relative_to(root).as_posix() if root and real.is_relative_to(root) else real.as_posix()


def _absolute(imported: tuple[int, str, tuple[str, ...]], package: str) -> list[str]:
    """List the modules that one import statement may load, by their full names.

    Args:
        imported: The number of leading dots, the module, and the names taken from it (each may be a module too).
        package: The package from which a relative import starts.
    """
    level, module, names = imported
    if level:
        parts = package.split(".")
        kept = parts[: len(parts) - level + 1]
        module = ".".join([*kept, module] if module else kept)
    return [module, *(f"{module}.{name}" for name in names)] if module else []


@dataclass(frozen=True)
class _Read:
    """What one source file says about other files.

    Attributes:
        imports: The import statements: the number of leading dots, the module, the names taken from it.
        constants: The one-line texts that the file mentions.
        is_dynamic: Whether the file imports modules by names that it computes.
    """

    imports: tuple[tuple[int, str, tuple[str, ...]], ...] = ()
    constants: tuple[str, ...] = ()
    is_dynamic: bool = False


def _read(path: Path) -> _Read:
    status = path.stat()
    return _read_as_of(path, status.st_size, status.st_mtime_ns)


@functools.cache  # the jobs of a sweep name the same classes
def _read_as_of(path: Path, size: int, modified: int) -> _Read:
    """Read one file. `size` and `modified` are part of the cache's key, so that an edited file is read again."""
    if path.suffix != ".py":
        return _Read()
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return _Read()  # importing the file will raise the error
    imports: list[tuple[int, str, tuple[str, ...]]] = []
    constants: list[str] = []
    called: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports += [(0, alias.name, ()) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imports.append((node.level, node.module or "", tuple(alias.name for alias in node.names)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if 0 < len(node.value) < 256 and "\n" not in node.value:
                constants += [node.value, node.value.strip("/")]  # "/houses.csv" of f"{data_dir}/houses.csv"
        elif isinstance(node, ast.Name):
            called.add(node.id)
        elif isinstance(node, ast.Attribute):
            called.add(node.attr)
    return _Read(tuple(imports), tuple(dict.fromkeys(constants)), bool(called & DYNAMIC_IMPORTS))


def _digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def forget_changed(before: Mapping[str, str], value: object) -> bool:
    """Forget the user's own modules where their files have changed, so that Python imports them again.

    This is for a notebook, where one process trains before and after an edit.

    Args:
        before: The digests of the files at the last training (`own_code`).
        value: The part of the config that names the user's classes.

    Returns:
        Whether a file has changed.
    """
    now = own_code(value)
    if all(now.get(name, digest) == digest for name, digest in before.items()):
        return False
    packages = {dotted.partition(".")[0] for dotted in own_targets(value)}
    packages |= {name.partition("/")[0].removesuffix(".py") for name in now}
    for name in list(sys.modules):
        if name.partition(".")[0] in packages:
            del sys.modules[name]
    return True
