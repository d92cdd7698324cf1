"""Two hidden units with integer weights compute f(x) = [low <= Σx <= high] exactly; one unit cannot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np

from dl_lab import plots
from dl_lab.from_scratch import boolean
from dl_lab.run import Run
from dl_lab.types import Metrics

BUILDERS = {"sign": boolean.sign_net, "relu": boolean.relu_net}


@dataclass
class BooleanBand:
    """Every net of every band against the whole truth table, for all numbers of inputs D <= max_inputs.

    Each net judges its 2^D rows as they are, shifted by the worst perturbation of `share_of_margin` of what it
    withstands, and under Gaussian noise of `noise` standard deviation. For D <= max_single_inputs a linear program
    decides whether a single unit could do it.
    """

    max_inputs: int = 10
    max_single_inputs: int = 4
    noise: float = 1e-3
    share_of_margin: float = 0.999
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.max_inputs <= 14:
            raise ValueError(f"max_inputs {self.max_inputs} is not between 2 (XOR) and 14 (16,384 rows a net)")
        if not 0 <= self.share_of_margin < 1:
            raise ValueError(f"share_of_margin {self.share_of_margin} is not in [0, 1)")

    def __call__(self, run: Run) -> Metrics:
        rng = np.random.default_rng(self.seed)
        totals: list[dict[str, Any]] = []
        for n_inputs in range(1, self.max_inputs + 1):
            rows = [self._judge(n_inputs, low, high, rng) for low, high in _bands(n_inputs)]
            totals.append({"inputs": n_inputs, "bands": len(rows), **_sums(rows)})
            run.log({key: float(value) for key, value in totals[-1].items()}, step=n_inputs, epoch=n_inputs)
        run.table("truth_tables", totals)
        single = [_single_unit(n, *band) for n in range(1, self.max_single_inputs + 1) for band in _bands(n)]
        run.table("single_unit", single)
        self._draw_xor(run)
        counted = {key: float(sum(row[key] for row in totals)) for key in _sums([]) if key != "margin"}
        return {
            **counted,
            "margin": min(row["margin"] for row in totals),
            "single_unit/bands": float(len(single)),
            "single_unit/solved": float(sum(row["solved"] for row in single)),
            "single_unit/xor": float(next(row["solved"] for row in single if row["band"] == "2: [0, 0]")),
        }

    def _judge(self, n_inputs: int, low: int, high: int, rng: np.random.Generator) -> dict[str, float]:
        noise = rng.normal(scale=self.noise, size=(2**n_inputs, n_inputs))
        row: dict[str, float] = {"evaluations": 0, "margin": np.inf}
        for name, build in BUILDERS.items():
            net = build(n_inputs, low, high)
            margin = boolean.margin(net)
            worst = margin * self.share_of_margin
            row[f"mistakes/{name}"] = boolean.mistakes(net, low, high)
            row[f"mistakes/{name}_shifted"] = sum(boolean.mistakes(net, low, high, s) for s in (-worst, worst))
            row[f"mistakes/{name}_noisy"] = boolean.mistakes(net, low, high, noise)
            row["evaluations"] += 4 * 2**n_inputs
            row["margin"] = min(row["margin"], margin)
        return row

    def _draw_xor(self, run: Run) -> None:
        """D = 2, low = high = 0: +1 exactly where the two inputs differ."""
        points, target = boolean.truth_table(2), boolean.in_band(boolean.truth_table(2), 0, 0)
        nets = {"two sign units": boolean.sign_net(2, 0, 0), "two ReLUs": boolean.relu_net(2, 0, 0)}
        rows = [
            {"x1": x[0], "x2": x[1], "target": wanted, **_trace(nets, x)}
            for x, wanted in zip(points.tolist(), target.tolist(), strict=True)
        ]
        hidden = {title: net.hidden for title, net in nets.items()}
        names = {-1: "f = -1", 1: "f = +1 (inputs differ)"}
        run.figure("xor", plots.decision_regions(nets, hidden, points.tolist(), target.tolist(), names), rows)


def _bands(n_inputs: int) -> Iterator[tuple[int, int]]:
    """All -D <= low <= high <= D."""
    return combinations_with_replacement(range(-n_inputs, n_inputs + 1), 2)


def _sums(rows: list[dict[str, float]]) -> dict[str, float]:
    """Of a number of inputs' bands: everything added up, but of the margins the least."""
    names = ["evaluations", *[f"mistakes/{name}{how}" for name in BUILDERS for how in ("", "_shifted", "_noisy")]]
    least = min((row["margin"] for row in rows), default=np.inf)
    return {**{name: sum(row[name] for row in rows) for name in names}, "margin": least}


def _single_unit(n_inputs: int, low: int, high: int) -> dict[str, Any]:
    x = boolean.truth_table(n_inputs)
    unit = boolean.single_unit(x, boolean.in_band(x, low, high))
    weights = "" if unit is None else " ".join(f"{value:g}" for value in [*unit[0], unit[1]])
    return {"band": f"{n_inputs}: [{low}, {high}]", "solved": unit is not None, "weights_and_bias": weights}


def _trace(nets: dict[str, boolean.BooleanNet], x: list[int]) -> dict[str, int]:
    row = {}
    for title, net in nets.items():
        units = net.activation(net.hidden(np.array([x])))[0]
        row |= {f"{title}: h{i}": int(value) for i, value in enumerate(units, 1)}
        row[f"{title}: output"] = int(net(np.array([x]))[0])
    return row
