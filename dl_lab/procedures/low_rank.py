"""Low-rank reconstruction: the best linear code of every size, from streamed second moments.

The right singular vectors of X are the eigenvectors of C = X'X. C is a sum over images, so memory does not grow with
their number. About the mean the vectors are the principal components (Eckart and Young 1936), which bound any linear
autoencoder with biases.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dl_lab.datasets.dataset import Dataset
from dl_lab.procedures.protocol import Procedure
from dl_lab.procedures.rows import Row
from dl_lab.procedures.steps import steps
from dl_lab.runs.recorder import Run
from dl_lab.show import image_plots, plots
from dl_lab.types import Metrics, Split


@dataclass
class Basis:
    """An orthonormal basis, the most important vectors first; all float64.

    Attributes:
        mean: What is subtracted before the projection, (features,).
        vectors: The basis vectors as columns, (features, features).
        values: The eigenvalues, (features,).
    """

    mean: Tensor
    vectors: Tensor
    values: Tensor

    def project(self, x: Tensor, rank: int) -> Tensor:
        """Project x (n, features) on the first `rank` vectors."""
        kept = self.vectors[:, :rank]
        return (x - self.mean) @ kept @ kept.T + self.mean


def fit_basis(batches: Iterator[Tensor], centred: bool) -> Basis:
    """Fit a basis in one pass and constant memory.

    Args:
        batches: Batches (n, features).
        centred: Whether the mean is subtracted (PCA) or not (SVD).

    Raises:
        ValueError: There is no image.
    """
    count = 0
    total = torch.zeros(())
    moment = torch.zeros(())
    for batch in batches:
        x = batch.double()
        count += len(x)
        total = total + x.sum(dim=0)
        moment = moment + x.T @ x
    if count == 0:
        raise ValueError("there is no image to fit a basis to")
    mean = total / count if centred else torch.zeros_like(total)
    values, vectors = torch.linalg.eigh(moment / count - torch.outer(mean, mean))
    return Basis(mean, vectors.flip(1), values.flip(0))


@dataclass
class Energies:
    """Sums over a split from which the error of every rank follows.

    x are clean and y noisy images about the mean of the basis; c and d are their coefficients.

    Attributes:
        total: Sum of x'x, a scalar.
        cross: Sums of c d, (features,).
        noisy: Sums of d², (features,).
        count: Number of images.
    """

    total: Tensor
    cross: Tensor
    noisy: Tensor
    count: int

    def errors(self) -> Tensor:
        """Return the mean squared error per pixel of rebuilding x from y, for ranks 0 to features: (features + 1,)."""
        gain = torch.cat([torch.zeros(1, dtype=torch.float64), (2 * self.cross - self.noisy).cumsum(0)])
        return (self.total - gain).clamp(min=0) / (self.count * len(self.cross))


def sum_energies(basis: Basis, pairs: Iterator[tuple[Tensor, Tensor]]) -> Energies:
    """Add up the energies of a split.

    Args:
        basis: The basis.
        pairs: Batches of clean and noisy images, (n, features) each.
    """
    total = torch.zeros(())
    cross = torch.zeros(())
    noisy = torch.zeros(())
    count = 0
    for clean, corrupted in pairs:
        x = clean.double() - basis.mean
        c = x @ basis.vectors
        d = c if corrupted is clean else (corrupted.double() - basis.mean) @ basis.vectors
        total = total + x.square().sum()
        cross = cross + (c * d).sum(dim=0)
        noisy = noisy + d.square().sum(dim=0)
        count += len(x)
    return Energies(total, cross, noisy, count)


@dataclass
class LowRank(Procedure):
    """Measure the reconstruction error at every rank, without centring (svd) and about the mean (pca).

    A basis is fitted to the clean training images. Clean and noisy images are reconstructed.

    Args:
        dataset: Images.
        ranks: The ranks that are reported and drawn.
        noise: Standard deviation of the Gaussian noise; noisy images are cut to [0, 1].
        n_shown: Test images to draw.
    """

    imports = plots.IMPORTS

    dataset: Dataset
    ranks: Sequence[int] = (128, 256)
    noise: float = 0.1
    n_shown: int = 10

    def __call__(self, run: Run) -> Metrics:
        """Fit the bases, and return the errors at the chosen ranks.

        Raises:
            ValueError: A rank is not between 1 and the number of pixels.
        """
        splits = {name: getattr(self.dataset, name) for name in ("train", "val", "test")}
        bases: dict[str, Basis] = {}
        curves: dict[str, Tensor] = {}
        todo = [(method, part) for method in ("svd", "pca") for part in ("basis", *splits, "denoising")]
        for method, part in steps(run, todo, "codes of every rank"):
            if part == "basis":
                bases[method] = fit_basis(flatten(splits["train"]), centred=method == "pca")
            elif part == "denoising":
                noisy = sum_energies(bases[method], self._add_noise(splits["test"]))
                curves[f"test/{method}_denoising"] = noisy.errors()
            else:
                clean = sum_energies(bases[method], ((x, x) for x in flatten(splits[part])))
                curves[f"{part}/{method}"] = clean.errors()
        n_features = len(bases["svd"].mean)
        wrong = [rank for rank in self.ranks if not 0 < rank <= n_features]
        if wrong:
            raise ValueError(f"rank {wrong[0]} is not between 1 and the {n_features} pixels")
        metrics = {f"{name}_{rank}": float(curve[rank]) for name, curve in curves.items() for rank in self.ranks}
        self._draw(run, bases["svd"], curves)
        run.finish(metrics, dataset=self.dataset.summary())
        return metrics

    def _add_noise(self, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of clean and noisy images."""
        generator = torch.Generator().manual_seed(0)
        for x in flatten(split):
            yield x, (x + self.noise * torch.randn(x.shape, generator=generator)).clamp(0, 1)

    def _draw(self, run: Run, basis: Basis, curves: dict[str, Tensor]) -> None:
        images = spread(self.dataset.test, self.n_shown)
        clean = images.flatten(1)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        noisy = (clean + self.noise * noise).clamp(0, 1)
        shown = {"test": clean, "noisy": noisy}
        shown |= {f"rank {rank}": basis.project(noisy.double(), rank) for rank in self.ranks}
        pictures = {name: list(part.view(-1, *images.shape[-2:]).numpy()) for name, part in shown.items()}
        rows: list[Row] = []
        for i in range(len(clean)):
            errors = {name: float((part[i] - clean[i]).square().mean()) for name, part in shown.items()}
            rows.append({"image": i, **errors})
        run.figure("reconstructions", image_plots.image_rows(pictures, "Noisy images at low rank"), rows)
        names = ["test/svd", "test/pca", "test/svd_denoising"]
        table = [{"rank": r, **{n: float(curves[n][r]) for n in names}} for r in range(1, len(curves[names[0]]))]
        figure = plots.curves(table, x="rank", title="Mean squared error by rank")
        figure.axes[0].set_yscale("log")
        figure.axes[0].set_ylim(bottom=1e-5)
        run.figure("ranks", figure, table)


def flatten(split: Split, batch_size: int = 2048) -> Iterator[Tensor]:
    """Yield the inputs of a split in batches (n, features)."""
    for batch in split.batches(batch_size):
        yield batch.x.flatten(1).cpu()


def spread(split: Split, n: int) -> Tensor:
    """Return n inputs from all over a split, which may be sorted by class."""
    parts = split.batches(max(len(split) // n, 1))
    return torch.cat([batch.x[:1].cpu() for batch in parts])[:n]


# -- autoencoders and their bound ---------------------------------------------------------------------------------


def bound_errors(dataset: Dataset, rank: int) -> Metrics:
    """Return the errors of the clean splits at one rank.

    No linear autoencoder with a code of that size has a smaller error on the training split.
    """
    metrics = {}
    for method, centred in (("svd", False), ("pca", True)):
        basis = fit_basis(flatten(dataset.train), centred)
        for name in ("train", "val", "test"):
            errors = sum_energies(basis, ((x, x) for x in flatten(getattr(dataset, name)))).errors()
            metrics[f"{name}/{method}_{rank}"] = float(errors[rank])
    return metrics
