"""Classify new images: `dl-lab predict RUN photo.png`, or a folder of images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dl_lab.datasets.images.decoding import Broken, Decoder, Decoding, Resize, Unfit
from dl_lab.datasets.images.labelled import Scaled
from dl_lab.datasets.images.walk import find_images
from dl_lab.procedures.rows import Row
from dl_lab.types import Answer, LabelledBatch, UserError

EXACT = Decoding(resize="none", shorter_side=None, convert=False, background=None, max_value=None, unreadable="error")
AT_ONCE = 64  # images that the model judges together

Classified = tuple[list[int], list[list[float]] | None]  # labels, and each class's share if the model gives shares


@dataclass
class ClassifyImage:
    """Classify an image file, or every image file below a folder, prepared as in training.

    Args:
        model: The run's model: a torch module that gives one score for each class, or a NumPy classifier.
        resize: "none", "stretch" or "crop" (see `Decoding`); None does as in training.
        convert: Whether images of other channels are converted; None does as in training.
        background: The colour behind transparent images; None does as in training.
        max_value: The number that means white in files of more than 8 bits a channel; None does as in training.
        reads_folder: Tells the command that the user may give a folder.
    """

    model: Any  # nn.Module or a NumPy class, which have no type in common
    resize: Resize | None = None
    convert: bool | None = None
    background: str | None = None
    max_value: int | None = None
    reads_folder: bool = True

    @torch.no_grad()
    def __call__(self, path: Path, weights: Mapping[str, Tensor], preprocessing: Mapping[str, Any]) -> Answer:
        """Classify one file, or all image files below a folder in the order of their names.

        Returns:
            A row for each file: its name, its class, and the share of each class if the model gives shares.

        Raises:
            UserError: A file is damaged or does not fit, a folder has no images, or the run tells no classes apart.
        """
        if "white" not in preprocessing:
            raise UserError(
                "This run cannot predict: it has no record of how its images were prepared (preprocessing.json)."
            )
        files = find_images(path).paths if path.is_dir() else [path]
        if not files:
            raise UserError(f"{path} has no images.")
        reader = _Reader(self._choose_decoding(preprocessing), preprocessing)
        names = preprocessing["class_names"] or [str(i) for i in range(preprocessing["n_classes"])]
        classify = self._load_classifier(weights, len(names))
        rows: list[Row] = []
        for start in range(0, len(files), AT_ONCE):
            chosen = files[start : start + AT_ONCE]
            labels, shares = classify(reader.read(chosen))
            for i, file in enumerate(chosen):
                row: Row = {"file": str(file), "label": names[labels[i]]}
                if shares is not None:
                    row |= {f"p({name})": round(share, 4) for name, share in zip(names, shares[i], strict=True)}
                rows.append(row)
        return Answer(rows, reader.notes())

    def _choose_decoding(self, preprocessing: Mapping[str, Any]) -> Decoding:
        """Return the decoding of the training, with the settings that the user overrides."""
        trained = {key: value for key, value in preprocessing.get("decoding", {}).items() if key != "input_shape"}
        how = replace(EXACT, **trained)
        if self.resize is not None and self.resize != how.resize:
            how = replace(how, resize=self.resize, shorter_side=None)
        given = {"convert": self.convert, "background": self.background, "max_value": self.max_value}
        return replace(how, **{key: value for key, value in given.items() if value is not None})

    def _load_classifier(self, weights: Mapping[str, Tensor], n_classes: int) -> Callable[[Tensor], Classified]:
        """Load the weights; return a function that classifies images (n, channels, height, width)."""
        if isinstance(self.model, nn.Module):
            self.model.load_state_dict(dict(weights))
            self.model.eval()
            return lambda x: _classify(self.model, x, n_classes)
        self.model.load_state_dict({name: tensor.numpy() for name, tensor in weights.items()})
        return lambda x: _classify_with_numpy(self.model, x.flatten(1).numpy())


class _Reader:
    """Reads image files as a batch for the model, and counts the changes that the files needed.

    Args:
        how: How a file becomes pixels.
        preprocessing: What the run's data set saved.
    """

    def __init__(self, how: Decoding, preprocessing: Mapping[str, Any]) -> None:
        channels, height, width = preprocessing["input_shape"]
        self.averages = preprocessing["grey"] == "mean" and channels == 1
        if self.averages:  # the channels are averaged after decoding, not weighted as Pillow does
            self.decoder = Decoder((3, height, width), replace(how, convert=True))
        else:
            self.decoder = Decoder((channels, height, width), how)
        self.scale = preprocessing["white"] / 255
        self.prepare = Scaled(
            (channels, height, width),
            preprocessing["divisor"],
            tuple(preprocessing["mean"]),
            tuple(preprocessing["std"]),
        )
        self.changes: Counter[str] = Counter()

    def read(self, files: Sequence[Path]) -> Tensor:
        """Return images (n, channels, height, width), scaled and normalised.

        Raises:
            UserError: A file is damaged or does not fit.
        """
        images = np.stack([self._read_pixels(file) for file in files])
        stored = torch.from_numpy(images) * self.scale
        return self.prepare(LabelledBatch(stored, torch.zeros(len(files), dtype=torch.int64))).x

    def notes(self) -> list[str]:
        """Return a sentence for each change, with the number of files that needed it."""
        return [f"{n:,} image{'s' if n > 1 else ''} {change}" for change, n in self.changes.items()]

    def _read_pixels(self, file: Path) -> np.ndarray:
        """Return the pixels of a file, (channels, height, width) float32 from 0 to 255."""
        try:
            decoded = self.decoder(file.read_bytes())
        except (Broken, Unfit) as problem:
            raise UserError(f"{file} {str(problem).replace('dataset.decoding.', '')}.") from problem
        self.changes.update(change for change in decoded.changes if not self.averages or "converted" not in change)
        pixels = decoded.pixels.astype(np.float32)
        return pixels.mean(axis=0, keepdims=True) if self.averages else pixels


def _classify(model: nn.Module, x: Tensor, n_classes: int) -> Classified:
    """Return the most probable class and the shares; raise UserError if the model gives something else than scores."""
    outputs = model(x)
    if not isinstance(outputs, Tensor) or outputs.shape != (len(x), n_classes):
        gives = f"outputs of shape {tuple(outputs.shape)[1:]}" if isinstance(outputs, Tensor) else "several outputs"
        raise UserError(
            f"This run predicts no class: its model gives {gives} for an image, not one score for each of {n_classes} "
            "classes. From Python, dl_lab.load(RUN).model takes a batch."
        )
    shares = outputs.softmax(dim=1)
    return shares.argmax(dim=1).tolist(), shares.tolist()


def _classify_with_numpy(model: Any, x: np.ndarray) -> Classified:
    """Return the classes from a NumPy model, without shares if it has no probabilities (a perceptron)."""
    if not hasattr(model, "probabilities"):
        return model.predict(x).tolist(), None
    shares = model.probabilities(x)
    return shares.argmax(axis=1).tolist(), shares.tolist()
