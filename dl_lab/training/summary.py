"""A model layer by layer: output shapes, parameters with their formula, and operations, all for one item."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import TypedDict

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dl_lab.training.startup import spare_compiler
from dl_lab.types import Batch, Task, columns_of


class LayerRow(TypedDict):
    """One layer of a model.

    Attributes:
        layer: The dotted name.
        kind: The class.
        output: The shape behind the batch axis, "32 x 16 x 16".
        parameters: The number of parameters. A parameter that two layers use is counted with the first one.
        formula: Where the number of parameters comes from; "" where there is no short formula.
        flops: Floating-point operations for one item, as torch's FlopCounterMode counts them: matrix products and
            convolutions only, and a multiply-add is two operations.
    """

    layer: str
    kind: str
    output: str
    parameters: int
    formula: str
    flops: int


def summarise_layers(model: nn.Module, task: Task, batch: Batch) -> list[LayerRow]:
    """Return one row for each layer, in the order of the calls.

    The task judges the batch in evaluation mode, without gradients. The caller's random stream does not move.

    Args:
        model: The model.
        task: The task of the model.
        batch: A batch of one item.
    """
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    calls = _Calls(counter.get_total_flops)
    hooks = [hook for name, module in model.named_modules() for hook in calls.watch(name, module)]
    training = model.training
    model.eval()
    first = columns_of(batch)[0]
    gpu = [first.device] if first.is_cuda else []
    try:
        with torch.random.fork_rng(gpu), torch.no_grad(), counter:
            spare_compiler(type(getattr(counter, "mode", None)))  # it sees every operation
            task.measure(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
        model.train(training)
    return _make_rows(model, calls)


class _Calls:
    """Hooks that note, for each module, the shape of its first output and the operations of all its calls.

    Args:
        read_total: Returns the operations so far.
    """

    def __init__(self, read_total: Callable[[], int]) -> None:
        self.read_total = read_total
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.flops: dict[str, int] = {}
        self.order: list[str] = []  # modules by their first call
        self._total_before: dict[str, int] = {}

    def watch(self, name: str, module: nn.Module) -> list[RemovableHandle]:
        """Hook a module; operations count for it and for every module that it is inside of."""

        def enter(module: nn.Module, inputs: object) -> None:
            self._total_before[name] = self.read_total()
            if name not in self.order:
                self.order.append(name)

        def leave(module: nn.Module, inputs: object, output: object) -> None:
            self.flops[name] = self.flops.get(name, 0) + self.read_total() - self._total_before[name]
            first = find_tensor(output)
            if first is not None:
                self.shapes.setdefault(name, tuple(first.shape[1:]))

        return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]


def _make_rows(model: nn.Module, calls: _Calls) -> list[LayerRow]:
    rows: list[LayerRow] = []
    counted: set[int] = set()
    modules = dict(model.named_modules())
    for name in dict.fromkeys([*calls.order, *modules]):
        module = modules[name]
        own = [p for p in module.parameters(recurse=False) if id(p) not in counted]
        counted |= {id(p) for p in own}
        prefix = f"{name}." if name else ""
        flops = calls.flops.get(name, 0)
        for child, _ in module.named_children():
            flops -= calls.flops.get(prefix + child, 0)
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


KINDS = {
    "BatchNorm1d": "batch norm",
    "BatchNorm2d": "batch norm",
    "Conv1d": "convolution",
    "Conv2d": "convolution",
    "ConvTranspose2d": "transposed conv.",
    "GRU": "GRU",
    "LSTM": "LSTM",
    "MultiheadAttention": "attention",
    "NonDynamicallyQuantizableLinear": "linear",
    "ReLU": "ReLU",
    "RNN": "RNN",
}


def name_in_words(model: nn.Module) -> dict[str, str]:
    """Return dotted name -> kind and number of each module, in the order of the model: "convolution 3"."""
    numbers: dict[str, int] = {}
    words: dict[str, str] = {}
    for name, module in model.named_modules():
        kind = type(module).__name__
        word = KINDS.get(kind) or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", kind).lower()
        numbers[word] = numbers.get(word, 0) + 1
        words[name] = f"{word} {numbers[word]}"
    return words


def formula(module: nn.Module) -> str:
    """Return the number of a layer's parameters in terms of its sizes: "(3 x 3 x 3 + 1) x 32".

    The formula is "" where there is no short one.
    """
    if isinstance(module, nn.ConvTranspose1d | nn.ConvTranspose2d):
        n_in, n_out, *kernel = module.weight.shape
        return _format_affine([n_in, *kernel], n_out, module.bias is not None)
    if isinstance(module, nn.Conv2d | nn.Conv1d | nn.Linear):
        n_out, *inputs = module.weight.shape
        return _format_affine(inputs, n_out, module.bias is not None)
    if isinstance(module, nn.Embedding):
        return f"{module.num_embeddings} x {module.embedding_dim}"
    if isinstance(module, nn.RNNBase):
        return _format_recurrent(module)
    if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
        width = module.embed_dim
        one = f"({width} + 1) x {width}" if module.in_proj_bias is not None else f"{width} x {width}"
        return f"3 x {one}"  # queries, keys and values; the projection behind them is a layer of its own
    if isinstance(module, NORMALISERS) and module.weight is not None:
        n_scales = math.prod(module.weight.shape)
        has_bias = getattr(module, "bias", None) is not None  # RMSNorm has none
        return f"2 x {n_scales}" if has_bias else f"{n_scales}"
    return ""


NORMALISERS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


def _format_affine(inputs: Sequence[int], n_out: int, has_bias: bool) -> str:
    product = " x ".join(map(str, inputs))
    return f"({product} + 1) x {n_out}" if has_bias else f"{product} x {n_out}"


def _format_recurrent(module: nn.RNNBase) -> str:
    """Gates x (input + hidden + two biases) x hidden, for each layer and direction."""
    if module.proj_size:
        return ""
    n_directions = 2 if module.bidirectional else 1
    n_biases = " + 2" if module.bias else ""
    terms = []
    for layer in range(module.num_layers):
        n_in = module.input_size if layer == 0 else module.hidden_size * n_directions
        term = f"{GATES[module.mode]} x ({n_in} + {module.hidden_size}{n_biases}) x {module.hidden_size}"
        terms.append(f"2 x {term}" if n_directions == 2 else term)
    return " + ".join(terms)


def find_tensor(value: object) -> Tensor | None:
    """Return the first tensor among the inputs or outputs of a module; None for no tensor."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, tuple | list):
        for item in value:
            found = find_tensor(item)
            if found is not None:
                return found
    return None
