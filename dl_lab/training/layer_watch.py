"""What one update does inside a model: activations, gradients and weight changes of every layer, caught by hooks.

The hooks only read. They draw no random numbers and change no value, so a training with them ends with the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.utils.hooks import RemovableHandle

from dl_lab.training.learners import GradientLearner
from dl_lab.training.summary import find_tensor
from dl_lab.types import Learner

RECTIFIERS = (nn.ReLU, nn.ReLU6)
SQUASHERS = (nn.Sigmoid, nn.Tanh)
NORMALISERS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
RECURRENT = (nn.RNNBase,)
MOST_VALUES = 1 << 13  # values of a layer's output that give its mean and spread
SATURATED = 0.97  # beyond this share of its range, on either side, a tanh or a sigmoid hardly passes a gradient

LayerFacts = dict[str, object]  # by name: tensors on the device until `LayerWatch.read` makes them plain values


def watchable_model(learner: Learner) -> nn.Module | None:
    """Return the learner's main module; None without one, or if it is compiled, so that hooks see no layers."""
    model = learner.main_module()
    is_replaced = isinstance(learner, GradientLearner) and learner.forward is not model
    return None if is_replaced else model


def loss_scale(learner: Learner) -> float:
    """Return the factor on the loss and on all gradients. It is more than 1 where fp16 scales the loss."""
    for value in vars(learner).values():
        if isinstance(value, GradScaler):
            return float(value.get_scale())
    return 1.0


class LayerWatch:
    """Hooks on a model for one update.

    Args:
        model: The model.

    Attributes:
        layers: Layer name -> the facts of its last forward pass, still on the device.
        input: The facts of the input of the first layer with weights.
        output: The facts of the output of the whole model.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.layers: dict[str, LayerFacts] = {}
        self.output: LayerFacts = {}
        self.input: LayerFacts = {}
        self._handles: list[RemovableHandle] = []
        self._before: dict[str, Tensor] = {}  # trained parameters before the update
        self._gradients: dict[str, Tensor] = {}  # norms of their gradients
        for name, module in model.named_modules():
            if not any(module.children()):
                self._handles.append(module.register_forward_hook(self._watch_layer(name)))
        self._handles.append(model.register_forward_hook(self._watch_output))
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                self._before[name] = parameter.detach().clone()
                self._handles.append(parameter.register_post_accumulate_grad_hook(self._watch_gradient(name)))

    def remove(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @torch.no_grad()
    def read(self, scale: float = 1.0) -> dict[str, object]:
        """Read everything from the device, once, after the update.

        Args:
            scale: The loss scale of mixed precision; gradients are divided by it.

        Returns:
            Plain values: `layers` (name -> facts), `weights` (parameter -> root mean squares of gradient, weight and
            change), `unused` (trained parameters that got no gradient), `input` and `output`.
        """
        befores = list(self._before.values())
        afters = [self.model.get_parameter(name).detach() for name in self._before]
        sizes = _root_mean_squares(befores)
        changes = _root_mean_squares([before.sub_(after) for after, before in zip(afters, befores, strict=True)])
        weights: dict[str, LayerFacts] = {}
        for name, before, size, change in zip(self._before, befores, sizes, changes, strict=True):
            norm = self._gradients.get(name)
            n = max(before.numel(), 1)
            weights[name] = {
                "gradient": None if norm is None else float(norm) / math.sqrt(n) / scale,
                "weight": size,
                "change": change,
            }
        return {
            "layers": _to_plain(self.layers),
            "weights": _to_plain(weights),
            "unused": [name for name in self._before if name not in self._gradients],
            "input": _to_plain(self.input),
            "output": _to_plain(self.output),
        }

    def _watch_layer(self, name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, arguments: object, output: object) -> None:
            tensor = find_tensor(output)
            if tensor is None or not tensor.is_floating_point() or tensor.numel() == 0:
                return
            if not self.input and list(module.parameters(recurse=False)):
                self.input = _describe_input(arguments)
            self.layers[name] = _describe(module, tensor.detach())

        return hook

    def _watch_output(self, module: nn.Module, arguments: object, output: object) -> None:
        tensor = find_tensor(output)
        if tensor is not None and tensor.is_floating_point() and tensor.dim() == 2:
            self.output = _describe_output(tensor.detach())

    def _watch_gradient(self, name: str) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:
            gradient = parameter.grad
            if gradient is not None:
                values = gradient.coalesce().values() if gradient.is_sparse else gradient
                self._gradients[name] = torch.linalg.vector_norm(values.detach().float())

        return hook


@torch.no_grad()
def _describe(module: nn.Module, output: Tensor) -> LayerFacts:
    some = _first_items(output).float()
    facts: LayerFacts = {"type": type(module).__name__, "std": some.std(correction=0), "mean": some.mean()}
    if isinstance(module, RECTIFIERS):
        unit_axis = 1 if output.dim() == 4 else output.dim() - 1  # channels of images, else features
        others = [axis for axis in range(output.dim()) if axis != unit_axis]
        largest = output.amax(dim=others) if others else output
        facts["dead"] = (largest <= 0).float().mean()
        facts["n_items"] = output.numel() // output.shape[unit_axis]
    if isinstance(module, SQUASHERS):
        distance = some.abs() if isinstance(module, nn.Tanh) else (2 * some - 1).abs()
        facts["saturated"] = (distance > SATURATED).float().mean()
    if isinstance(module, NORMALISERS):
        facts["training"] = module.training
        facts["items"] = output.numel() // max(output.shape[1], 1)
    return facts


@torch.no_grad()
def _describe_input(arguments: object) -> LayerFacts:
    tensor = find_tensor(arguments)
    if tensor is None or not tensor.is_floating_point() or tensor.numel() == 0:
        return {}
    values = _first_items(tensor.detach()).float()
    return {"mean": values.mean(), "std": values.std(correction=0), "largest": values.abs().max()}


@torch.no_grad()
def _describe_output(output: Tensor) -> LayerFacts:
    values = output.float()
    n_columns = output.shape[1]
    sums_to_one = ((values.sum(dim=1) - 1).abs() < 1e-3).all() & (values >= 0).all()
    shares = torch.bincount(values.argmax(dim=1), minlength=n_columns).float() / len(values)
    return {
        "n": n_columns,
        "std": values.std(unbiased=False),
        "least": values.min(),
        "greatest": values.max(),
        "sums_to_one": sums_to_one,
        "shares": shares,
    }


def _first_items(values: Tensor) -> Tensor:
    """Return as many items as have about MOST_VALUES values together, at least one."""
    return values[: max(1, MOST_VALUES * len(values) // values.numel())] if values.dim() else values


def _root_mean_squares(tensors: Sequence[Tensor]) -> list[float]:
    """Return the root mean square of each tensor; it is not finite if a value of the tensor is not."""
    if not tensors:
        return []
    norms = torch.stack([torch.linalg.vector_norm(tensor.float()) for tensor in tensors]).tolist()
    return [norm / math.sqrt(max(tensor.numel(), 1)) for norm, tensor in zip(norms, tensors, strict=True)]


def _to_plain(value: Any) -> Any:
    """Return the same value, nested mappings included, with numbers in place of tensors."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {name: _to_plain(item) for name, item in value.items()}
    return value
