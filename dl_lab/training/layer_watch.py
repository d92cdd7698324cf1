"""What one update does inside a model: activations, gradients and weight changes of every layer, caught by hooks.

The hooks only read. They draw no random numbers and change no value, so a training with them ends with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
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
WATCHED = RECTIFIERS + SQUASHERS + NORMALISERS  # layers that are watched even if they have no weights
MOST_VALUES = 1 << 13  # values of a layer's output that give its size
SATURATED = 0.97  # beyond this share of its range, on either side, a tanh or a sigmoid hardly passes a gradient

HALVES = (torch.float16, torch.bfloat16)

LayerFacts = dict[str, Any]  # plain values by name


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

    A look runs each operation once or a few times, with cold caches, and costs about as much as an update of a small
    net. So biases are left out, and some facts are recorded by the first look only.

    Args:
        model: The model.
        scale: The loss scale of mixed precision; gradients are divided by it.
        is_first: Whether the model has learned nothing so far. Then the input and the size of each layer's output are
            recorded, too: they tell about the initial weights.

    Attributes:
        is_plain: Whether the model took numbers, not tokens, and returned one tensor.
    """

    def __init__(self, model: nn.Module, scale: float = 1.0, is_first: bool = True) -> None:
        self._scale = scale
        self._is_first = is_first
        self._seeks_input = is_first
        self._layers: dict[str, LayerFacts] = {}
        self._units: list[tuple[LayerFacts, Tensor]] = []  # (units,): each unit's sum over the batch
        self._weights: dict[str, LayerFacts] = {}  # of the trained parameters
        self._before: list[tuple[LayerFacts, nn.Parameter, Tensor]] = []  # the values before the update
        self._input: LayerFacts = {}
        self._output: LayerFacts = {}
        self._scores = torch.empty(0)  # (batch, classes): the output of the model
        self._classes = torch.empty(0)  # (batch,): the column of each item's largest output
        self._numbers: list[Tensor] = []  # scalars
        self._places: list[tuple[LayerFacts, str, float]] = []  # of each number: facts[name] = number * factor
        self.is_plain = False
        self._handles: list[RemovableHandle] = []
        self._fault: Exception | None = None
        try:
            self._set_hooks(model)
        except Exception as error:  # no memory for a second copy of the weights
            self.remove()
            self._before.clear()
            self._fault = error

    def _set_hooks(self, model: nn.Module) -> None:
        self._handles.append(model.register_forward_hook(self._guard(self._see_output)))
        trained: dict[nn.Parameter, tuple[str, nn.Module]] = {}  # a parameter of two layers counts once
        for name, module in model.named_modules():
            own = module._parameters  # named_parameters takes ten times as long
            for part, parameter in own.items():
                if parameter is not None and parameter.requires_grad and parameter.numel():
                    trained.setdefault(parameter, (f"{name}.{part}" if name else part, module))
            if not module._modules and (isinstance(module, WATCHED) or (own and self._is_first)):
                self._handles.append(module.register_forward_hook(self._guard(self._see_layer, name)))
        matrices = [parameter for parameter in trained if parameter.dim() > 1]
        for parameter in matrices or trained:
            name, module = trained[parameter]
            facts: LayerFacts = {"layer": type(module).__name__, "gradient": None}
            self._weights[name] = facts
            values = parameter.detach()
            self._before.append((facts, parameter, values.float() if values.dtype in HALVES else values.clone()))
            hook = self._guard(self._see_gradient, facts)
            self._handles.append(parameter.register_post_accumulate_grad_hook(hook))

    def remove(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def read(self) -> dict[str, object]:
        """Copy the numbers from the device. Call it once, after the update.

        Returns:
            Plain values:
            `layers`: layer -> facts of its last forward pass, for activation functions and normalisations, and in a
            first look for all layers with weights.
            `weights`: trained parameter -> the type of its layer, and the root mean squares of gradient, weight and
            change. Only parameters of two and more dimensions are here, or all in a model that has none.
            `unused`: those of them that got no gradient.
            `input`: of the first layer with weights, in a first look.
            `output`: of the model.

        Raises:
            Exception: Any fault of this watch: a model of somebody's own may return anything.
        """
        if self._fault is not None:
            raise self._fault
        for facts, parameter, before in self._before:
            self._add_size(facts, "weight", before)
            self._add_size(facts, "change", before.sub_(parameter.detach()))
        if self._numbers:
            numbers = torch.stack(self._numbers).tolist()
            for (facts, name, factor), number in zip(self._places, numbers, strict=True):
                facts[name] = number * factor
        if self._units:
            sums = torch.cat([own for _, own in self._units]).tolist()
            start = 0
            for facts, own in self._units:
                n = len(own)
                facts["dead"] = sums[start : start + n].count(0.0) / n  # a rectified value is never negative
                start += n
        if self._output:
            counts = torch.bincount(self._classes, minlength=self._output["n"]).tolist()
            self._output["shares"] = [count / len(self._classes) for count in counts]
            self._output["sums_to_one"] = self._output["least"] >= 0 and _sums_to_one(self._scores)
        return {
            "layers": self._layers,
            "weights": self._weights,
            "unused": [name for name, facts in self._weights.items() if facts["gradient"] is None],
            "input": self._input,
            "output": self._output,
        }

    def _guard(self, see: Callable[..., None], *first: object) -> Callable[..., None]:
        """Return a hook that calls `see` with these first arguments. A fault in it must not cost a training."""

        def hook(*arguments: object) -> None:
            try:
                see(*first, *arguments)
            except Exception as error:
                self._fault = error

        return hook

    def _add(self, facts: LayerFacts, name: str, number: Tensor, factor: float = 1.0) -> None:
        self._numbers.append(number)
        self._places.append((facts, name, factor))

    def _add_size(self, facts: LayerFacts, name: str, values: Tensor) -> None:
        """Add the root mean square. It is not finite if one of the values is not."""
        self._add(facts, name, _norm(values), values.numel() ** -0.5)

    def _see_layer(self, name: str, module: nn.Module, arguments: object, output: object) -> None:
        tensor = find_tensor(output)
        if tensor is None or not tensor.is_floating_point() or not tensor.numel() or not tensor.dim():
            return
        tensor = tensor.detach()
        facts: LayerFacts = {"type": type(module).__name__}
        self._layers[name] = facts
        if isinstance(module, RECTIFIERS):
            unit_axis = 1 if tensor.dim() == 4 else tensor.dim() - 1  # channels of images, else features
            others = [axis for axis in range(tensor.dim()) if axis != unit_axis]
            self._units.append((facts, tensor.sum(dim=others) if others else tensor))
            facts["n_items"] = tensor.numel() // tensor.shape[unit_axis]
        elif isinstance(module, SQUASHERS):
            some = _first_items(tensor)
            distance = some.abs() if isinstance(module, nn.Tanh) else (2 * some - 1).abs()
            self._add(facts, "saturated", torch.count_nonzero(distance > SATURATED), 1 / some.numel())
        elif self._is_first:
            if self._seeks_input:
                self._see_input(arguments)
            self._add_size(facts, "size", _first_items(tensor))
        if isinstance(module, NORMALISERS):
            facts["training"] = module.training
            facts["items"] = tensor.numel() // max(tensor.shape[1], 1)

    def _see_input(self, arguments: object) -> None:
        tensor = find_tensor(arguments)
        if tensor is not None and tensor.is_floating_point() and tensor.numel():  # an embedding takes whole numbers
            some = _first_items(tensor.detach())
            self._seeks_input = False
            self._add(self._input, "mean", some.mean())
            self._add_size(self._input, "size", some)

    def _see_output(self, module: nn.Module, arguments: object, output: object) -> None:
        given = find_tensor(arguments)
        self.is_plain = isinstance(output, Tensor) and given is not None and given.is_floating_point()
        tensor = find_tensor(output)
        if tensor is not None and tensor.is_floating_point() and tensor.dim() == 2 and tensor.numel():
            scores = tensor.detach()
            self._output = {"n": scores.shape[1]}
            self._scores = scores
            self._classes = scores.argmax(dim=1)
            least, greatest = scores.aminmax()
            self._add(self._output, "least", least)
            self._add(self._output, "greatest", greatest)

    def _see_gradient(self, facts: LayerFacts, parameter: Tensor) -> None:
        gradient = parameter.grad
        if gradient is not None:
            values = gradient.coalesce().values() if gradient.is_sparse else gradient  # the others are 0
            self._add(facts, "gradient", _norm(values), parameter.numel() ** -0.5 / self._scale)


def _norm(values: Tensor) -> Tensor:
    """Return the L2 norm, () float. The squares of numbers of half precision would not fit into half precision."""
    return torch.linalg.vector_norm(values.float() if values.dtype in HALVES else values)


def _sums_to_one(scores: Tensor) -> bool:
    """Whether each row of (batch, classes) sums to 1."""
    return float((scores.float().sum(dim=1) - 1).abs().max()) < 1e-3


def _first_items(values: Tensor) -> Tensor:
    """Return as many items as have about MOST_VALUES values together, at least one."""
    if values.numel() <= MOST_VALUES or not values.dim():
        return values
    return values[: max(1, MOST_VALUES * len(values) // values.numel())]
