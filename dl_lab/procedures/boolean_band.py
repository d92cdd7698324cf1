"""Check that two hidden units with integer weights compute f(x) = [low <= Σx <= high] exactly, and one unit cannot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import TypedDict

import numpy as np

from dl_lab.from_scratch import boolean
from dl_lab.procedures.protocol import Procedure
from dl_lab.procedures.rows import Row
from dl_lab.procedures.steps import steps
from dl_lab.runs.recorder import Run
from dl_lab.show import class_plots, plots
from dl_lab.types import Metrics

BUILDERS = {"sign": boolean.sign_net, "relu": boolean.relu_net}


@dataclass
class BooleanBand(Procedure):
    """Compare every net of every band with the whole truth table, for all numbers of inputs D <= max_inputs.

    Each net judges its 2^D rows as they are, with a shift just below its margin in the worst direction, and with noise.
    For D <= max_single_inputs a linear program decides whether a single unit computes the band.

    Args:
        max_inputs: Largest number of inputs, 2 to 14.
        max_single_inputs: Largest number of inputs for which single units are sought.
        noise: Standard deviation of the Gaussian noise.
        share_of_margin: The shift, as a share of the margin, in [0, 1).
        seed: Seed of the noise.
    """

    imports = plots.IMPORTS

    max_inputs: int = 10
    max_single_inputs: int = 4
    noise: float = 1e-3
    share_of_margin: float = 0.999
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError for numbers out of range."""
        if not 2 <= self.max_inputs <= 14:
            raise ValueError(f"max_inputs {self.max_inputs} is not between 2 (XOR) and 14 (16,384 rows a net)")
        if not 0 <= self.share_of_margin < 1:
            raise ValueError(f"share_of_margin {self.share_of_margin} is not in [0, 1)")

    def __call__(self, run: Run) -> Metrics:
        """Judge every net; return the mistakes, the smallest margin, and how many single units exist."""
        rng = np.random.default_rng(self.seed)
        totals: list[dict[str, float]] = []
        for n_inputs in steps(run, range(1, self.max_inputs + 1), "truth tables by number of inputs"):
            rows = [self._judge(n_inputs, low, high, rng) for low, high in _bands(n_inputs)]
            totals.append({"inputs": n_inputs, "bands": len(rows), **_sum_up(rows)})
            run.log({key: float(value) for key, value in totals[-1].items()}, step=n_inputs, epoch=n_inputs)
        run.table("truth_tables", totals)
        single: list[SingleUnit] = []
        for n_inputs in range(1, self.max_single_inputs + 1):
            single += [_try_single_unit(n_inputs, low, high) for low, high in _bands(n_inputs)]
        run.table("single_unit", single)
        self._draw_xor(run)
        sums = {key: float(sum(row[key] for row in totals)) for key in _sum_up([]) if key != "margin"}
        return {
            **sums,
            "margin": min(row["margin"] for row in totals),
            "single_unit/bands": float(len(single)),
            "single_unit/solved": float(sum(row["solved"] for row in single)),
            "single_unit/xor": float(next(row["solved"] for row in single if row["band"] == "2: [0, 0]")),
        }

    def _judge(self, n_inputs: int, low: int, high: int, rng: np.random.Generator) -> dict[str, float]:
        """Count the mistakes of both nets of a band, and find the smaller margin."""
        noise = rng.normal(scale=self.noise, size=(2**n_inputs, n_inputs))
        row: dict[str, float] = {"evaluations": 0, "margin": np.inf}
        for name, build in BUILDERS.items():
            net = build(n_inputs, low, high)
            margin = boolean.margin(net)
            worst = margin * self.share_of_margin
            row[f"mistakes/{name}"] = boolean.count_mistakes(net, low, high)
            row[f"mistakes/{name}_shifted"] = sum(boolean.count_mistakes(net, low, high, s) for s in (-worst, worst))
            row[f"mistakes/{name}_noisy"] = boolean.count_mistakes(net, low, high, noise)
            row["evaluations"] += 4 * 2**n_inputs
            row["margin"] = min(row["margin"], margin)
        return row

    def _draw_xor(self, run: Run) -> None:
        """Draw the band of D = 2 and low = high = 0, which is +1 exactly where the two inputs differ."""
        points = boolean.truth_table(2)
        target = boolean.in_band(points, 0, 0)
        nets = {"two sign units": boolean.sign_net(2, 0, 0), "two ReLUs": boolean.relu_net(2, 0, 0)}
        rows: list[Row] = []
        for x, wanted in zip(points.tolist(), target.tolist(), strict=True):
            rows.append({"x1": x[0], "x2": x[1], "target": wanted, **_trace(nets, x)})
        hidden = {title: net.hidden for title, net in nets.items()}
        names = {-1: "f = -1", 1: "f = +1 (inputs differ)"}
        run.figure("xor", class_plots.decision_regions(nets, hidden, points.tolist(), target.tolist(), names), rows)


def _bands(n_inputs: int) -> Iterator[tuple[int, int]]:
    """Return all bands (low, high) with -D <= low <= high <= D."""
    return combinations_with_replacement(range(-n_inputs, n_inputs + 1), 2)


def _sum_up(rows: list[dict[str, float]]) -> dict[str, float]:
    """Add up the rows of all bands with the same number of inputs; keep the smallest margin."""
    names = ["evaluations", *[f"mistakes/{name}{how}" for name in BUILDERS for how in ("", "_shifted", "_noisy")]]
    least = min((row["margin"] for row in rows), default=np.inf)
    return {**{name: sum(row[name] for row in rows) for name in names}, "margin": least}


class SingleUnit(TypedDict):
    """A row about a band: whether a single unit computes it, and the weights and the bias of that unit."""

    band: str
    solved: bool
    weights_and_bias: str


def _try_single_unit(n_inputs: int, low: int, high: int) -> SingleUnit:
    x = boolean.truth_table(n_inputs)
    unit = boolean.find_single_unit(x, boolean.in_band(x, low, high))
    weights = "" if unit is None else " ".join(f"{value:g}" for value in [*unit[0], unit[1]])
    return {"band": f"{n_inputs}: [{low}, {high}]", "solved": unit is not None, "weights_and_bias": weights}


def _trace(nets: dict[str, boolean.BooleanNet], x: list[int]) -> dict[str, int]:
    """Return the hidden units and the output of each net for one input x (D,)."""
    row = {}
    for title, net in nets.items():
        units = net.activation(net.hidden(np.array([x])))[0]
        row |= {f"{title}: h{i}": int(value) for i, value in enumerate(units, 1)}
        row[f"{title}: output"] = int(net(np.array([x]))[0])
    return row
