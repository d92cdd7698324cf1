"""Metrics of torchmetrics beside those of another task, exact over uneven batches and several processes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dl_lab.tasks.inputs import split_labels
from dl_lab.types import Batch, Metrics, Splits, Tally, Task, UserError


@dataclass(slots=True)
class MetricState:
    """A metric of torchmetrics with the outputs that it has seen; two of them merge exactly."""

    metric: Any

    def __add__(self, other: MetricState) -> MetricState:
        both = copy.deepcopy(self.metric)
        try:
            both.merge_state(other.metric)
        except RuntimeError as error:
            raise UserError(f"{type(both).__name__} cannot be added up over batches: {error}") from error
        return MetricState(both)

    def values(self, name: str) -> Metrics:
        """Return the metric of all outputs seen; a metric with several values has a name for each."""
        value = self.metric.compute()
        if isinstance(value, Mapping):
            return {f"{name}_{key}": float(part) for key, part in value.items()}
        if value.dim() == 0:
            return {name: float(value)}
        return {f"{name}_{i}": part for i, part in enumerate(value.flatten().tolist())}


class FromTorchmetrics:
    """A task whose evaluation also measures metrics of torchmetrics.

    The other task gives the training loss and its tally. A metric gets the model's output and the labels. An output
    (batch, 1) loses its last axis if the labels have one axis.

    Args:
        task: The task that is optimised.
        metrics: The metrics by the names they get after "val/" and "test/".

    Raises:
        ValueError: A value of `metrics` is not a metric of torchmetrics.
    """

    def __init__(self, task: Task, metrics: Mapping[str, Any]) -> None:
        from torchmetrics import Metric

        for name, metric in metrics.items():
            if not isinstance(metric, Metric):
                raise ValueError(f"metrics.{name} is a {type(metric).__name__}, not a metric of torchmetrics")
        self.task = task
        self.metrics = dict(metrics)

    def start(self, dataset: Splits, device: torch.device) -> None:
        """Move the metrics to the device, and let the other task prepare."""
        for metric in self.metrics.values():
            metric.to(device)
        start = getattr(self.task, "start", None)
        if start is not None:
            start(dataset, device)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tally]:
        """Return the loss and the tally of the other task."""
        return self.task.loss(model, batch)

    def measure(self, model: nn.Module, batch: Batch) -> Tally:
        """Return the tally of the other task, and the metrics of the same outputs."""
        outputs: list[Any] = []
        hook = model.register_forward_hook(lambda module, inputs, output: outputs.append(output))
        try:
            tally = self.task.measure(model, batch)
        finally:
            hook.remove()
        labels = split_labels(batch)[1]
        output = getattr(outputs[-1], "logits", outputs[-1])
        if output.dim() == labels.dim() + 1 and output.shape[-1] == 1:
            output = output.squeeze(-1)
        own: Tally = {}
        for name, metric in self.metrics.items():
            seen = copy.deepcopy(metric)
            seen.reset()
            seen.update(output, labels)
            own[name] = MetricState(seen)
        return {**tally, **own}
