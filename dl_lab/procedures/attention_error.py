"""Measure how far attention mechanisms are from softmax attention, by the norm of q and k and the order of a series."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypedDict

import torch
from torch import Tensor

from dl_lab.models.attention.exact import softmax_attention
from dl_lab.models.attention.features import mclaurin_features, n_mclaurin_features, truncated_exponential
from dl_lab.models.attention.linear import mclaurin_attention
from dl_lab.models.attention.mechanisms import MechanismFactory
from dl_lab.procedures.protocol import Procedure
from dl_lab.procedures.rows import Row
from dl_lab.procedures.steps import steps
from dl_lab.runs.recorder import Run
from dl_lab.show import plots
from dl_lab.types import Metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEATURE_DIMS = (2, 4, 8, 64)  # the sizes of the coursework's answers

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class Error(TypedDict):
    """A row: the errors of one mechanism at one norm of q and k; none if the mechanism refused a draw.

    A mechanism refuses a draw if a normaliser is not positive.
    """

    mechanism: str
    scale: float
    refused: int
    mean_error: float | None
    max_error: float | None
    relative_error: float | None


@dataclass
class AttentionError(Procedure):
    """Measure |Z - Z_hat| on q and k of a given norm in random directions, and v of normal numbers.

    Args:
        length: Positions of a sequence.
        dim: Numbers in a query, a key or a value.
        scales: Norms of q and k.
        terms: Numbers of terms of the McLaurin series to compare.
        mechanisms: Builders of the other mechanisms to compare, by name.
        n_draws: Draws of q, k and v at each norm.
        useful: A mechanism counts as useful while its mean error is below this share of the mean of |Z|.
        seed: Seed of the draws.
    """

    imports = plots.IMPORTS

    length: int
    dim: int
    scales: Sequence[float]
    terms: Sequence[int]
    mechanisms: Mapping[str, MechanismFactory]
    n_draws: int = 4
    useful: float = 0.1
    seed: int = 0

    def __call__(self, run: Run) -> Metrics:
        """Measure every mechanism at every norm; return the errors and the norms up to which each is useful."""
        rows: list[Error] = []
        signs: list[Row] = []
        for step, scale in enumerate(steps(run, self.scales, "errors at each scale")):
            draws = list(self._draw_inputs(scale))
            attentions = self._build_attentions()
            at_scale = [self._measure_error(name, scale, draws, attend) for name, attend in attentions.items()]
            signs += [self._count_signs(terms, scale, draws) for terms in self.terms]
            rows += at_scale
            run.log(_relative_errors(at_scale), step, 0)
        run.figure("attention_error", self._draw(rows), rows)
        run.table("normaliser", signs)
        at_one = _relative_errors([row for row in rows if row["scale"] == 1.0])
        return {**self._find_useful_scales(rows), **at_one, **self._check_features()}

    def _draw_inputs(self, scale: float) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield q, k, v (length, dim) in double precision, so that the error is that of the method, not of rounding."""
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(self.n_draws):
            q, k, v = torch.randn(3, self.length, self.dim, generator=generator, dtype=torch.float64)
            yield scale * q / q.norm(dim=1, keepdim=True), scale * k / k.norm(dim=1, keepdim=True), v

    def _build_attentions(self) -> dict[str, Attend]:
        """Build what is compared, by name: each order of the series, then the mechanisms."""
        attentions: dict[str, Attend] = {}
        for terms in self.terms:
            attentions[f"mclaurin_{terms}"] = partial(mclaurin_attention, terms=terms)
        with torch.random.fork_rng():  # the same directions and projections at each norm
            torch.manual_seed(self.seed)
            for name, build in self.mechanisms.items():
                attentions[name] = build(head_dim=self.dim, length=self.length, causal=False).double()
        return attentions

    @torch.no_grad()
    def _measure_error(self, name: str, scale: float, draws: Sequence[tuple[Tensor, ...]], attend: Attend) -> Error:
        """Measure the mean and the largest error of one mechanism at one norm."""
        errors = []
        sizes = []
        refused = 0
        for q, k, v in draws:
            exact = softmax_attention(q, k, v)
            try:
                errors.append((attend(q, k, v) - exact).abs())
            except ValueError:
                refused += 1
                continue
            sizes.append(exact.abs().mean())
        row: Error = {
            "mechanism": name,
            "scale": scale,
            "refused": refused,
            "mean_error": None,
            "max_error": None,
            "relative_error": None,
        }
        if not refused:
            mean = float(torch.stack(errors).mean())
            row["mean_error"] = mean
            row["max_error"] = float(torch.stack(errors).max())
            row["relative_error"] = mean / float(torch.stack(sizes).mean())
        return row

    def _count_signs(self, terms: int, scale: float, draws: Sequence[tuple[Tensor, ...]]) -> Row:
        """Return the share of pairs whose series is not above 0, and the share of queries whose sum of it is not."""
        weights = torch.stack([truncated_exponential(q @ k.mT, terms) for q, k, _ in draws])
        return {
            "terms": terms,
            "scale": scale,
            "pairs_not_positive": float((weights <= 0).double().mean()),
            "normalisers_not_positive": float((weights.sum(dim=-1) <= 0).double().mean()),
            "causal_normalisers_not_positive": float((weights.tril().sum(dim=-1) <= 0).double().mean()),
        }

    def _draw(self, rows: Sequence[Error]) -> Figure:
        title = f"Error against softmax attention (length {self.length}, dim {self.dim})"
        figure = plots.log_lines(
            rows, "scale", "relative_error", "mechanism", title, ("norm of q and k", "mean |Z - Ẑ| / mean |Z|")
        )
        figure.axes[0].axhline(self.useful, color="#999999", lw=1, ls=":")
        figure.axes[0].set_ylim(bottom=1e-6)  # rounding lies below
        return figure

    def _find_useful_scales(self, rows: Sequence[Error]) -> Metrics:
        metrics: Metrics = {}
        for name in dict.fromkeys(row["mechanism"] for row in rows):
            metrics[f"useful_scale/{name}"] = self._find_useful_scale([r for r in rows if r["mechanism"] == name])
        return metrics

    def _find_useful_scale(self, rows: Sequence[Error]) -> float:
        """Return the largest norm up to which one mechanism is useful; 0 if it is not useful at the smallest."""
        largest = 0.0
        for row in sorted(rows, key=lambda row: row["scale"]):
            if row["relative_error"] is None or row["relative_error"] >= self.useful:
                break
            largest = float(row["scale"])
        return largest

    def _check_features(self) -> Metrics:
        """Return the sizes of the three-term map, and how far its products are from the series (by rounding alone)."""
        generator = torch.Generator().manual_seed(self.seed)
        q, k = torch.randn(2, 1000, 5, generator=generator, dtype=torch.float64)
        products = (mclaurin_features(q) * mclaurin_features(k)).sum(dim=1)
        difference = (products - truncated_exponential((q * k).sum(dim=1), 3)).abs().max()
        counts = {f"n_features/dim_{dim}": float(n_mclaurin_features(dim, 3)) for dim in FEATURE_DIMS}
        return {**counts, "identity_error": float(difference)}


def _relative_errors(rows: Sequence[Error]) -> Metrics:
    """Return the relative error of each mechanism that refused no draw, as metrics."""
    metrics: Metrics = {}
    for row in rows:
        if row["relative_error"] is not None:
            metrics[f"relative_error/{row['mechanism']}"] = row["relative_error"]
    return metrics
