"""Initial weights of a training that come from a finished run or from a safetensors file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from dl_lab.runs.find import start_weights
from dl_lab.runs.weights import load_weights
from dl_lab.types import UserError

NAMED = 3  # the most weights that a message names


def warm_start(module: nn.Module, source: str, left_out: Sequence[str] = (), outputs: Path = Path("outputs")) -> int:
    """Load the weights of a run or of a file into a module.

    Args:
        module: The model.
        source: A safetensors file, a run's folder, the id at the end of its name, or "last".
        left_out: Names of parts (dotted) that keep their initial weights, like a new head.
        outputs: The folder of runs.

    Returns:
        The number of tensors that were taken.

    Raises:
        UserError: The source is missing, or lacks a weight that is not left out, or has it in another shape.
    """
    # The names of weights beside the main module's own have a prefix with a slash.
    weights = {name: tensor for name, tensor in load_weights(start_weights(source, outputs)).items() if "/" not in name}
    own = module.state_dict()
    taken: dict[str, Tensor] = {}
    unfit: list[str] = []
    for name, tensor in own.items():
        if any(name == part or name.startswith(f"{part}.") for part in left_out):
            continue
        if name in weights and weights[name].shape == tensor.shape:
            taken[name] = weights[name]
        else:
            unfit.append(name)
    if unfit or not taken:
        names = ", ".join(unfit[:NAMED]) + (", ..." if len(unfit) > NAMED else "")
        parts = ",".join(dict.fromkeys(name.rpartition(".")[0] or name for name in unfit))
        raise UserError(
            f"learner.start_from={source}: {len(unfit)} of the model's {len(own)} weights are missing in this shape "
            f"({names}). These parts keep their initial weights with learner.start_except=[{parts}]."
        )
    module.load_state_dict({**own, **taken})
    return len(taken)
