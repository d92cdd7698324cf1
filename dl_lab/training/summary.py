"""A model layer by layer: output shapes, parameters with their formula, and operations, all for one item."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from dl_lab.types import Batch, Task


def layers(model: nn.Module, task: Task, batch: Batch) -> list[dict[str, Any]]:
    """One row for each layer, in the order of the calls: layer, kind, output, parameters, formula, flops.

    The batch has one item; the model judges it as `task` does, without gradients, and the random stream of the caller
    is left alone. output: the shape behind the batch axis, "32 x 16 x 16". formula: where the parameters come from.
    flops: floating-point operations of one item, a multiply-add being two, as torch's FlopCounterMode counts them
    (matrix products and convolutions; the rest is 0). A parameter used twice is counted with its first layer.
    """
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    calls = _Calls(counter.get_total_flops)
    hooks = [hook for name, module in model.named_modules() for hook in calls.watch(name, module)]
    training = model.training
    model.eval()
    gpu = [batch[0].device] if batch[0].is_cuda else []
    try:
        with torch.random.fork_rng(gpu), torch.no_grad(), counter:
            task.measure(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
        model.train(training)
    return _rows(model, calls)


class _Calls:
    """What happened in each module: its first output's shape, and the operations of all calls, those inside too."""

    def __init__(self, total: Callable[[], int]) -> None:
        self.total = total
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.flops: dict[str, int] = {}
        self.order: list[str] = []  # of the first call
        self._begun: dict[str, int] = {}

    def watch(self, name: str, module: nn.Module) -> list[Any]:
        def enter(module: nn.Module, inputs: Any) -> None:
            self._begun[name] = self.total()
            if name not in self.order:
                self.order.append(name)

        def leave(module: nn.Module, inputs: Any, output: Any) -> None:
            self.flops[name] = self.flops.get(name, 0) + self.total() - self._begun[name]
            first = _first_tensor(output)
            if first is not None:
                self.shapes.setdefault(name, tuple(first.shape[1:]))

        return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]


def _rows(model: nn.Module, calls: _Calls) -> list[dict[str, Any]]:
    rows, counted = [], set()
    modules = dict(model.named_modules())
    for name in [*calls.order, *(name for name in modules if name not in calls.order)]:
        module = modules[name]
        own = [p for p in module.parameters(recurse=False) if id(p) not in counted]
        counted |= {id(p) for p in own}
        inside = sum(calls.flops.get(f"{name}.{child}" if name else child, 0) for child, _ in module.named_children())
        flops = calls.flops.get(name, 0) - inside
        is_leaf = next(module.children(), None) is None and name in calls.order
        if own or is_leaf or flops > 0:
            rows.append(
                {
                    "layer": name or type(module).__name__,
                    "kind": type(module).__name__,
                    "output": " x ".join(map(str, calls.shapes.get(name, ()))),
                    "parameters": sum(p.numel() for p in own),
                    "formula": formula(module) if own else "",
                    "flops": max(flops, 0),
                }
            )
    return rows


def formula(module: nn.Module) -> str:
    """The parameters of a layer in terms of its sizes: "(3 x 3 x 3 + 1) x 32"; "" where there is no short one."""
    if isinstance(module, nn.Conv2d | nn.Conv1d | nn.Linear):
        sizes = list(module.weight.shape)
        inputs = " x ".join(map(str, sizes[1:]))
        return f"({inputs} + 1) x {sizes[0]}" if module.bias is not None else f"{inputs} x {sizes[0]}"
    if isinstance(module, nn.Embedding):
        return f"{module.num_embeddings} x {module.embedding_dim}"
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm) and module.weight is not None:
        return f"2 x {math.prod(module.weight.shape)}" if module.bias is not None else ""
    return ""


def _first_tensor(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    if isinstance(output, tuple | list):
        return next((found for item in output if (found := _first_tensor(item)) is not None), None)
    return None
