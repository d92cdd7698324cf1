"""Dogs, food and vehicles: 30,000 photographs at 64x64 in three classes of 10,000, or a stand-in made of CIFAR-10.

The set is handed out by a course (Buffalo, CSE 676) and not public. Where its folder is absent, as many images of one
CIFAR-10 class for each of the three take its place: another problem of the same shape, labelled so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from dl_lab.datasets.augmentation import Step
from dl_lab.datasets.batches import Residence
from dl_lab.datasets.image_folder import image_folder
from dl_lab.datasets.images import Source, labelled_images
from dl_lab.types import Dataset, UserError

CLASS_NAMES = ("dogs", "food", "vehicles")
N_OFFICIAL = 30_000
ENLARGED_AT_ONCE = 4096


def dogs_food_vehicles(
    folder: str,
    input_shape: Sequence[int],
    n_classes: int,
    splits: Mapping[str, float],
    data_dir: str,
    cache_dir: str,
    stand_in: Callable[[], Dataset],
    stand_in_classes: Sequence[str],
    files: Sequence[Mapping[str, Any]] = (),
    source: Source = "real",
    split_seed: int = 42,
    n_per_class: int | None = None,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    augment: Mapping[str, Step | None] | None = None,
    n_generated: int = 256,
    residence: Residence = "auto",
    workers: int = 2,
) -> Dataset:
    """The course's folder with dogs/, food/ and vehicles/, all three splits drawn from each class by split_seed.

    stand_in: a function that builds CIFAR-10 in colour; stand_in_classes: its class for each of the three. Its images
    are enlarged to input_shape (bilinear). The other arguments are those of image_folder.
    Raises UserError where neither is there.
    """
    how = {"mean": mean, "std": std, "augment": augment, "residence": residence, "workers": workers}
    if source == "generated" or (Path(data_dir).expanduser() / folder).is_dir():
        return image_folder(
            folder, input_shape, n_classes, splits, data_dir, cache_dir, name="dogs_food_vehicles", source=source,
            class_names=CLASS_NAMES, split_seed=split_seed, n_per_class=n_per_class, n_official=N_OFFICIAL,
            n_generated=n_generated, **how,
        )  # fmt: skip
    if len(stand_in_classes) != n_classes:
        raise ValueError(f"stand_in_classes names {len(stand_in_classes)} classes, but n_classes is {n_classes}")
    try:
        cifar = stand_in()
    except UserError as error:
        raise UserError(
            f"There is no folder {Path(data_dir) / folder} (the course's own images), and CIFAR-10, which would stand "
            f"in for them, cannot be had: {error}"
        ) from error
    note = f"stand-in: CIFAR-10's {', '.join(stand_in_classes)} enlarged to {input_shape[1]}x{input_shape[2]}"
    note += f", {n_per_class:,} of each" if n_per_class else ""
    note += f"; {cifar.note}" if cifar.note else ""
    return labelled_images(
        "dogs_food_vehicles",
        _stand_in(cifar, stand_in_classes, input_shape, splits, split_seed, n_per_class),
        "part",
        input_shape=input_shape,
        n_classes=n_classes,
        divisor=255,
        class_names=tuple(stand_in_classes),
        note=note,
        **how,
    )


def _stand_in(
    cifar: Dataset,
    classes: Sequence[str],
    input_shape: Sequence[int],
    splits: Mapping[str, float],
    split_seed: int,
    n_per_class: int | None,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """As many of each class as the smallest has, of all 60,000 images; each split in an order drawn by split_seed."""
    unknown = [name for name in classes if name not in cifar.class_names]
    if unknown:
        raise ValueError(f"stand_in_classes: CIFAR-10 has no class {unknown[0]!r}, only {', '.join(cifar.class_names)}")
    parts: list[Any] = [getattr(split, "columns") for split in (cifar.train, cifar.val, cifar.test)]  # noqa: B009
    images, labels = torch.cat([part.x for part in parts]), torch.cat([part.y for part in parts])
    rng = np.random.default_rng(split_seed)
    own = [rng.permutation(torch.nonzero(labels == cifar.class_names.index(name))[:, 0].numpy()) for name in classes]
    n = min(*map(len, own), n_per_class or len(images))
    ends = [round(n * splits["train"]), round(n * (splits["train"] + splits["val"]))]
    arrays = {}
    for split, chosen in zip(
        ("train", "val", "test"), zip(*[np.split(o[:n], ends) for o in own], strict=True), strict=True
    ):
        rows, targets = np.concatenate(chosen), np.repeat(np.arange(len(classes)), [len(c) for c in chosen])
        order = rng.permutation(len(rows))
        arrays[split] = _enlarged(images[torch.from_numpy(rows[order])], input_shape), targets[order]
    return arrays


def _enlarged(images: torch.Tensor, input_shape: Sequence[int]) -> np.ndarray:
    """uint8 (n, 3, h, w) -> (n, *input_shape), bilinear."""
    size = list(input_shape[1:])
    parts = [
        F.interpolate(part.float(), size=size, mode="bilinear", antialias=True).round_().clamp_(0, 255).byte()
        for part in images.split(ENLARGED_AT_ONCE)
    ]
    return torch.cat(parts).numpy()
