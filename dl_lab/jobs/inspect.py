"""What a config trains: its parameters and its layers."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dl_lab.configs import identity
from dl_lab.configs.build import build
from dl_lab.configs.check import check
from dl_lab.configs.parts import procedure_of
from dl_lab.datasets.cache import key_of
from dl_lab.datasets.dataset import Dataset
from dl_lab.jobs.rehearsal import shrink
from dl_lab.runs.files import read_json, to_json, write_atomic
from dl_lab.types import ConfigError, UserError

if TYPE_CHECKING:
    from dl_lab.training.summary import LayerRow


class ParameterCounts:
    """Parameter counts, kept in `parameters.json` of the cache folder: a model of 100 million takes seconds to build.

    A count holds for a learner's config, for the user's own code in it, for the version of torch and for dl-lab's code.
    The file keeps the counts of one state of dl-lab's code.
    """

    def __init__(self) -> None:
        self.code = identity.code_fingerprint()
        self.torch = metadata.version("torch")
        self._kept: dict[Path, dict[str, Any]] = {}

    def of(self, config: Mapping[str, Any]) -> tuple[int, int] | None:
        """(all, trainable) of what an experiment trains; None: nothing.

        Args:
            config: The experiment's resolved config.

        Raises:
            ConfigError: It cannot be built.
        """
        learner = config["procedure"].get("learner")
        own = identity.own_code(config)
        key = key_of(to_json([learner, own, self.torch]))
        kept = self._read(Path(config["paths"]["cache_dir"]).expanduser() / "parameters.json")
        if key not in kept:
            check(config)
            kept[key] = count_parameters(config)
        pair = kept[key]
        return (pair[0], pair[1]) if pair else None

    def _read(self, path: Path) -> dict[str, Any]:
        """The counts of a file that were made with the code of now."""
        if path not in self._kept:
            there = read_json(path) or {}
            counts = there.get("counts") if there.get("code") == self.code else None
            self._kept[path] = {key: pair for key, pair in (counts or {}).items() if _is_count(pair)}
        return self._kept[path]

    def save(self) -> None:
        """Write the counts; a folder that cannot be written costs nothing but the next time's speed."""
        for path, counts in self._kept.items():
            with contextlib.suppress(OSError, UserError):
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(path, to_json({"code": self.code, "counts": counts}))


def _is_count(pair: Any) -> bool:
    return pair is None or (isinstance(pair, list) and len(pair) == 2 and all(type(n) is int for n in pair))


def count_parameters(config: Mapping[str, object]) -> tuple[int, int] | None:
    """Count the parameters that the experiment trains.

    The learner is built on torch's meta device, which takes no memory. A part that does not work there is built on
    the CPU.

    Args:
        config: A resolved config.

    Returns:
        The numbers of all parameters and of the trainable ones; None for a procedure without a learner.

    Raises:
        ConfigError: The learner cannot be built.
    """
    import torch

    learner = procedure_of(config).get("learner")
    if not isinstance(learner, Mapping):
        return None
    if "optimizer" in learner:  # nothing is updated here, and fused optimizers refuse parameters without memory
        learner = {**learner, "optimizer": {"_target_": "torch.optim.SGD", "_partial_": True}, "scheduler": None}
    try:
        with torch.device("meta"):
            return build({"learner": learner}, "learner").n_parameters()
    except (ConfigError, RuntimeError, NotImplementedError):
        return build({"learner": learner}, "learner").n_parameters()


def describe_layers(config: Mapping[str, object]) -> list[LayerRow]:
    """Describe each layer of the torch model that the experiment trains.

    Args:
        config: A resolved config.

    Returns:
        The rows of `training.summary.summarise_layers`; [] where the experiment trains no torch model.

    Raises:
        ConfigError: A part cannot be built.
    """
    from dl_lab.training.learners import GradientLearner
    from dl_lab.training.summary import summarise_layers

    procedure = shrink(procedure_of(config))
    if not {"dataset", "learner"} <= procedure.keys():
        return []
    learner = build({"learner": procedure["learner"]}, "learner")
    if not isinstance(learner, GradientLearner):
        return []
    dataset: Dataset = build({"dataset": procedure["dataset"]}, "dataset")
    learner.start(dataset)
    return summarise_layers(learner.model, learner.task, next(dataset.train.batches(1)))
