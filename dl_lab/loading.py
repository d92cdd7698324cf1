"""A finished run as objects: its model with the trained weights, its data set, its config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dl_lab import config as configs
from dl_lab.run import find_run, read_json, state_of
from dl_lab.types import Dataset, Learner, Metrics, UserError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Loaded:
    """model: in evaluation mode, on the CPU, with the weights that the test metrics are of. metrics: the final ones."""

    folder: Path
    config: Mapping[str, Any]
    model: nn.Module
    dataset: Dataset
    learner: Learner
    metrics: Metrics


def load(run: str | Path, outputs: str | Path = "outputs") -> Loaded:
    """Raises UserError for a run that is not there, not done, or trains no torch module."""
    import torch

    from dl_lab.training.checkpoints import load_weights, random_state, set_random_state

    folder = find_run(str(run), Path(outputs))
    state = state_of(folder)
    if state != "done":
        raise UserError(f"{folder} is {state}, not done: it has no trained weights to load.")
    summary, config = read_json(folder / "summary.json") or {}, configs.read_config(folder)
    if "weights" not in summary:
        raise UserError(f"{folder} has trained no model (procedure {config['procedure'].get('_target_')}).")
    before = random_state()  # the caller's random numbers stay as they were
    experiment = configs.build(config, "procedure")
    set_random_state(before)
    model = getattr(experiment.learner, "model", None)
    if not isinstance(model, torch.nn.Module):
        raise UserError(f"{folder} has trained no torch module: there is none to load.")
    experiment.learner.load_weights(load_weights(folder / "checkpoints" / f"{summary['weights']}.safetensors"))
    return Loaded(folder, config, model.eval(), experiment.dataset, experiment.learner, summary.get("metrics", {}))
