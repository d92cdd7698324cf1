"""An autoencoder of images: a fit, its pictures, and the linear code of the same size beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from dl_lab import plots
from dl_lab.experiments.fit import Fit
from dl_lab.experiments.low_rank import bound, spread
from dl_lab.run import Run
from dl_lab.training.learners import GradientLearner
from dl_lab.types import Metrics


@dataclass
class Autoencoding(Fit[GradientLearner]):
    """Fit, then draw test images over what comes out (with noise in between where the task adds it).

    compare: also report the SVD and PCA of the code's size on the clean images, the bound of a linear
    autoencoder. The model tells its `code_size`.
    """

    n_shown: int = 10
    compare: bool = True

    def __call__(self, run: Run) -> Metrics:
        metrics = super().__call__(run)
        self._draw(run)
        if self.compare:
            model: Any = self.learner.model
            metrics |= bound(self.dataset, model.code_size)
        run.finish(metrics)
        return metrics

    @torch.no_grad()
    def _draw(self, run: Run) -> None:
        task: Any = self.learner.task  # a Reconstruction
        model = self.learner.model.cpu().eval()
        clean = spread(self.dataset.test, self.n_shown)
        noisy = task.noisy(clean, torch.Generator().manual_seed(0))
        rebuilt = model(noisy)
        shown = {"test": clean, **({"noisy": noisy} if noisy is not clean else {}), "rebuilt": rebuilt}
        pictures = {name: list(part[:, 0].numpy()) for name, part in shown.items()}
        rows = [
            {
                "image": i,
                **{name: float((part[i] - clean[i]).square().mean()) for name, part in shown.items()},
            }
            for i in range(len(clean))
        ]
        run.figure("reconstructions", plots.image_rows(pictures, "Reconstructions"), rows)
