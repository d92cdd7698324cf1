"""Optimizers without torch's compiler, whose import takes as long as half of torch's own.

Torch imports its compiler (torch._dynamo, 0.8 s) at the first call of certain optimizer methods, only to tell it
to pass over them. Nothing here compiles an optimizer. Both functions fall back to torch's own way where torch is
built otherwise; tests hold them to bit-equal parameters.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable

import torch
from torch.optim import Optimizer


def spare_compiler() -> None:
    """Let the wrapped methods of Optimizer find what the compiler would have made of them (torch/_compile.py)."""
    if "torch._dynamo" in sys.modules:
        return
    for method in vars(Optimizer).values():
        plain = getattr(method, "__wrapped__", None)
        if plain is not None and getattr(method, "__globals__", {}).get("__name__") == "torch._compile":
            plain.__dynamo_disable = plain


def plain_step(optimizer: Optimizer) -> Callable[[], object]:
    """`optimizer.step` without its wrappers for the compiler and the profiler."""
    step = inspect.unwrap(type(optimizer).step)
    if step.__module__ != type(optimizer).__module__ or optimizer.defaults.get("differentiable"):
        return optimizer.step

    def update() -> None:
        with torch.no_grad():
            step(optimizer)

    optimizer._opt_called = True  # pyright: ignore[reportAttributeAccessIssue]  # for LRScheduler's order check
    return update
