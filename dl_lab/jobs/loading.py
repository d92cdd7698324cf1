"""Load a finished run as objects: its model with the trained weights, its data set, its config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dl_lab import configs
from dl_lab.configs.parts import procedure_of
from dl_lab.datasets.dataset import Dataset
from dl_lab.jobs.procedure import build_procedure
from dl_lab.runs import records
from dl_lab.runs.files import read_json
from dl_lab.runs.find import find_run, state_of
from dl_lab.show import tables
from dl_lab.types import Learner, Metrics, UserError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Loaded:
    """A finished run.

    Attributes:
        folder: The run's folder.
        config: Its resolved config.
        model: The model in evaluation mode, on the CPU, with the weights that the test metrics were measured with.
        dataset: The data set that the run used.
        learner: The learner that holds the model.
        metrics: The final metrics, by their full names.
    """

    folder: Path
    config: Mapping[str, Any]
    model: nn.Module
    dataset: Dataset
    learner: Learner
    metrics: Metrics

    def __repr__(self) -> str:
        n_parameters, _ = self.learner.n_parameters()
        about = self.dataset.summary()
        sizes = ", ".join(f"{len(getattr(self.dataset, split)):,} {split}" for split in ("train", "val", "test"))
        shown = [name for name in records.in_order(self.metrics) if not name.startswith("train/")][:4]
        figures = ", ".join(f"{name} {tables.cell(self.metrics[name])}" for name in shown)
        return (
            f"Loaded run {self.folder}\n"
            f"  model    {type(self.model).__name__}, {n_parameters:,} parameters\n"
            f"  dataset  {about['name']} ({about['label']}): {sizes}\n"
            f"  metrics  {figures or 'none'}\n"
            f"  also     .config, .learner, .metrics"
        )


def load(run: str | Path, outputs: str | Path = "outputs") -> Loaded:
    """Load a finished run.

    Args:
        run: Its folder, the (start of the) id at the end of the folder's name, or "last".
        outputs: The folder of all runs.

    Raises:
        UserError: There is no such run, it is not done, or it trained no torch module.
    """
    from dl_lab.runs.random_state import random_state, set_random_state
    from dl_lab.runs.weights import load_weights

    folder = find_run(str(run), Path(outputs))
    state = state_of(folder)
    if state != "done":
        raise UserError(f"{folder} is {state}, not done: it has no trained weights to load.")
    summary = read_json(folder / "summary.json") or {}
    config = configs.read_config(folder)
    if "weights" not in summary:
        raise UserError(f"{folder} trained no model (procedure {procedure_of(config).get('_target_')}).")
    before = random_state()  # the caller's random numbers stay as they were
    training = build_procedure(config).training()
    set_random_state(before)
    model = training.learner.main_module() if training else None
    if training is None or model is None:
        raise UserError(f"{folder} trained no torch module that could be loaded.")
    training.learner.start(training.dataset)
    training.learner.load_weights(load_weights(folder / "checkpoints" / f"{summary['weights']}.safetensors"))
    return Loaded(folder, config, model.eval(), training.dataset, training.learner, summary.get("metrics", {}))
