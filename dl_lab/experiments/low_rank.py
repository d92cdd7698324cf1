"""Low-rank reconstruction: the best linear code of every size, by streaming second moments.

The right singular vectors of X are the eigenvectors of C = X'X, which is a sum over images: memory does not
grow with their number. About the mean they are the principal components (Eckart and Young 1936), the bound of
any linear autoencoder with biases.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dl_lab import plots
from dl_lab.run import Run
from dl_lab.types import Dataset, Metrics, Split


@dataclass
class Basis:
    """Orthonormal columns (features, features), the most important first, about `mean`; all float64."""

    mean: Tensor
    vectors: Tensor
    values: Tensor

    def rebuilt(self, x: Tensor, rank: int) -> Tensor:
        """x (n, features) projected on the first `rank` columns."""
        kept = self.vectors[:, :rank]
        return (x - self.mean) @ kept @ kept.T + self.mean


def fit_basis(batches: Iterator[Tensor], centred: bool) -> Basis:
    """From batches (n, features) of any number, in one pass and constant memory."""
    count, total, moment = 0, torch.zeros(()), torch.zeros(())
    for batch in batches:
        x = batch.double()
        count, total, moment = count + len(x), total + x.sum(dim=0), moment + x.T @ x
    if count == 0:
        raise ValueError("there is no image to find a basis of")
    mean = total / count if centred else torch.zeros_like(total)
    values, vectors = torch.linalg.eigh(moment / count - torch.outer(mean, mean))
    return Basis(mean, vectors.flip(1), values.flip(0))


@dataclass
class Energies:
    """Sums per component over a split, from which the error of every rank follows.

    Of clean x and noisy y about the basis' mean, with their coefficients c and d: sums of x'x, c d and d².
    """

    total: Tensor
    cross: Tensor
    noisy: Tensor
    count: int

    def errors(self) -> Tensor:
        """Mean squared error per pixel of rebuilding x from y, for ranks 0 to features."""
        gain = torch.cat([torch.zeros(1, dtype=torch.float64), (2 * self.cross - self.noisy).cumsum(0)])
        return (self.total - gain).clamp(min=0) / (self.count * len(self.cross))


def energies(basis: Basis, pairs: Iterator[tuple[Tensor, Tensor]]) -> Energies:
    """pairs: batches of (clean, noisy), both (n, features)."""
    total, cross, noisy, count = torch.zeros(()), torch.zeros(()), torch.zeros(()), 0
    for clean, corrupted in pairs:
        x, y = clean.double() - basis.mean, corrupted.double() - basis.mean
        c = x @ basis.vectors
        d = c if corrupted is clean else y @ basis.vectors
        total, cross, noisy = (
            total + x.square().sum(),
            cross + (c * d).sum(dim=0),
            noisy + d.square().sum(dim=0),
        )
        count += len(x)
    return Energies(total, cross, noisy, count)


@dataclass
class LowRank:
    """Reconstruction errors of every rank, without (svd) and about the mean (pca), of clean and of noisy
    images.

    ranks: those that are reported and drawn. noise: deviation of the Gaussian noise, the images are cut to
    [0, 1] after it. A basis comes from the clean training images.
    """

    dataset: Dataset
    ranks: Sequence[int] = (128, 256)
    noise: float = 0.1
    n_shown: int = 10

    def __call__(self, run: Run) -> Metrics:
        splits = {name: getattr(self.dataset, name) for name in ("train", "val", "test")}
        bases = {
            "svd": fit_basis(flat(splits["train"]), False),
            "pca": fit_basis(flat(splits["train"]), True),
        }
        curves: dict[str, Tensor] = {}
        for method, basis in bases.items():
            for name, split in splits.items():
                curves[f"{name}/{method}"] = energies(basis, ((x, x) for x in flat(split))).errors()
            curves[f"test/{method}_denoising"] = energies(basis, self._noisy(splits["test"])).errors()
        n_features = len(bases["svd"].mean)
        wrong = [rank for rank in self.ranks if not 0 < rank <= n_features]
        if wrong:
            raise ValueError(f"rank {wrong[0]} is not between 1 and the {n_features} pixels")
        metrics = {f"{name}_{rank}": float(curve[rank]) for name, curve in curves.items() for rank in self.ranks}
        self._draw(run, bases["svd"], curves)
        run.finish(metrics, dataset=self.dataset.summary())
        return metrics

    def _noisy(self, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        for x in flat(split):
            yield x, (x + self.noise * torch.randn(x.shape, generator=generator)).clamp(0, 1)

    def _draw(self, run: Run, basis: Basis, curves: dict[str, Tensor]) -> None:
        images = spread(self.dataset.test, self.n_shown)
        shape, clean = images.shape[-2:], images.flatten(1)
        drawn = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        noisy = (clean + self.noise * drawn).clamp(0, 1)
        shown = {"test": clean, "noisy": noisy}
        shown |= {f"rank {rank}": basis.rebuilt(noisy.double(), rank) for rank in self.ranks}
        pictures = {name: list(part.view(-1, *shape).numpy()) for name, part in shown.items()}
        rows = [
            {
                "image": i,
                **{name: float((part[i] - clean[i]).square().mean()) for name, part in shown.items()},
            }
            for i in range(len(clean))
        ]
        run.figure("reconstructions", plots.image_rows(pictures, "Noisy images at low rank"), rows)
        names = ["test/svd", "test/pca", "test/svd_denoising"]
        table = [{"rank": r, **{n: float(curves[n][r]) for n in names}} for r in range(1, len(curves[names[0]]))]
        figure = plots.curves(table, x="rank", title="Mean squared error by rank")
        figure.axes[0].set_yscale("log")
        figure.axes[0].set_ylim(bottom=1e-5)
        run.figure("ranks", figure, table)


def flat(split: Split, batch_size: int = 2048) -> Iterator[Tensor]:
    """The inputs of a split in batches (n, features)."""
    for batch in split.batches(batch_size):
        yield batch.x.flatten(1).cpu()


def spread(split: Split, n: int) -> Tensor:
    """n inputs from all over a split, which may be sorted by class."""
    parts = split.batches(max(len(split) // n, 1))
    return torch.cat([batch.x[:1].cpu() for batch in parts])[:n]


# -- autoencoders beside their bound
# ------------------------------------------------------------------------------


def bound(dataset: Dataset, rank: int) -> Metrics:
    """The errors of the clean splits at one rank: no linear autoencoder with that code can do better in
    training.
    """
    metrics = {}
    for method, centred in (("svd", False), ("pca", True)):
        basis = fit_basis(flat(dataset.train), centred)
        for name in ("train", "val", "test"):
            errors = energies(basis, ((x, x) for x in flat(getattr(dataset, name)))).errors()
            metrics[f"{name}/{method}_{rank}"] = float(errors[rank])
    return metrics
