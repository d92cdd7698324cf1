"""A variational autoencoder: a fit, and views of its code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from dl_lab.datasets.dataset import Dataset
from dl_lab.models.vae import VAE, ConvVAE
from dl_lab.procedures.fit import WithFit
from dl_lab.procedures.rows import Drawn, Row
from dl_lab.runs.recorder import Run
from dl_lab.show import image_plots, plots
from dl_lab.tasks.variational import divergence
from dl_lab.training.learners import GradientLearner
from dl_lab.training.trainer import Trainer
from dl_lab.types import Metrics, Split

COLLAPSED_NATS = 0.01  # a dimension that carries less says nothing about the image


@dataclass
class Latent(WithFit[GradientLearner]):
    """Fit, then draw reconstructions and samples of the prior, and report which dimensions collapsed.

    If the code has two dimensions, also draw the decoder's outputs on a grid over [-extent, extent]² and the means of
    the training images by label. A dimension's KL says whether it collapsed.

    Args:
        dataset: Images.
        learner: How the autoencoder learns.
        trainer: The trainer.
        grid: Points of the grid in each direction.
        extent: Half the side of the grid.
        n_shown: Test images to draw.
    """

    imports = plots.IMPORTS

    dataset: Dataset
    learner: GradientLearner
    trainer: Trainer
    grid: int = 30
    extent: float = 2.0
    n_shown: int = 10

    def __call__(self, run: Run) -> Metrics:
        """Fit and draw; return the metrics of the fit and the number of collapsed dimensions."""
        metrics = self.fit(run)
        model: Any = self.learner.model.cpu().eval()  # a VAE or ConvVAE
        with torch.no_grad():
            rows = measure_dimensions(model, self.dataset.val)
            self._draw_images(run, model)
            if model.latent_dim == 2:
                run.figure("decoder_grid", *draw_grid(model, self.grid, self.extent))
                run.figure("latent", *draw_latent(model, self.dataset.train, self.dataset.class_names))
        run.table("dimensions", rows)
        collapsed = [row["dimension"] for row in rows if row["collapsed"]]
        metrics["collapsed_dimensions"] = float(len(collapsed))
        run.finish(metrics, collapsed=collapsed)
        return metrics

    def _draw_images(self, run: Run, model: VAE | ConvVAE) -> None:
        images = next(self.dataset.test.batches(self.n_shown)).x.cpu()
        means = model.encode(images)[0]
        rebuilt = model.decode(means).sigmoid()
        errors = (rebuilt - images).flatten(1).square().mean(dim=1).tolist()
        figure = image_plots.image_rows({"test": to_arrays(images), "rebuilt": to_arrays(rebuilt)}, "Reconstructions")
        run.figure("reconstructions", figure, [{"image": i, "mse": mse} for i, mse in enumerate(errors)])
        noise = torch.randn(100, model.latent_dim, generator=torch.Generator().manual_seed(0))
        samples = to_arrays(model.decode(noise).sigmoid())
        figure = image_plots.image_grid(samples, 10, f"{len(samples)} random samples: z from N(0, I), decoded")
        run.figure("samples", figure, [{f"z{d}": v for d, v in enumerate(z)} for z in noise.tolist()])


class Dimension(TypedDict):
    """A row about a latent dimension: its KL in nats per image, the variance of its means, whether it collapsed."""

    dimension: int
    kl_nats: float
    variance_of_means: float
    collapsed: bool


def measure_dimensions(model: VAE | ConvVAE, split: Split) -> list[Dimension]:
    """Return a row for each latent dimension, measured on a split."""
    codes = [model.encode(batch.x.cpu()) for batch in split.batches(1024)]
    mean, log_variance = (torch.cat(parts) for parts in zip(*codes, strict=True))
    kl = divergence(mean, log_variance).mean(dim=0)
    spread = mean.var(dim=0)
    return [
        {
            "dimension": i,
            "kl_nats": float(k),
            "variance_of_means": float(s),
            "collapsed": bool(k < COLLAPSED_NATS),
        }
        for i, (k, s) in enumerate(zip(kl, spread, strict=True))
    ]


def draw_grid(model: VAE | ConvVAE, n: int, extent: float) -> Drawn:
    """Draw n x n decoded points of the plane over [-extent, extent]² in one image; z1 to the right, z2 upwards."""
    axis_values = torch.linspace(-extent, extent, n)
    z2, z1 = torch.meshgrid(axis_values.flip(0), axis_values, indexing="ij")
    points = torch.stack([z1, z2], dim=-1).view(-1, 2)
    images = model.decode(points).sigmoid()[:, 0]  # (n * n, height, width)
    height, width = images.shape[1:]
    sheet = images.view(n, n, height, width).transpose(1, 2).reshape(n * height, n * width)
    figure, axis = plots.axes("Decoded plane", "z1", "z2", size=(7, 7))
    axis.imshow(sheet.numpy(), cmap="gray", vmin=0, vmax=1, extent=(-extent, extent, -extent, extent))
    rows: list[Row] = []
    for (a, b), image in zip(points.tolist(), images, strict=True):
        rows.append({"z1": a, "z2": b, "mean_pixel": float(image.mean())})
    return figure, rows


def draw_latent(model: VAE | ConvVAE, split: Split, names: tuple[str, ...]) -> Drawn:
    """Draw the means of all images of a split in the colours of their labels.

    Args:
        model: A model with two latent dimensions.
        split: The images.
        names: Names of the labels.
    """
    batches = [(model.encode(batch.x.cpu())[0], batch.y.cpu()) for batch in split.batches(1024)]
    means, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    from matplotlib.colors import ListedColormap

    figure, axis = plots.axes(f"Means of {len(means):,} training images", "z1", "z2", size=(7, 6))
    dots = axis.scatter(
        *means.T.tolist(), c=labels.tolist(), s=1, cmap=ListedColormap(plots.CLASS_COLOURS), vmin=-0.5, vmax=9.5, lw=0
    )
    bar = figure.colorbar(dots, ax=axis, ticks=range(len(names)))
    bar.set_ticklabels(list(names))
    low = means.quantile(0.002, dim=0)
    high = means.quantile(0.998, dim=0)
    axis.set_xlim(float(low[0]) - 0.3, float(high[0]) + 0.3)
    axis.set_ylim(float(low[1]) - 0.3, float(high[1]) + 0.3)
    rows: list[Row] = []
    for (a, b), label in zip(means.tolist(), labels.tolist(), strict=True):
        rows.append({"z1": round(a, 4), "z2": round(b, 4), "label": label})
    return figure, rows


def to_arrays(images: Tensor) -> list[np.ndarray]:
    """Return images (n, 1, height, width) as n arrays (height, width)."""
    return list(images[:, 0].numpy())
