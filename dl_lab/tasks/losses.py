"""The loss of a task as a setting: a name, or a class or function of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]  # output and target -> the mean loss of the batch, a scalar
NumberLoss = Literal["mse", "l1", "huber", "smooth_l1"]
NUMBER_LOSSES: dict[str, Loss] = {
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "huber": F.huber_loss,
    "smooth_l1": F.smooth_l1_loss,
}


def choose_loss(loss: str | Loss, named: Mapping[str, Loss]) -> Loss:
    """Return the loss that a setting names or is.

    Args:
        loss: A name of `named`; or a function of output and target that returns the mean over the batch.
        named: The losses that have a name.

    Raises:
        ValueError: The loss has an unknown name, is a sum instead of a mean, or has weights that no optimizer sees.
    """
    if isinstance(loss, str):
        if loss not in named:
            raise ValueError(f"loss {loss!r} is not one of {', '.join(named)}")
        return named[loss]
    reduction = getattr(loss, "reduction", "mean")
    if reduction != "mean":
        raise ValueError(f"the loss has reduction={reduction!r}; a task needs the mean over the batch")
    if isinstance(loss, nn.Module) and any(parameter.requires_grad for parameter in loss.parameters()):
        raise ValueError(
            f"the loss {type(loss).__name__} has weights to train, which the optimizer would not see: write a task "
            "that is an nn.Module"
        )
    return loss


def move_loss(loss: Loss, device: torch.device) -> None:
    """Move the tensors of a loss to a device."""
    if isinstance(loss, nn.Module):
        loss.to(device)
