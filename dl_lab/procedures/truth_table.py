"""Train sigmoid nets on a small truth table, pass by pass (Padova, Deep Learning 2022/23, homework 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dl_lab.procedures.protocol import Procedure
from dl_lab.procedures.rows import Row
from dl_lab.procedures.steps import steps
from dl_lab.runs.recorder import Run
from dl_lab.show import plots
from dl_lab.types import Metrics


class SigmoidNet(Protocol):
    """A net that learns in the order given: (n, inputs) -> (n,) outputs in (0, 1)."""

    def update(self, x: np.ndarray, y: np.ndarray, /) -> float:
        """Learn x (n, inputs), y (n,) in this order; return the sum of the squared errors."""
        ...

    def outputs(self, x: np.ndarray, /) -> np.ndarray:
        """Return the outputs (n,) for x (n, inputs)."""
        ...


@dataclass
class TruthTable(Procedure):
    """Train each model on the rows of a table, in the given order, for several passes.

    The metrics of each model: its outputs, ‖y − ŷ‖, and the mean squared error of the first and of the last pass. In
    that error each sample counts as it was before its own step, as in the source.

    Args:
        inputs: The rows of the table.
        targets: The target of each row, 0 or 1.
        models: The models by name.
        passes: Passes of each model, by the same names.
        demonstration: How many of the first samples are learned once before the first pass (the source shows such a
            step).
        every: The error is recorded every `every` passes.
    """

    imports = plots.IMPORTS

    inputs: Sequence[Sequence[int]]
    targets: Sequence[int]
    models: Mapping[str, SigmoidNet]
    passes: Mapping[str, int]
    demonstration: int = 0
    every: int = 1

    def __post_init__(self) -> None:
        """Raise ValueError for lists that do not fit together, and for numbers below 1."""
        if len(self.inputs) != len(self.targets):
            raise ValueError(f"there are {len(self.inputs)} rows of inputs, but {len(self.targets)} targets")
        if self.models.keys() != self.passes.keys():
            raise ValueError(f"the models are {sorted(self.models)}, but passes has {sorted(self.passes)}")
        if min(self.passes.values(), default=0) < 1:
            raise ValueError("every model needs at least 1 pass")
        if self.every < 1:
            raise ValueError(f"every {self.every} is not at least 1")

    def __call__(self, run: Run) -> Metrics:
        """Train every model; return the metrics of all."""
        x = np.array(self.inputs, dtype=np.float64)
        y = np.array(self.targets)
        metrics: Metrics = {}
        errors: dict[int, dict[str, float]] = {}
        outputs: list[Row] = []
        for row, target in zip(self.inputs, y, strict=True):
            outputs.append({"inputs": "".join(map(str, row)), "target": int(target)})
        for name, model in self.models.items():
            model.update(x[: self.demonstration], y[: self.demonstration])
            mse = float("nan")
            for done in steps(run, range(1, self.passes[name] + 1), f"passes of {name}"):
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
