"""Parts with one fault each: what the sick patients of the ward are made of."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dl_lab.datasets.batches import TensorSplit
from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.sets.digits import digits
from dl_lab.models.mlp import MLP
from dl_lab.models.text_transformer import TextTransformer
from dl_lab.tasks.classification import Classification
from dl_lab.types import LabelledBatch, Tally

# -- data sets ------------------------------------------------------------------------------------------------------

Change = Callable[[LabelledBatch], LabelledBatch]


def changed_digits(fault: str, **settings: Any) -> Dataset:
    """scikit-learn's digits with one fault in the data.

    Args:
        fault: The name of a fault below.
        settings: Of `digits`.

    Raises:
        ValueError: There is no such fault.
    """
    dataset = digits(**settings)
    if fault not in FAULTS:
        raise ValueError(f"fault {fault!r} is none of {', '.join(FAULTS)}")
    return FAULTS[fault](dataset)


def _with(split: Any, change: Change) -> Any:
    """The split with its items in memory, changed."""
    batch = next(iter(split.batches(len(split))))
    return TensorSplit(change(batch), _as_it_is, order=split.order)


def _as_it_is(batch: LabelledBatch) -> LabelledBatch:
    return batch


def _everywhere(dataset: Dataset, change: Change) -> Dataset:
    return replace(
        dataset,
        train=_with(dataset.train, change),
        val=_with(dataset.val, change),
        test=_with(dataset.test, change),
        class_names=(),
        class_counts={},
    )


def _number_from_one(dataset: Dataset) -> Dataset:
    return _everywhere(dataset, lambda batch: LabelledBatch(batch.x, batch.y + 1))


def _make_constant(dataset: Dataset) -> Dataset:
    return _everywhere(dataset, lambda batch: LabelledBatch(batch.x, torch.full_like(batch.y, 3)))


def _enlarge(dataset: Dataset) -> Dataset:
    return _everywhere(dataset, lambda batch: LabelledBatch(batch.x * 255, batch.y))


def _shift_validation(dataset: Dataset) -> Dataset:
    shifted = _with(dataset.val, lambda batch: LabelledBatch(batch.x * 0.5 + 0.4, batch.y))
    return replace(_everywhere(dataset, _as_it_is), val=shifted)


def _leak_test(dataset: Dataset) -> Dataset:
    train = next(iter(dataset.train.batches(len(dataset.train))))
    mixed = _with(
        dataset.test,
        lambda batch: LabelledBatch(torch.cat([batch.x[60:], train.x[:60]]), torch.cat([batch.y[60:], train.y[:60]])),
    )
    return replace(_everywhere(dataset, _as_it_is), test=mixed)


def _mislabel(dataset: Dataset) -> Dataset:
    """A third of the training labels is random, and only 200 items are left."""
    generator = torch.Generator().manual_seed(0)

    def change(batch: LabelledBatch) -> LabelledBatch:
        x, y = batch.x[:200], batch.y[:200]
        wrong = torch.rand(len(y), generator=generator) < 0.35
        return LabelledBatch(x, torch.where(wrong, torch.randint(0, 10, y.shape, generator=generator), y))

    return replace(_everywhere(dataset, _as_it_is), train=_with(dataset.train, change))


def _unbalance(dataset: Dataset) -> Dataset:
    """Class 0 has nine of ten items, and the inputs say nothing about the label."""
    generator = torch.Generator().manual_seed(0)

    def change(batch: LabelledBatch) -> LabelledBatch:
        y = (torch.rand(len(batch.y), generator=generator) < 0.1).long()
        return LabelledBatch(batch.x, y)

    return _everywhere(dataset, change)


def _read_slowly(dataset: Dataset) -> Dataset:
    """A batch of the training data takes 20 ms."""

    def wait(batch: LabelledBatch) -> LabelledBatch:
        time.sleep(0.02)
        return batch

    everywhere = _everywhere(dataset, _as_it_is)
    train = everywhere.train
    assert isinstance(train, TensorSplit)
    return replace(everywhere, train=replace(train, transform=wait))


FAULTS: dict[str, Callable[[Dataset], Dataset]] = {
    "numbered_from_one": _number_from_one,
    "constant": _make_constant,
    "unscaled": _enlarge,
    "shifted_validation": _shift_validation,
    "leaked": _leak_test,
    "mislabelled": _mislabel,
    "unbalanced": _unbalance,
    "slow": _read_slowly,
}

# -- models ---------------------------------------------------------------------------------------------------------


class SoftmaxMLP(nn.Module):
    """(batch, *input_shape) -> (batch, n_classes) probabilities, where the task takes logits."""

    def __init__(self, input_shape: Sequence[int], n_classes: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.net = MLP(input_shape, n_classes, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the sick net."""
        return self.net(x).softmax(dim=1)


class _StubbornDropout(nn.Dropout):
    def train(self, mode: bool = True) -> _StubbornDropout:
        super().train(True)
        return self


class _StubbornNormalisation(nn.BatchNorm2d):
    def train(self, mode: bool = True) -> _StubbornNormalisation:
        super().train(False)
        return self


