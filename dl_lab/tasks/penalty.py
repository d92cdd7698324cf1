"""A penalty on the size of all parameters, added to the loss of any task.

Unlike an optimizer's weight_decay the penalty is differentiated, so that an adaptive optimizer rescales it too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from dl_lab.types import Batch, Ratio, Splits, Tally, Task, n_items


def _l1(parameters: list[Tensor]) -> Tensor:
    return torch.stack([parameter.abs().sum() for parameter in parameters]).sum()


def _squared_l2(parameters: list[Tensor]) -> Tensor:
    return torch.stack([parameter.square().sum() for parameter in parameters]).sum()


def _l2(parameters: list[Tensor]) -> Tensor:
    """Return the norm; its gradient is 0 if all parameters are 0, where that of a square root would be NaN."""
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(parameter) for parameter in parameters]))


Norm = Literal["l1", "l2", "squared_l2"]
NORMS: dict[str, Callable[[list[Tensor]], Tensor]] = {"l1": _l1, "l2": _l2, "squared_l2": _squared_l2}


class Penalised:
    """A task that minimises the loss of another task + strength · norm(θ).

    θ is all parameters that are trained, biases too. The reported loss is that of the other task. The training tally
    has the added term as "penalty".

    Args:
        task: The other task.
        norm: l1 = Σ|θ|, l2 = √Σθ² or squared_l2 = Σθ².
        strength: Factor of the norm, at least 0.

    Raises:
        ValueError: `strength` is negative.
    """

    def __init__(self, task: Task, norm: Norm, strength: float) -> None:
        if strength < 0:
            raise ValueError(f"strength {strength} is negative")
        self.task = task
        self.norm = NORMS[norm]
        self.strength = strength

    def start(self, dataset: Splits, device: torch.device) -> None:
        """Let the other task prepare."""
        start = getattr(self.task, "start", None)
        if start is not None:
            start(dataset, device)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tally]:
        """Return the sum of loss and penalty; and the tally of the other task with the penalty."""
        loss, tally = self.task.loss(model, batch)
        penalty = self.strength * self.norm([p for p in model.parameters() if p.requires_grad])
        size = n_items(batch)
        return loss + penalty, {**tally, "penalty": Ratio(penalty.detach() * size, size)}

    def measure(self, model: nn.Module, batch: Batch) -> Tally:
        """Return the tally of the other task."""
        return self.task.measure(model, batch)
