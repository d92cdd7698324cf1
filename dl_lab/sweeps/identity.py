"""What makes a job the same job: its config where that can change a result, its data, its code."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dl_lab
from dl_lab.datasets.files import data_files

# Paths below `procedure` that change where or how fast a job runs, never its result.
IRRELEVANT = {
    "dataset.data_dir",
    "dataset.residence",
    "dataset.workers",
    "learner.out_of_memory",
    "trainer.callbacks.progress",
    "trainer.checkpoint_seconds",
    "trainer.checkpoint_steps",
    "trainer.device",
    "trainer.log_steps",
}
# What does not change a job's cost, so that the time of one tells that of another.
COSTLESS = {
    "trainer.seed",
    "trainer.max_epochs",
    "optimizer",
    "learner.optimizer",
    "scheduler",
    "learner.scheduler",
}


def relevant(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a resolved config that a result depends on."""
    kept = {key: config.get(key) for key in ("seed", "deterministic")}
    return {**kept, "procedure": _without(config["procedure"], IRRELEVANT)}


def job_id(config: Mapping[str, Any], code: str, data: str) -> str:
    """Eight hex digits that two jobs share if and only if they must give the same result."""
    return _digest(relevant(config), code, data)


def cost_key(config: Mapping[str, Any]) -> str:
    """Equal for jobs whose epochs take about as long."""
    return _digest(_without(config["procedure"], IRRELEVANT | COSTLESS))


def code_fingerprint() -> str:
    """The source of dl_lab and of the packages the user allowed."""
    names = [name.strip() for name in os.environ.get("DL_LAB_ALLOW", "").split(",") if name.strip()]
    roots = [Path(dl_lab.__file__).parent, *(path for name in names if (path := _source_of(name)))]
    digest = hashlib.sha256()
    for root in roots:
        for path in sorted(root.rglob("*.py")) if root.is_dir() else [root]:
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def data_fingerprint(config: Mapping[str, Any]) -> str:
    """The content of the files a job reads ("" for generated data; a missing file counts as missing)."""
    paths: list[Path] = []
    for part in ("dataset", "vectors"):
        data = config["procedure"].get(part)
        if isinstance(data, Mapping) and data.get("source") != "generated" and data.get("files"):
            paths += [file.locate(Path(data["data_dir"])) for file in data_files(data["files"])]
    return _digest(*[_content(path) for path in paths]) if paths else ""


def _content(path: Path) -> str:
    if not path.is_file():
        return "missing"
    status = path.stat()
    return _content_at(path, status.st_size, status.st_mtime_ns)


@functools.cache
def _content_at(path: Path, size: int, modified: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _source_of(name: str) -> Path | None:
    """The package's folder, or the module's file, without importing it."""
    name = name.partition(".")[0]
    loaded = getattr(sys.modules.get(name), "__file__", None)
    spec = None if loaded else find_spec(name)
    origin = Path(loaded or (spec.origin if spec and spec.origin else ""))
    if not origin.name:
        return None
    return origin.parent if origin.name == "__init__.py" else origin


def _without(value: Any, paths: set[str], path: str = "") -> Any:
    if isinstance(value, Mapping):
        full = {key: f"{path}.{key}" if path else str(key) for key in value}
        return {key: _without(item, paths, full[key]) for key, item in value.items() if full[key] not in paths}
    return value


def _digest(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
