"""Find where gradients vanish: their norms at every convolution of several nets, with their initial weights.

The loss of one batch of noise is differentiated once; no data are read and nothing is trained. The callback
`gradient_norms` records the same norms during a training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, TypedDict

import torch
from torch import nn

from dl_lab.procedures.protocol import Procedure
from dl_lab.procedures.rows import Row
from dl_lab.procedures.steps import steps
from dl_lab.runs.recorder import Run
from dl_lab.show import plots
from dl_lab.training.devices import choose_device
from dl_lab.training.gradient_norms import LayerGradients
from dl_lab.types import LabelledBatch, Metrics, Task, UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS: tuple[Literal["output", "weight"], ...] = ("output", "weight")


class Norms(TypedDict):
    """The names of a net's convolutions, input first, and the norms of their gradients by kind."""

    layers: list[str]
    output: list[float]
    weight: list[float]


@dataclass
class GradientFlow(Procedure):
    """Measure the gradient of the loss at every convolution of several nets.

    The loss is differentiated with respect to a convolution's output (over the whole batch) and to its weight, and the
    L2 norms of both gradients are measured. Convolutions are counted from the input. The batch is uniform noise in
    [0, 1] with uniformly drawn labels.

    The metrics, where kind is output or weight:

    - `<net>/<kind>/conv_<i>`: the norm at each convolution in `marked` that the net has.
    - `<net>/<kind>/conv_<j>_to_<i>`: the norm at j over the norm at i, for neighbours i < j among them and for the
      first and the last.
    - `<net>/<kind>/spread`: the largest norm over the smallest of all convolutions.

    Args:
        models: The nets by name.
        task: Gives the loss.
        input_shape: (channels, height, width) of an image.
        n_classes: Number of labels.
        batch_size: Images in the batch.
        marked: Numbers of the convolutions whose norms become metrics.
        seed: Seed of the batch.
        device: The device, or "auto".
    """

    imports = plots.IMPORTS

    models: Mapping[str, nn.Module]
    task: Task
    input_shape: Sequence[int]
    n_classes: int
    batch_size: int = 32
    marked: Sequence[int] = field(default_factory=lambda: [2, 7, 12, 17])
    seed: int = 0
    device: str = "auto"

    def __call__(self, run: Run) -> Metrics:
        """Measure every net; return the metrics.

        Raises:
            UserError: A net has fewer than two convolutions.
        """
        found: dict[str, Norms] = {}
        for name in steps(run, list(self.models), "gradients of each net"):
            found[name] = self.measure_norms(self.models[name])
        metrics: Metrics = {}
        for name, norms in found.items():
            for kind in KINDS:
                metrics |= {f"{name}/{kind}/{key}": value for key, value in self._compare(norms[kind]).items()}
        rows: list[Row] = []
        for name, norms in found.items():
            for i, layer in enumerate(norms["layers"]):
                rows.append({"net": name, "conv": i + 1, "layer": layer, **{kind: norms[kind][i] for kind in KINDS}})
        run.figure("gradient_flow", self._draw(found), rows)
        run.finish(metrics, parameters=sum(p.numel() for model in self.models.values() for p in model.parameters()))
        return metrics

    def measure_norms(self, model: nn.Module) -> Norms:
        """Return the norms at every convolution of a net.

        Raises:
            UserError: The net has fewer than two convolutions.
        """
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
        return {
            "layers": convolutions,
            "output": [float(norms["output"][name]) for name in convolutions],
            "weight": [float(norms["weight"][name]) for name in convolutions],
        }

    def _compare(self, norms: Sequence[float]) -> Metrics:
        """Return the norms of the marked convolutions, their ratios, and the spread of all."""
        marked = [i for i in self.marked if i <= len(norms)]
        pairs = list(pairwise(marked))
        if len(marked) > 2:
            pairs.append((marked[0], marked[-1]))
        metrics = {f"conv_{i}": norms[i - 1] for i in marked}
        for i, j in pairs:
            metrics[f"conv_{j}_to_{i}"] = _divide(norms[j - 1], norms[i - 1])
        metrics["spread"] = _divide(max(norms), min(norms))
        return metrics

    def _draw(self, found: Mapping[str, Norms]) -> Figure:
        titles = [f"gradient of each convolution's {kind}" for kind in KINDS]
        figure, axes = plots.panels(titles, x="convolution, from the input", y="L2 norm", size=(5.4, 4.0))
        for axis, kind in zip(axes, KINDS, strict=True):
            longest = max(len(norms[kind]) for norms in found.values())
            rows = []
            for i in range(longest):
                values = {name: norms[kind][i] for name, norms in found.items() if i < len(norms[kind])}
                rows.append({"conv": i + 1, **values})
            plots.draw_curves(axis, rows, "conv", list(found))
            axis.set_yscale("log")
        return figure


def _divide(larger: float, smaller: float) -> float:
    return larger / smaller if smaller else float("inf")
