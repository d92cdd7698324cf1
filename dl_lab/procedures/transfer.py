"""Transfer learning: take a net that was trained elsewhere, and train its head (or all of it) on our classes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from dl_lab.datasets.batches import TensorSplit, fingerprint
from dl_lab.datasets.cache import Writer, key_of, load_or_fill
from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.progress import show_progress
from dl_lab.models.pretrained import Pretrained
from dl_lab.procedures.fit import WithFit
from dl_lab.runs.recorder import Run
from dl_lab.training.backbones import read_backbone
from dl_lab.training.devices import choose_device
from dl_lab.training.learners import GradientLearner
from dl_lab.training.trainer import Trainer
from dl_lab.types import LabelledBatch, Metrics, UserError


@dataclass
class Transfer(WithFit[GradientLearner]):
    """Load the weights of the backbone, then fit.

    An image has the same features in every epoch if the net is frozen, batch normalisation is in evaluation mode and
    there is no augmentation. The features are then computed once and kept in a cache by their content, so that an epoch
    costs the head alone. The run's summary names the weights.

    Args:
        dataset: Images.
        learner: How the model learns; its model must be a `Pretrained`.
        trainer: The trainer.
        weights: "imagenet", another of torchvision's names, a file, or "random" (see `read_backbone`).
        weights_dir: The folder with downloaded weights.
        cache_dir: The folder with the cache.
        checksum: Checksum of a file of the user's own.
        cache_features: Whether features are kept; False computes them in every epoch.
        feature_batch: Images whose features are computed at a time.
    """

    dataset: Dataset
    learner: GradientLearner
    trainer: Trainer
    weights: str
    weights_dir: str
    cache_dir: str
    checksum: str = ""
    cache_features: bool = True
    feature_batch: int = 64

    def __post_init__(self) -> None:
        """Raise ValueError if the model is not a `Pretrained`."""
        if not isinstance(self.learner.model, Pretrained):
            raise ValueError(
                f"the procedure transfer needs a Pretrained model, not {type(self.learner.model).__name__}"
            )
        self.model: Pretrained = self.learner.model

    def __call__(self, run: Run) -> Metrics:
        """Load the weights and fit; return the metrics.

        Raises:
            UserError: The weights cannot be found or downloaded, or belong to another net.
        """
        source = "random"
        if self.weights != "random":
            folder = Path(self.weights_dir)
            weights, source = read_backbone(self.model.architecture, self.weights, folder, self.checksum)
            try:
                self.model.load_backbone(weights)
            except ValueError as error:
                raise UserError(f"{source.partition(' ')[0]}: {error}.") from error
        run.summary |= {"backbone": {"architecture": self.model.architecture, "weights": source}}
        if self.cache_features and self.model.has_fixed_features and not _is_augmented(self.dataset):
            self.learner.narrow(self.model.head)
            return self.trainer.fit(self.learner, self._replace_images(), run)
        return self.fit(run)

    # -- features ---------------------------------------------------------------------------------------------

    def _replace_images(self) -> Dataset:
        """Return the data set with features in place of images."""
        first = [next(iter(split.batches(2))).x for split in _splits(self.dataset).values()]
        net = list(self.model.net.state_dict().values())
        sizes = f"{self.model.architecture} {self.model.resize} {self.model.crop}"
        key = key_of(fingerprint(*first, *net), sizes, self.dataset.fingerprint)
        entry = load_or_fill(self.cache_dir, "features", key, self._fill_cache)
        features = {name: torch.from_numpy(values) for name, values in entry.arrays.items()}
        splits = {}
        for name, split in _splits(self.dataset).items():
            columns = LabelledBatch(features[name], split.columns.y)
            splits[name] = replace(split, columns=columns, transform=_keep)
        return replace(self.dataset, **splits, images=self.dataset)

    def _fill_cache(self, writer: Writer) -> None:
        """Compute the features of every image of every split."""
        device = choose_device(self.trainer.device)
        self.model.to(device).eval()
        with torch.no_grad():
            for name, split in _splits(self.dataset).items():
                batches = show_progress(
                    split.to(device).batches(self.feature_batch),
                    split.n_batches(self.feature_batch),
                    f"features of {len(split):,} {name} images",
                )
                features = torch.cat([self.model.features(batch.x).float().cpu() for batch in batches])
                writer.save(name, features.numpy())


def _keep(batch: LabelledBatch) -> LabelledBatch:
    return batch


def _splits(dataset: Dataset) -> dict[str, TensorSplit]:
    """Return the splits by name, which must be held as tensors."""
    splits: dict[str, TensorSplit] = {}
    for name, split in (("train", dataset.train), ("val", dataset.val), ("test", dataset.test)):
        if not isinstance(split, TensorSplit):
            raise UserError(
                "Features can be kept only for a data set that is held as tensors: use procedure.cache_features=false."
            )
        splits[name] = split
    return splits


def _is_augmented(dataset: Dataset) -> bool:
    """Return whether training images are augmented, so that they differ from epoch to epoch."""
    return getattr(dataset.train, "n_draws", 0) > 0
