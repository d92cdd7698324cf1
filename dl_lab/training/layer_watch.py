"""What one update does inside a model: activations, gradients and weight changes of every layer, caught by hooks.

The hooks only read. They draw no random numbers and change no value, so a training with them ends with the same bits.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from dl_lab.training.learners import GradientLearner
from dl_lab.training.summary import find_tensor
from dl_lab.types import Learner

RECTIFIERS = (nn.ReLU, nn.ReLU6)
SQUASHERS = (nn.Sigmoid, nn.Tanh)
NORMALISERS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
WATCHED = RECTIFIERS + SQUASHERS + NORMALISERS  # layers that are watched even if they have no weights
MOST_VALUES = 1 << 13  # values of a layer's output that give its spread
SATURATED = 0.97  # beyond this share of its range, on either side, a tanh or a sigmoid hardly passes a gradient

LayerFacts = dict[str, Any]  # plain values by name


class Number(NamedTuple):
    """A number that is still on the device. `facts[name]` becomes `value * factor`."""

    facts: LayerFacts
    name: str
    value: Tensor  # ()
    factor: float


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
    """Hooks on a model for one update. They leave their numbers on the device until `read` copies them together.

    Args:
        model: The model.
        scale: The loss scale of mixed precision; gradients are divided by it.
    """

    def __init__(self, model: nn.Module, scale: float = 1.0) -> None:
        self._scale = scale
        self._is_input_seen = False
        self._layers: dict[str, LayerFacts] = {}
        self._input: LayerFacts = {}
        self._output: LayerFacts = {}
        self._classes = torch.empty(0)  # (batch,): the column of each item's largest output
        self._units: list[tuple[LayerFacts, Tensor]] = []  # (units,): the largest output of each rectified unit
        self._weights: dict[str, LayerFacts] = {}  # of the trained parameters
        self._before: list[tuple[LayerFacts, nn.Parameter, Tensor]] = []  # the values before the update
        self._numbers: list[Number] = []
        self._handles = [model.register_forward_hook(self._see_output)]
        owners: set[str] = set()
        for name, parameter in model.named_parameters():
            owners.add(name.rpartition(".")[0])
            if parameter.requires_grad:
                facts: LayerFacts = {"gradient": None}
                self._weights[name] = facts
                self._before.append((facts, parameter, parameter.detach().clone()))
                hook = functools.partial(self._see_gradient, facts)
                self._handles.append(parameter.register_post_accumulate_grad_hook(hook))
        for name, module in model.named_modules():
            if (name in owners or isinstance(module, WATCHED)) and not any(module.children()):
                self._handles.append(module.register_forward_hook(functools.partial(self._see_layer, name)))

    def remove(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def read(self) -> dict[str, object]:
        """Copy the numbers from the device. Call it once, after the update.

        Returns:
            Plain values: `layers` (name -> facts of its last forward pass, for layers with weights and activation
            functions), `weights` (trained parameter -> root mean squares of gradient, weight and change), `unused`
            (those of them that got no gradient), `input` (of the first layer with weights) and `output` (of the model).
        """
        for facts, parameter, before in self._before:
            n = before.numel()
            self._add_size(facts, "weight", before, n)
            self._add_size(facts, "change", before.sub_(parameter.detach()), n)
        for facts, largest in self._units:
            self._add(facts, "dead", (largest <= 0).sum(), 1 / largest.numel())
        if self._numbers:
            values = torch.stack([number.value for number in self._numbers]).tolist()
            for (facts, name, _, factor), value in zip(self._numbers, values, strict=True):
                facts[name] = value * factor
        if self._output:
            counts = torch.bincount(self._classes, minlength=self._output["n"]).tolist()
            self._output["shares"] = [count / len(self._classes) for count in counts]
            are_sums_one = self._output.pop("farthest_from_one") < 1e-3
            self._output["sums_to_one"] = are_sums_one and self._output["least"] >= 0
        return {
            "layers": self._layers,
            "weights": self._weights,
            "unused": [name for name, facts in self._weights.items() if facts["gradient"] is None],
            "input": self._input,
            "output": self._output,
        }

    def _add(self, facts: LayerFacts, name: str, value: Tensor, factor: float = 1.0) -> None:
        self._numbers.append(Number(facts, name, value, factor))

    def _add_size(self, facts: LayerFacts, name: str, values: Tensor, n: int, scale: float = 1.0) -> None:
        """Add the root mean square of `n` values, divided by `scale`. Values that are left out of `values` are 0."""
        norm = torch.linalg.vector_norm(values.float())  # not finite if a value is not
        self._add(facts, name, norm, max(n, 1) ** -0.5 / scale)

    def _see_layer(self, name: str, module: nn.Module, arguments: object, output: object) -> None:
        tensor = find_tensor(output)
        if tensor is None or not tensor.is_floating_point() or tensor.numel() == 0:
            return
        tensor = tensor.detach()
        facts: LayerFacts = {"type": type(module).__name__}
        self._layers[name] = facts
        if isinstance(module, RECTIFIERS):
            unit_axis = 1 if tensor.dim() == 4 else tensor.dim() - 1  # channels of images, else features
            others = [axis for axis in range(tensor.dim()) if axis != unit_axis]
            self._units.append((facts, tensor.amax(dim=others) if others else tensor))
            facts["n_items"] = tensor.numel() // tensor.shape[unit_axis]
        elif isinstance(module, SQUASHERS):
            some = _first_items(tensor)
            distance = some.abs() if isinstance(module, nn.Tanh) else (2 * some - 1).abs()
            self._add(facts, "saturated", (distance > SATURATED).sum(), 1 / some.numel())
        else:
            if not self._is_input_seen:
                self._see_input(arguments)
            self._add(facts, "std", _first_items(tensor).float().std(correction=0))
        if isinstance(module, NORMALISERS):
            facts["training"] = module.training
            facts["items"] = tensor.numel() // max(tensor.shape[1], 1)

    def _see_input(self, arguments: object) -> None:
        tensor = find_tensor(arguments)
        if tensor is not None and tensor.is_floating_point() and tensor.numel():  # an embedding takes whole numbers
            self._is_input_seen = True
            values = _first_items(tensor.detach()).float()
            self._add(self._input, "mean", values.mean())
            self._add(self._input, "std", values.std(correction=0))
            self._add(self._input, "largest", values.abs().max())

    def _see_output(self, module: nn.Module, arguments: object, output: object) -> None:
        tensor = find_tensor(output)
        if tensor is not None and tensor.is_floating_point() and tensor.dim() == 2 and tensor.numel():
            values = tensor.detach().float()
            self._output = {"n": values.shape[1]}
            self._classes = values.argmax(dim=1)
            least, greatest = values.aminmax()
            self._add(self._output, "least", least)
            self._add(self._output, "greatest", greatest)
            self._add(self._output, "farthest_from_one", (values.sum(dim=1) - 1).abs().max())

    def _see_gradient(self, facts: LayerFacts, parameter: Tensor) -> None:
        gradient = parameter.grad
        if gradient is not None:
            values = gradient.coalesce().values() if gradient.is_sparse else gradient
            self._add_size(facts, "gradient", values.detach(), parameter.numel(), self._scale)


def _first_items(values: Tensor) -> Tensor:
    """Return as many items as have about MOST_VALUES values together, at least one."""
    if values.numel() <= MOST_VALUES or not values.dim():
        return values
    return values[: max(1, MOST_VALUES * len(values) // values.numel())]
