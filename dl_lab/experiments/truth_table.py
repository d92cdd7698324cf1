"""Sigmoid nets that learn a small truth table, pass by pass (Padova, Deep Learning 2022/23, homework 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dl_lab import plots
from dl_lab.run import Run
from dl_lab.types import Metrics


class SigmoidNet(Protocol):
    """(n, inputs) -> (n,) outputs in (0, 1), learning sample by sample."""

    def update(self, x: np.ndarray, y: np.ndarray, /) -> float: ...

    def outputs(self, x: np.ndarray, /) -> np.ndarray: ...


@dataclass
class TruthTable:
    """Each model learns inputs (rows) -> targets (0 or 1) in the given order, `passes[model]` times.

    demonstration: this many first samples are learned once before the first pass (the source shows such a step).
    Measured of each model: its outputs, ‖y − ŷ‖, and the mean squared error of the first and of the last pass, where
    each sample counts as it was before its own step, as in the source. That error is recorded every `every` passes.
    """

    inputs: Sequence[Sequence[int]]
    targets: Sequence[int]
    models: Mapping[str, SigmoidNet]
    passes: Mapping[str, int]
    demonstration: int = 0
    every: int = 1

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            raise ValueError(f"{len(self.inputs)} rows of inputs but {len(self.targets)} targets")
        if self.models.keys() != self.passes.keys():
            raise ValueError(f"models {sorted(self.models)} but passes for {sorted(self.passes)}")
        if min(self.passes.values(), default=0) < 1:
            raise ValueError("every model needs at least 1 pass")
        if self.every < 1:
            raise ValueError(f"every {self.every} is not at least 1")

    def __call__(self, run: Run) -> Metrics:
        x, y = np.array(self.inputs, dtype=np.float64), np.array(self.targets)
        metrics: Metrics = {}
        errors: dict[int, dict[str, float]] = {}
        outputs = [{"inputs": "".join(map(str, row)), "target": int(t)} for row, t in zip(self.inputs, y, strict=True)]
        for name, model in self.models.items():
            model.update(x[: self.demonstration], y[: self.demonstration])
            mse = float("nan")
            for done in range(1, self.passes[name] + 1):
                mse = model.update(x, y) / len(y)
                if done == 1 or done % self.every == 0:
                    errors.setdefault(done, {})[name] = mse
            final = model.outputs(x)
            metrics |= {f"{name}/output_{i}": float(value) for i, value in enumerate(final)}
            metrics |= {f"{name}/first_mse": errors[1][name], f"{name}/mse": mse}
            metrics[f"{name}/norm"] = float(np.linalg.norm(y - final))
            for row, value in zip(outputs, final.tolist(), strict=True):
                row[name] = value
        run.table("outputs", outputs)
        rows = [{"pass": done, **errors[done]} for done in sorted(errors)]
        for row in rows:
            values = {f"mse/{name}": value for name, value in row.items() if name != "pass"}
            run.log(values, step=int(row["pass"]), epoch=int(row["pass"]))
        run.figure("mse", plots.curves(rows, x="pass", title="mean squared error of each pass"), rows)
        return metrics
