"""The weights with which a training begins: the run that `learner.start_from` means, and the files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dl_lab.runs.files import as_mapping
from dl_lab.runs.find import find_run, start_weights
from dl_lab.types import UserError

KEY = "learner.start_from"
BACKBONE_KEY = "procedure.weights"
KEYS = (KEY, BACKBONE_KEY)
FILES = (".pth", ".pt", ".safetensors")


def pin_start(config: Mapping[str, object]) -> None:
    """Replace the name of a run in a config by the run's folder, because "last" soon means another run.

    Raises:
        UserError: There is no such run.
    """
    for learner in _warm_learners(config):
        source = learner["start_from"]
        if not source.endswith(".safetensors"):
            learner["start_from"] = str(find_run(source, _outputs(config)))


def start_files(config: Mapping[str, Any]) -> dict[str, list[Path]]:
    """List the files with the weights with which a job begins, by the key that names them.

    Torchvision's own files are left out, because their names carry a checksum. A run that does not exist counts by its
    name.
    """
    procedure = config["procedure"]
    found: dict[str, list[Path]] = {}
    for learner in _warm_learners(procedure):
        try:
            path = start_weights(learner["start_from"], _outputs(config))
        except UserError:
            path = Path(learner["start_from"])
        found.setdefault(KEY, []).append(path)
    named = procedure.get("weights")
    if isinstance(named, str) and named.endswith(FILES) and str(procedure.get("_target_")).startswith("dl_lab."):
        path = Path(named).expanduser()
        inside = Path(procedure.get("weights_dir", "")).expanduser() / path
        found[BACKBONE_KEY] = [inside if inside.is_file() else path]
    return found


def _outputs(config: Mapping[str, object]) -> Path:
    return Path(as_mapping(config.get("paths")).get("output_dir", "outputs"))


def _warm_learners(node: object) -> Iterator[dict[str, Any]]:
    """Yield dl-lab's own learners in a config that begin with ready weights."""
    if isinstance(node, dict):
        if isinstance(node.get("start_from"), str) and str(node.get("_target_")).startswith("dl_lab."):
            yield node
        for item in node.values():
            yield from _warm_learners(item)
    elif isinstance(node, list):
        for item in node:
            yield from _warm_learners(item)
