"""A penalty on the size of all parameters, beside any task.

Unlike an optimizer's weight_decay it is part of what is differentiated, so that an adaptive optimizer rescales it too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from dl_lab.types import Batch, Ratio, Tally, Task


def _l1(parameters: list[Tensor]) -> Tensor:
    return torch.stack([parameter.abs().sum() for parameter in parameters]).sum()


def _squared_l2(parameters: list[Tensor]) -> Tensor:
    return torch.stack([parameter.square().sum() for parameter in parameters]).sum()


def _l2(parameters: list[Tensor]) -> Tensor:
    """Its gradient is 0 where all parameters are 0 (the square root's would be NaN)."""
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(parameter) for parameter in parameters]))


Norm = Literal["l1", "l2", "squared_l2"]
NORMS: dict[str, Callable[[list[Tensor]], Tensor]] = {"l1": _l1, "l2": _l2, "squared_l2": _squared_l2}


class Penalised:
    """The task's loss + strength · norm(θ) is minimised; what is reported is the task's own loss.

    θ is all parameters that are trained, biases too: l1 = Σ|θ|, l2 = √Σθ², squared_l2 = Σθ². The training tally has
    the term that was added as "penalty".
    """

    def __init__(self, task: Task, norm: Norm, strength: float) -> None:
        if strength < 0:
            raise ValueError(f"strength {strength} is negative")
        self.task, self.norm, self.strength = task, NORMS[norm], strength

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tally]:
        loss, tally = self.task.loss(model, batch)
        penalty = self.strength * self.norm([p for p in model.parameters() if p.requires_grad])
        return loss + penalty, {**tally, "penalty": Ratio(penalty.detach() * len(batch[0]), len(batch[0]))}

    def measure(self, model: nn.Module, batch: Batch) -> Tally:
        return self.task.measure(model, batch)
