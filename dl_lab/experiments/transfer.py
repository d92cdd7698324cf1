"""Transfer learning: a net that others trained, its head (or all of it) trained on our classes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from dl_lab.datasets.batches import TensorSplit, fingerprint
from dl_lab.datasets.progress import shown
from dl_lab.experiments.fit import Fit
from dl_lab.models.pretrained import Pretrained
from dl_lab.run import Run
from dl_lab.training.backbones import read_backbone
from dl_lab.training.checkpoints import load_weights, save_weights
from dl_lab.training.learners import GradientLearner
from dl_lab.training.trainer import choose_device
from dl_lab.types import Dataset, LabelledBatch, Metrics, UserError


@dataclass
class Transfer(Fit[GradientLearner]):
    """Load the backbone's weights, then fit.

    weights: "imagenet", another of torchvision's names, a file, or "random" (see read_backbone); weights_dir: where
    they are looked for and fetched to; checksum: of a file of one's own. Where an image has the same features in every
    epoch (a frozen net, batch normalisation in evaluation mode, no augmentation), they are computed once,
    `feature_batch` images at a time, and kept under cache_dir by content; an epoch then costs the head alone.
    cache_features: false computes them in every epoch all the same. The summary says which weights they were.
    Raises UserError for weights that cannot be had or are another net's, and for a model that is no Pretrained.
    """

    weights: str
    weights_dir: str
    cache_dir: str
    checksum: str = ""
    cache_features: bool = True
    feature_batch: int = 64

    def __post_init__(self) -> None:
        if not isinstance(self.learner.model, Pretrained):
            raise ValueError(
                f"the procedure transfer needs a Pretrained model, not {type(self.learner.model).__name__}"
            )
        self.model: Pretrained = self.learner.model

    def __call__(self, run: Run) -> Metrics:
        about = "random"
        if self.weights != "random":
            weights, about = read_backbone(self.model.architecture, self.weights, Path(self.weights_dir), self.checksum)
            try:
                self.model.load_backbone(weights)
            except ValueError as error:
                raise UserError(f"{about.partition(' ')[0]}: {error}.") from error
        run.summary |= {"backbone": {"architecture": self.model.architecture, "weights": about}}
        if self.cache_features and self.model.has_fixed_features and not _draws(self.dataset):
            self.learner.narrow(self.model.head)
            return self.trainer.fit(self.learner, self._featured(), run)
        return super().__call__(run)

    # -- features ---------------------------------------------------------------------------------------------

    def _featured(self) -> Dataset:
        """The data set with features in place of images; the images are in its extras."""
        first = [next(iter(split.batches(2))).x for split in _splits(self.dataset).values()]
        net = list(self.model.net.state_dict().values())
        sized = f"{self.model.architecture} {self.model.resize} {self.model.crop}"
        key = fingerprint(*first, *net, torch.tensor([ord(c) for c in sized + self.dataset.fingerprint]))
        path = Path(self.cache_dir).expanduser() / f"features_{key}.safetensors"
        features = load_weights(path) if path.exists() else self._computed(path)
        splits = {
            name: replace(split, columns=LabelledBatch(features[name], split.columns.y), transform=_as_it_is)
            for name, split in _splits(self.dataset).items()
        }
        return replace(self.dataset, **splits, extras={**self.dataset.extras, "images": self.dataset})

    def _computed(self, path: Path) -> dict[str, Tensor]:
        device = choose_device(self.trainer.device)
        self.model.to(device).eval()
        features: dict[str, Tensor] = {}
        with torch.no_grad():
            for name, split in _splits(self.dataset).items():
                batches = shown(
                    split.to(device).batches(self.feature_batch),
                    split.n_batches(self.feature_batch),
                    f"features of {len(split):,} {name} images",
                )
                features[name] = torch.cat([self.model.features(batch.x).float().cpu() for batch in batches])
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"Cannot create the cache folder {path.parent}: {error.strerror}.") from error
        save_weights(path, features, {"architecture": self.model.architecture})
        return features


def _as_it_is(batch: LabelledBatch) -> LabelledBatch:
    return batch


def _splits(dataset: Dataset) -> dict[str, TensorSplit]:
    splits = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    if not all(isinstance(split, TensorSplit) for split in splits.values()):
        raise UserError("Features are kept of data sets held as tensors: use procedure.cache_features=false.")
    return splits  # pyright: ignore[reportReturnType]


def _draws(dataset: Dataset) -> bool:
    return getattr(dataset.train, "n_draws", 0) > 0
