"""A variational autoencoder: a fit, and views of what it learned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dl_lab import plots
from dl_lab.experiments.fit import Fit
from dl_lab.models.vae import VAE, ConvVAE
from dl_lab.run import Run
from dl_lab.tasks.variational import divergence
from dl_lab.training.learners import GradientLearner
from dl_lab.types import Metrics, Split

COLLAPSED_NATS = 0.01  # a dimension that carries less tells nothing about the image


@dataclass
class Latent(Fit[GradientLearner]):
    """Fit, then draw reconstructions and samples of the prior.

    Where the code is two-dimensional also the decoder's grid over [-extent, extent]² and the training images'
    means by label. The KL of each dimension says which of them collapsed.
    """

    grid: int = 30
    extent: float = 2.0
    n_shown: int = 10

    def __call__(self, run: Run) -> Metrics:
        metrics = super().__call__(run)
        model: Any = self.learner.model.cpu().eval()
        with torch.no_grad():
            rows = dimensions(model, self.dataset.val)
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
        figure = plots.image_rows({"test": plain(images), "rebuilt": plain(rebuilt)}, "Reconstructions")
        run.figure("reconstructions", figure, [{"image": i, "mse": mse} for i, mse in enumerate(errors)])
        noise = torch.randn(100, model.latent_dim, generator=torch.Generator().manual_seed(0))
        samples = plain(model.decode(noise).sigmoid())
        lines = {str(i): samples[10 * i : 10 * i + 10] for i in range(10)}
        figure = plots.image_rows(lines, "Samples: z from N(0, 1), decoded")
        run.figure("samples", figure, [{f"z{d}": v for d, v in enumerate(z)} for z in noise.tolist()])


def dimensions(model: VAE | ConvVAE, split: Split) -> list[dict[str, Any]]:
    """For each latent dimension: its KL in nats per image, its means' spread, and whether it collapsed."""
    codes = [model.encode(batch.x.cpu()) for batch in split.batches(1024)]
    mean, log_variance = (torch.cat(parts) for parts in zip(*codes, strict=True))
    kl, spread = divergence(mean, log_variance).mean(dim=0), mean.var(dim=0)
    return [
        {
            "dimension": i,
            "kl_nats": float(k),
            "variance_of_means": float(s),
            "collapsed": bool(k < COLLAPSED_NATS),
        }
        for i, (k, s) in enumerate(zip(kl, spread, strict=True))
    ]


def draw_grid(model: VAE | ConvVAE, n: int, extent: float) -> tuple[Any, list[dict[str, Any]]]:
    """n x n decoded points of the plane in one image; z1 to the right, z2 upwards."""
    axis_values = torch.linspace(-extent, extent, n)
    z2, z1 = torch.meshgrid(axis_values.flip(0), axis_values, indexing="ij")
    points = torch.stack([z1, z2], dim=-1).view(-1, 2)
    images = model.decode(points).sigmoid()[:, 0]  # (n * n, height, width)
    height, width = images.shape[1:]
    sheet = images.view(n, n, height, width).transpose(1, 2).reshape(n * height, n * width)
    figure, axis = plots.axes("Decoded plane", "z1", "z2", size=(7, 7))
    axis.imshow(sheet.numpy(), cmap="gray", vmin=0, vmax=1, extent=(-extent, extent, -extent, extent))
    rows = [
        {"z1": a, "z2": b, "mean_pixel": float(image.mean())}
        for (a, b), image in zip(points.tolist(), images, strict=True)
    ]
    return figure, rows


def draw_latent(model: VAE | ConvVAE, split: Split, names: tuple[str, ...]) -> tuple[Any, list[dict[str, Any]]]:
    """The means of all images of a split, by label."""
    batches = [(model.encode(batch.x.cpu())[0], batch.y.cpu()) for batch in split.batches(1024)]
    means, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    figure, axis = plots.axes(f"Means of {len(means):,} training images", "z1", "z2", size=(7, 6))
    dots = axis.scatter(*means.T.tolist(), c=labels.tolist(), s=1, cmap="tab10", vmin=-0.5, vmax=9.5, lw=0)
    bar = figure.colorbar(dots, ax=axis, ticks=range(len(names)))
    bar.set_ticklabels(list(names))
    low, high = means.quantile(0.002, dim=0), means.quantile(0.998, dim=0)
    axis.set_xlim(float(low[0]) - 0.3, float(high[0]) + 0.3)
    axis.set_ylim(float(low[1]) - 0.3, float(high[1]) + 0.3)
    rows = [
        {"z1": round(a, 4), "z2": round(b, 4), "label": label}
        for (a, b), label in zip(means.tolist(), labels.tolist(), strict=True)
    ]
    return figure, rows


def plain(images: Tensor) -> list[Any]:
    """(n, 1, height, width) -> arrays (height, width)."""
    return list(images[:, 0].numpy())
