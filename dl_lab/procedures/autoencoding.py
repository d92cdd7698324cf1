"""An autoencoder of images: a fit, its pictures, and a comparison with the linear code of the same size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from dl_lab.datasets.dataset import Dataset
from dl_lab.procedures.fit import WithFit
from dl_lab.procedures.low_rank import bound_errors, spread
from dl_lab.procedures.rows import Row
from dl_lab.runs.recorder import Run
from dl_lab.show import image_plots, plots
from dl_lab.training.learners import GradientLearner
from dl_lab.training.trainer import Trainer
from dl_lab.types import Metrics


@dataclass
class Autoencoding(WithFit[GradientLearner]):
    """Fit, then draw test images, the same images with the task's noise (if any), and their reconstructions.

    Args:
        dataset: Images.
        learner: How the autoencoder learns.
        trainer: The trainer.
        n_shown: Test images to draw.
        compare: Whether to report the errors of SVD and PCA with as many numbers as the model's `code_size`. They bound
            the errors of a linear autoencoder on the clean images.
    """

    imports = plots.IMPORTS

    dataset: Dataset
    learner: GradientLearner
    trainer: Trainer
    n_shown: int = 10
    compare: bool = True

    def __call__(self, run: Run) -> Metrics:
        """Fit, draw, compare; return the metrics of the fit and of the linear codes."""
        metrics = self.fit(run)
        self._draw(run)
        if self.compare:
            model: Any = self.learner.model  # an Autoencoder, or a user's model with a code_size
            metrics |= bound_errors(self.dataset, model.code_size)
        run.finish(metrics)
        return metrics

    @torch.no_grad()
    def _draw(self, run: Run) -> None:
        task: Any = self.learner.task  # a Reconstruction, or a user's task with add_noise
        model = self.learner.model.cpu().eval()
        clean = spread(self.dataset.test, self.n_shown)
        noisy = task.add_noise(clean, torch.Generator().manual_seed(0))
        shown = {"test": clean}
        if noisy is not clean:
            shown["noisy"] = noisy
        shown["rebuilt"] = model(noisy)
        pictures = {name: list(part[:, 0].numpy()) for name, part in shown.items()}
        rows: list[Row] = []
        for i in range(len(clean)):
            errors = {name: float((part[i] - clean[i]).square().mean()) for name, part in shown.items()}
            rows.append({"image": i, **errors})
        run.figure("reconstructions", image_plots.image_rows(pictures, "Reconstructions"), rows)
