"""How far an attention mechanism is from softmax attention, by the size of q and k and the order of the series."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dl_lab import plots
from dl_lab.models.attention.exact import softmax_attention
from dl_lab.models.attention.features import mclaurin_features, n_mclaurin_features, truncated_exponential
from dl_lab.models.attention.linear import mclaurin_attention
from dl_lab.models.attention.mechanisms import MechanismFactory
from dl_lab.run import Run
from dl_lab.types import Metrics

FEATURE_DIMS = (2, 4, 8, 64)  # the sizes of the coursework's answers


@dataclass
class AttentionError:
    """|Z - Z_hat| over `n_draws` draws of q, k of norm `scale` in random directions and v of normal numbers.

    terms: the orders of the McLaurin series, as many terms each. mechanisms: what else is compared, by name. An
    error counts as useful below `useful` times the mean of |Z|.
    """

    length: int
    dim: int
    scales: Sequence[float]
    terms: Sequence[int]
    mechanisms: Mapping[str, MechanismFactory]
    n_draws: int = 4
    useful: float = 0.1
    seed: int = 0

    def __call__(self, run: Run) -> Metrics:
        rows, signs = [], []
        for step, scale in enumerate(self.scales):
            draws = list(self._draws(scale))
            at_scale = [self._row(name, scale, draws, attend) for name, attend in self._attentions().items()]
            signs += [self._sign_row(terms, scale, draws) for terms in self.terms]
            rows += at_scale
            run.log(
                {f"relative_error/{r['mechanism']}": r["relative_error"] for r in at_scale if r["refused"] == 0},
                step,
                0,
            )
        run.figure("attention_error", self._figure(rows), rows)
        run.table("normaliser", signs)
        return {**self._useful_scales(rows), **self._at_scale(rows, 1.0), **self._features()}

    def _draws(self, scale: float) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """q, k, v (length, dim) in double precision: the error of the method, not of rounding."""
        generator = torch.Generator().manual_seed(self.seed)
        for _ in range(self.n_draws):
            q, k, v = torch.randn(3, self.length, self.dim, generator=generator, dtype=torch.float64)
            yield scale * q / q.norm(dim=1, keepdim=True), scale * k / k.norm(dim=1, keepdim=True), v

    def _attentions(self) -> dict[str, Any]:
        """What is compared, by name: each order of the series, then the mechanisms."""
        series = {f"mclaurin_{terms}": _series(terms) for terms in self.terms}
        with torch.random.fork_rng():  # directions and projections: the same at each scale
            torch.manual_seed(self.seed)
            built = {
                name: build(head_dim=self.dim, length=self.length, causal=False).double()
                for name, build in self.mechanisms.items()
            }
        return {**series, **built}

    @torch.no_grad()
    def _row(self, name: str, scale: float, draws: Sequence[tuple[Tensor, ...]], attend: Any) -> dict[str, Any]:
        """Mean and largest error; refused: draws whose normaliser is not positive everywhere."""
        errors, sizes, refused = [], [], 0
        for q, k, v in draws:
            exact = softmax_attention(q, k, v)
            try:
                errors.append((attend(q, k, v) - exact).abs())
            except ValueError:
                refused += 1
                continue
            sizes.append(exact.abs().mean())
        row = {"mechanism": name, "scale": scale, "refused": refused}
        if refused:
            return {**row, "mean_error": None, "max_error": None, "relative_error": None}
        mean = float(torch.stack(errors).mean())
        return {
            **row,
            "mean_error": mean,
            "max_error": float(torch.stack(errors).max()),
            "relative_error": mean / float(torch.stack(sizes).mean()),
        }

    def _sign_row(self, terms: int, scale: float, draws: Sequence[tuple[Tensor, ...]]) -> dict[str, Any]:
        """The share of pairs, and of queries with and without a causal mask, whose (summed) series is not above 0."""
        weights = torch.stack([truncated_exponential(q @ k.mT, terms) for q, k, _ in draws])
        return {
            "terms": terms,
            "scale": scale,
            "pairs_not_positive": float((weights <= 0).double().mean()),
            "normalisers_not_positive": float((weights.sum(dim=-1) <= 0).double().mean()),
            "causal_normalisers_not_positive": float((weights.tril().sum(dim=-1) <= 0).double().mean()),
        }

    def _figure(self, rows: Sequence[Mapping[str, Any]]) -> Any:
        title = f"Error against softmax attention (length {self.length}, dim {self.dim})"
        figure = plots.log_lines(
            rows, "scale", "relative_error", "mechanism", title, ("norm of q and k", "mean |Z - Ẑ| / mean |Z|")
        )
        figure.axes[0].axhline(self.useful, color="#999999", lw=1, ls=":")
        figure.axes[0].set_ylim(bottom=1e-6)  # below: rounding
        return figure

    def _useful_scales(self, rows: Sequence[Mapping[str, Any]]) -> Metrics:
        """The largest scale up to which the relative error stays below `useful`; 0 where it never is."""
        names = dict.fromkeys(row["mechanism"] for row in rows)
        return {
            f"useful_scale/{name}": self._useful_scale([r for r in rows if r["mechanism"] == name]) for name in names
        }

    def _useful_scale(self, rows: Sequence[Mapping[str, Any]]) -> float:
        largest = 0.0
        for row in sorted(rows, key=lambda row: row["scale"]):
            if row["relative_error"] is None or row["relative_error"] >= self.useful:
                break
            largest = float(row["scale"])
        return largest

    def _at_scale(self, rows: Sequence[Mapping[str, Any]], scale: float) -> Metrics:
        return {
            f"relative_error/{row['mechanism']}": row["relative_error"]
            for row in rows
            if row["scale"] == scale and row["relative_error"] is not None
        }

    def _features(self) -> Metrics:
        """Sizes of the three-term map, and how far its products are from the series (rounding alone)."""
        generator = torch.Generator().manual_seed(self.seed)
        q, k = torch.randn(2, 1000, 5, generator=generator, dtype=torch.float64)
        products = (mclaurin_features(q) * mclaurin_features(k)).sum(dim=1)
        difference = (products - truncated_exponential((q * k).sum(dim=1), 3)).abs().max()
        counts = {f"n_features/dim_{dim}": float(n_mclaurin_features(dim, 3)) for dim in FEATURE_DIMS}
        return {**counts, "identity_error": float(difference)}


def _series(terms: int) -> Any:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return mclaurin_attention(q, k, v, terms=terms)

    return attend
