"""Where gradients vanish: their norms at every convolution of several nets, with their initial weights.

The loss of one batch of noise is differentiated once; no data are read and nothing is trained. Over a training, the
same norms are the business of `callbacks=gradient_norms`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from dl_lab import plots
from dl_lab.run import Run
from dl_lab.training.gradient_norms import LayerGradients
from dl_lab.training.trainer import choose_device
from dl_lab.types import LabelledBatch, Metrics, Task, UserError

KINDS = ("output", "weight")


@dataclass
class GradientFlow:
    """For each net and each of its convolutions, counted from the input: the L2 norms of the loss's gradient with
    respect to its output (over the whole batch) and to its weight.

    The batch is uniform noise in [0, 1] of input_shape, its labels drawn uniformly. Metrics, `kind` being output or
    weight: `<net>/<kind>/conv_<i>` for the convolutions in `marked` that the net has, `<net>/<kind>/conv_<j>_to_<i>`
    for neighbours i < j among them and for the first and last (how many times larger the later one's is), and
    `<net>/<kind>/spread`, the largest norm over the smallest of all convolutions.
    Raises UserError for a net with fewer than two convolutions.
    """

    models: Mapping[str, nn.Module]
    task: Task
    input_shape: Sequence[int]
    n_classes: int
    batch_size: int = 32
    marked: Sequence[int] = field(default_factory=lambda: [2, 7, 12, 17])
    seed: int = 0
    device: str = "auto"

    def __call__(self, run: Run) -> Metrics:
        found = {name: self.norms(model) for name, model in self.models.items()}
        metrics: Metrics = {}
        for name, norms in found.items():
            for kind in KINDS:
                metrics |= {f"{name}/{kind}/{key}": value for key, value in self._figures(norms[kind]).items()}
        rows = [
            {"net": name, "conv": i + 1, "layer": layer, **{kind: norms[kind][i] for kind in KINDS}}
            for name, norms in found.items()
            for i, layer in enumerate(norms["layers"])
        ]
        run.figure("gradient_flow", self._figure(found), rows)
        run.finish(metrics, parameters=sum(p.numel() for model in self.models.values() for p in model.parameters()))
        return metrics

    def norms(self, model: nn.Module) -> dict[str, list[Any]]:
        """Layer names, and for each kind the norm at every convolution, input first."""
        device = choose_device(self.device)
        generator = torch.Generator().manual_seed(self.seed)
        x = torch.rand(self.batch_size, *self.input_shape, generator=generator)
        y = torch.randint(self.n_classes, (self.batch_size,), generator=generator)
        model.to(device).train()
        convolutions = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
        if len(convolutions) < 2:
            raise UserError(
                f"{type(model).__name__} has {len(convolutions)} convolutions: there is no flow to measure."
            )
        watched = LayerGradients(model, KINDS)
        loss, _ = self.task.loss(model, LabelledBatch(x.to(device), y.to(device)))
        loss.backward()
        watched.remove()
        model.zero_grad(set_to_none=True)
        norms = watched.norms()
        return {"layers": convolutions, **{kind: [float(norms[kind][name]) for name in convolutions] for kind in KINDS}}

    def _figures(self, norms: Sequence[float]) -> Metrics:
        marked = [i for i in self.marked if i <= len(norms)]
        pairs = [*pairwise(marked), *([(marked[0], marked[-1])] if len(marked) > 2 else [])]
        return {
            **{f"conv_{i}": norms[i - 1] for i in marked},
            **{f"conv_{j}_to_{i}": _ratio(norms[j - 1], norms[i - 1]) for i, j in pairs},
            "spread": _ratio(max(norms), min(norms)),
        }

    def _figure(self, found: Mapping[str, Mapping[str, Sequence[float]]]) -> Any:
        titles = [f"gradient of each convolution's {kind}" for kind in KINDS]
        figure, axes = plots.panels(titles, x="convolution, from the input", y="L2 norm", size=(5.4, 4.0))
        for axis, kind in zip(axes, KINDS, strict=True):
            longest = max(len(norms[kind]) for norms in found.values())
            rows = [
                {"conv": i + 1, **{name: norms[kind][i] for name, norms in found.items() if i < len(norms[kind])}}
                for i in range(longest)
            ]
            plots.draw_curves(axis, rows, "conv", list(found))
            axis.set_yscale("log")
        return figure


def _ratio(larger: float, smaller: float) -> float:
    return larger / smaller if smaller else float("inf")
