"""Read what the reference pages are made from: keys and comments of YAML files, signatures and docstrings of targets.

Nothing here imports the package's own modules that need torch: signatures come from the source text.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dl_lab.runs.anchors import load_yaml

ROOT = Path(__file__).resolve().parent.parent.parent
KEY_LINE = re.compile(r"^(?P<indent> *)(?P<key>[\w./@-]+):(?P<rest>.*)$")
COMMENT = re.compile(r"(?:^|\s)#\s?(?P<text>.*)$")
ARGUMENT = re.compile(r"^\s*\*{0,2}(?P<names>\w+(?:, \w+)*)(?: \([^)]*\))?: (?P<text>.+)$")


@dataclass(frozen=True)
class Key:
    """One key of a config file: its dotted path, its default as written in YAML, and the comment beside it."""

    path: str
    default: Any
    comment: str


@dataclass
class Target:
    """What a `_target_` takes. types: argument -> annotation as written; meanings: argument -> sentence."""

    summary: str = ""
    types: dict[str, str] = field(default_factory=dict)
    meanings: dict[str, str] = field(default_factory=dict)


def keys(path: Path) -> list[Key]:
    """The keys of a config file in its order, nested mappings flattened, without `defaults` and `_keys_`."""
    text = path.read_text(encoding="utf-8")
    comments = _comments(text)
    found = []
    for name, value in _flat(load_yaml(text) or {}):
        parts = name.split(".")
        if parts[0] == "defaults" or any(re.fullmatch(r"_\w+_", part) for part in parts):
            continue
        found.append(Key(name, value, comments.get(name, "")))
    return found


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping) and item:
            yield from _flat(item, f"{name}.")
        else:
            yield name, item


def _comments(text: str) -> dict[str, str]:
    """Dotted key -> the comment at the end of its line and on the lines that continue it."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    last = ""
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            aligned = len(line) - len(line.lstrip()) > 8  # the second line of a comment beside a key
            if last and aligned:
                found[last] = f"{found.get(last, '')} {stripped.lstrip('# ')}".strip()
            continue
        match = KEY_LINE.match(line)
        if match is None:
            continue
        indent = len(match["indent"])
        path = [(depth, key) for depth, key in path if depth < indent]
        path.append((indent, match["key"]))
        last = ".".join(key for _, key in path)
        comment = COMMENT.search(match["rest"])
        if comment:
            found[last] = comment["text"].strip()
    return found


def target(dotted: str) -> Target:
    """The arguments of a class or function of ours; an empty Target for those of other packages."""
    module, _, name = dotted.rpartition(".")
    node = _definitions(module).get(name)
    return _read(node) if node is not None else Target()


@functools.cache
def _definitions(module: str) -> dict[str, ast.AST]:
    path = ROOT / Path(*module.split("."))
    file = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
    if not module.startswith("dl_lab") or not file.exists():
        return {}
    tree = ast.parse(file.read_text(encoding="utf-8"))
    kinds = (ast.ClassDef, ast.FunctionDef)
    return {node.name: node for node in tree.body if isinstance(node, kinds)}


def _read(node: ast.AST) -> Target:
    docstrings = []
    functions = []
    found = Target()
    if isinstance(node, ast.ClassDef):
        docstrings.append(ast.get_docstring(node) or "")
        functions += [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
        for item in node.body:  # the fields of a dataclass
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                found.types[item.target.id] = ast.unparse(item.annotation)
    elif isinstance(node, ast.FunctionDef):
        functions.append(node)
    for function in functions:
        docstrings.append(ast.get_docstring(function) or "")
        for argument in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs):
            if argument.annotation is not None:
                found.types[argument.arg] = ast.unparse(argument.annotation)
    for text in docstrings:
        found.summary = found.summary or text.partition("\n\n")[0].replace("\n", " ")
        found.meanings |= _meanings(text, found.types)
    return found


def _meanings(docstring: str, arguments: Mapping[str, str]) -> dict[str, str]:
    """Argument -> what the docstring says of it: a line "name: text" and the lines that are indented below it."""
    found: dict[str, str] = {}
    current: list[str] = []
    depth = 0
    for line in inspect.cleandoc(docstring).splitlines():
        match = ARGUMENT.match(line)
        indent = len(line) - len(line.lstrip())
        names = match["names"].split(", ") if match else []
        if match and set(names) <= set(arguments):
            current = names
            depth = indent
            for name in current:
                found[name] = match["text"].strip()
        elif current and line.strip() and (indent > depth or depth == 0):
            for name in current:
                found[name] += f" {line.strip()}"
        else:
            current = []
    return found
