"""Optimizers and counters that do not import torch's compiler.

The first call of some methods of torch imports its compiler (`torch._dynamo`), which takes about half as long as
`import torch` itself. Torch needs the import only to tell the compiler to skip these methods. Nothing in dl-lab
compiles an optimizer, so both functions here avoid the import.

Both rely on private parts of torch. Each one looks at the installed torch first. Where torch is built differently,
the function does nothing and torch's own way is used: slower to start, with the same results.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable

import torch
from torch.optim import Optimizer

# The wrappers that torch puts around `step`, by the qualified names of their code. Each of them only switches
# gradients off, calls hooks, or talks to the compiler and the profiler.
STEP_WRAPPERS = {
    "_use_grad_for_differentiable.<locals>._use_grad",
    "Optimizer.profile_hook_step.<locals>.wrapper",
}
STEP_HOOKS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
GLOBAL_STEP_HOOKS = ("_global_optimizer_pre_hooks", "_global_optimizer_post_hooks")
_MODULE = importlib.import_module("torch.optim.optimizer")  # torch.optim gives no access to this module by its name


def spare_compiler(owner: type = Optimizer) -> None:
    """Mark the methods of a class of torch as already skipped by the compiler, so that they do not import it.

    A method wrapped by `torch._disable_dynamo` looks for an attribute `__dynamo_disable` on the function inside it.
    Only where the attribute is missing does it import the compiler. A method whose wrapper does not know this
    attribute is left alone.

    Args:
        owner: The class.
    """
    if "torch._dynamo" in sys.modules:
        return
    for method in vars(owner).values():
        inner = getattr(method, "__wrapped__", None)
        if inner is not None and _looks_for_attribute(method):
            inner.__dynamo_disable = inner


def _looks_for_attribute(method: Callable[..., object]) -> bool:
    code = getattr(method, "__code__", None)
    module = getattr(method, "__globals__", {}).get("__name__")
    return code is not None and module == "torch._compile" and "__dynamo_disable" in code.co_consts


def plain_step(optimizer: Optimizer) -> Callable[[], object]:
    """Return `optimizer.step` without its wrappers for the compiler and the profiler.

    Returns:
        A function that makes one update. It is `optimizer.step` itself for an optimizer that torch does not ship,
        for a differentiable one, and where torch wraps `step` in an unknown way.
    """
    step = _peel(type(optimizer).step)
    ships_with_torch = all(part.__module__.startswith("torch.optim.") for part in (type(optimizer), step))
    if step is type(optimizer).step or not ships_with_torch or optimizer.defaults.get("differentiable"):
        return optimizer.step

    def update() -> None:
        if _has_hooks(optimizer):
            optimizer.step()
            return
        with torch.no_grad():
            step(optimizer)

    optimizer._opt_called = True  # pyright: ignore[reportAttributeAccessIssue]  # for LRScheduler's order check
    return update


def _peel(step: Callable[..., object]) -> Callable[..., object]:
    """Take the known wrappers off, from the outside in. Stop at the first unknown one and keep it."""
    inner = getattr(step, "__wrapped__", None)
    code = getattr(step, "__code__", None)
    if inner is None or code is None or code.co_qualname not in STEP_WRAPPERS:
        return step
    return _peel(inner)


def _has_hooks(optimizer: Optimizer) -> bool:
    own = any(getattr(optimizer, name, None) for name in STEP_HOOKS)
    return own or any(getattr(_MODULE, name, None) for name in GLOBAL_STEP_HOOKS)