class DropoutMLP(nn.Sequential):
    """(batch, *input_shape) -> (batch, n_classes) logits; drops units in evaluation too."""

    def __init__(self, input_shape: Sequence[int], n_classes: int, hidden: Sequence[int]) -> None:
        net = MLP(input_shape, n_classes, hidden[:1])
        super().__init__(net[0], net[1], nn.ReLU(), _StubbornDropout(0.5), net[-1])


class TwoHeads(nn.Module):
    """(batch, *input_shape) -> (batch, n_classes) logits of the first head; the second one is never used."""

    def __init__(self, input_shape: Sequence[int], n_classes: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.net = MLP(input_shape, n_classes, hidden)
        self.other = nn.Linear(hidden[-1], n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the sick net."""
        return self.net(x)


class WaitingMLP(nn.Module):
    """(batch, *input_shape) -> (batch, n_classes) logits. A GPU would wait for the host in every step.

    Args:
        input_shape: Of one item.
        n_classes: Number of classes.
        hidden: Units of each hidden layer.
        by: What asks for a value: "item", "if" or "nonzero".
    """

    def __init__(self, input_shape: Sequence[int], n_classes: int, hidden: Sequence[int], by: str) -> None:
        super().__init__()
        self.net = MLP(input_shape, n_classes, hidden)
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        """Apply the sick net."""
        scores = self.net(x)
        if self.by == "item":
            return scores / max(1.0, scores.abs().max().item() / 50)
        if self.by == "if":
            return scores if (scores.abs() < 50).all() else scores.clamp(-50, 50)
        return scores[scores.isfinite().all(dim=1)]


class MixingMLP(nn.Module):
    """(batch, *input_shape) -> (batch, n_classes) logits. A tensor of the model is no buffer, so it stays on the CPU.

    Args:
        input_shape: Of one item.
        n_classes: Number of classes.
        hidden: Units of each hidden layer.
        when: When the tensor is made: "built", or "called" in every forward pass.
    """

    def __init__(self, input_shape: Sequence[int], n_classes: int, hidden: Sequence[int], when: str) -> None:
        super().__init__()
        self.net = MLP(input_shape, n_classes, hidden)
        self.scale = torch.ones(n_classes)
        self.when = when

    def forward(self, x: Tensor) -> Tensor:
        """Apply the sick net."""
        scores = self.net(x)
        scale = self.scale if self.when == "built" else torch.linspace(1, 1, scores.shape[1])
        return scores * scale


class FrozenMLP(MLP):
    """An MLP whose hidden layers keep their random weights."""

    def __init__(self, input_shape: Sequence[int], n_classes: int, hidden: Sequence[int]) -> None:
        super().__init__(input_shape, n_classes, hidden)
        for layer in list(self)[:-1]:
            layer.requires_grad_(False)


class NormalisedCNN(nn.Sequential):
    """(batch, 1, 8, 8) -> (batch, n_classes) logits. stubborn: normalisation stays in evaluation mode."""

    def __init__(self, n_classes: int, stubborn: bool = False) -> None:
        normalise = _StubbornNormalisation if stubborn else nn.BatchNorm2d
        super().__init__(
            nn.Conv2d(1, 16, 3, padding=1),
            normalise(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            normalise(32),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(512, n_classes),
        )
        self.train()  # a stubborn layer learns of its mode here


class MeanOfWords(nn.Module):
    """Tokens (batch, length) -> (batch, 1) logits of the mean word. masked: padding is left out, as it should be."""

    def __init__(self, vocabulary_size: int, dim: int = 16, masked: bool = True) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary_size, dim)
        self.read = nn.Linear(dim, 1)
        self.masked = masked

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Apply the sick net."""
        words = self.words(x)
        if not self.masked:
            return self.read(words.mean(dim=1))
        total = (words * mask[:, :, None]).sum(dim=1)
        return self.read(total / mask.sum(dim=1, keepdim=True))


class ConstantForecast(nn.Module):
    """Series (batch, time, n_features) -> (batch, horizon, n_features) forecasts that do not depend on the series."""

    def __init__(self, horizon: int, n_features: int) -> None:
        super().__init__()
        self.forecast = nn.Parameter(torch.zeros(horizon, n_features))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the sick net."""
        return self.forecast.expand(len(x), -1, -1)


class UniformTransformer(TextTransformer):
    """A Transformer whose first attention weighs all tokens alike."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for block in self.blocks:
            for layer in block.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=0.01)


class UnmaskedTransformer(TextTransformer):
    """A Transformer that takes the padding for words."""

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Apply the sick net."""
        return super().forward(tokens, torch.ones_like(mask))


def draw_normal(std: float, bias: float = 0.0) -> Callable[[nn.Module], None]:
    """Initial weights N(0, std²) and constant biases."""

    def apply(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=std) if std else nn.init.zeros_(module.weight)
            nn.init.constant_(module.bias, bias)

    return apply


# -- learning -------------------------------------------------------------------------------------------------------


class WrongSign(Classification):
    """Classification that measures the scores with the wrong sign."""

    def measure(self, model: nn.Module, batch: LabelledBatch) -> Tally:
        """Measure with the sign of the scores reversed."""
        tally = super().measure(lambda *x: -model(*x), batch)  # type: ignore[arg-type]
        right = super().measure(model, batch)
        return {**tally, "loss": right["loss"]}


def optimise_half(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """Adam that was given every second weight."""
    return torch.optim.Adam(list(parameters)[::2], lr=lr)
