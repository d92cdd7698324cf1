"""Figures of a trained classifier: activation maps, scores by class, ROC curves, and confident mistakes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor, nn

from dl_lab.datasets.batches import TensorSplit
from dl_lab.datasets.dataset import Dataset
from dl_lab.datasets.images.labelled import Scaled
from dl_lab.show import class_plots, image_plots, plots
from dl_lab.tasks.inputs import split_labels
from dl_lab.training.learners import GradientLearner
from dl_lab.training.session import Callback, Session
from dl_lab.training.summary import name_in_words
from dl_lab.types import Batch, Confusion, Metrics, Tally, UserError, columns_of, rebuild

AT_ONCE = 256  # test items of a batch


class ActivationMaps(Callback):
    """Draws, at the end of the fit, the output of convolutions for one test image.

    The channels with the greatest mean come first. Each map is scaled to its own minimum and maximum. A model without a
    convolution, and data without images, have no such figure.

    Args:
        layers: Dotted names of modules that return (batch, channels, height, width). Empty: up to `most` convolutions
            spread evenly over the model, the first and the last included.
        image: The number of the image in the test split.
        channels: The most channels that are drawn of a layer.
        most: The most layers that are drawn where `layers` is empty.

    Raises:
        ValueError: A number is too small.
        UserError: The model has no such layer, or the test split no such image. This is checked when the fit starts.
    """

    imports = plots.IMPORTS

    def __init__(self, layers: Sequence[str] = (), image: int = 0, channels: int = 8, most: int = 5) -> None:
        if channels < 1 or most < 1 or image < 0:
            raise ValueError(f"channels {channels} and most {most} must be at least 1, image {image} at least 0")
        self.layers = tuple(layers)
        self.image = image
        self.channels = channels
        self.most = most

    def fit_start(self, session: Session) -> None:
        """Refuse layers and an image that do not exist."""
        if isinstance(session.learner, GradientLearner):
            known = dict(session.learner.model.named_modules())
            for name in self.layers:
                if name not in known:
                    raise UserError(f"Activation maps: the model has no layer {name!r} (see tables/layers.csv).")
        if self.image >= len(session.dataset.test):
            raise UserError(f"Activation maps: the test split has {len(session.dataset.test)} images, no {self.image}.")

    def fit_end(self, session: Session, tally: Tally, metrics: Metrics) -> None:
        """Draw the maps."""
        learner = session.learner
        images = _find_images(session.whole_dataset, [self.image])
        if not isinstance(learner, GradientLearner) or images is None:
            return
        names = self.layers or _choose_convolutions(learner.model, self.most)
        found = self._find_activations(learner, _build_batch(session.whole_dataset, self.image), names)
        rows: list[dict[str, object]] = []
        pictures: dict[str, list[np.ndarray]] = {}
        words = name_in_words(learner.model)
        for name, maps in found.items():  # (channels, height, width)
            strength = maps.mean(dim=(1, 2))
            order = strength.argsort(descending=True, stable=True)[: self.channels].tolist()
            for c in order:
                rows.append({"layer": name, "channel": c, "mean": float(strength[c]), "max": float(maps[c].max())})
            pictures[words[name]] = [_scale(maps[c]) for c in order]
        if pictures:
            title = f"test image {self.image}: strongest channels of each layer"
            figure = image_plots.activation_maps(images[0], pictures, title)
            session.run.figure("activation_maps", figure, rows, session.step)

    @staticmethod
    def _find_activations(learner: GradientLearner, batch: Batch, names: Sequence[str]) -> dict[str, Tensor]:
        """Return the maps (channels, height, width) of the layers `names`, without layers that return no maps."""
        found: dict[str, Tensor] = {}

        def keep(name: str) -> Callable[[nn.Module, object, object], None]:
            def hook(module: nn.Module, arguments: object, output: object) -> None:
                if isinstance(output, Tensor) and output.dim() == 4:
                    found[name] = output[0].detach().float().cpu()

            return hook

        handles = [learner.model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
        try:
            learner.predict(batch, learner.model)
        finally:
            for handle in handles:
                handle.remove()
        return {name: found[name] for name in names if name in found}


class TestReport(Callback):
    """Reports the test predictions class by class, and the mistakes that were made with the most confidence.

    The report belongs to the same weights, and to the same look at test, as the test metrics. There are three figures
    with their rows: `class_scores` (precision, recall, F1 and number of items of each class), `roc_curves` (one class
    against the rest, with the area under each curve), and `confident_mistakes` (true class, predicted class and its
    probability, on the images where the data are images). The metrics test/f1_macro and test/roc_auc_macro are means
    over the classes that occur. Tasks other than classification have no such report.

    Args:
        mistakes: The most mistakes that are shown; 0 for none.

    Raises:
        ValueError: `mistakes` is negative.
    """

    imports = plots.IMPORTS

    __test__ = False  # pytest must not collect this class

    def __init__(self, mistakes: int = 16) -> None:
        if mistakes < 0:
            raise ValueError(f"mistakes {mistakes} is negative")
        self.mistakes = mistakes

    def fit_end(self, session: Session, tally: Tally, metrics: Metrics) -> None:
        """Write the report."""
        learner = session.learner
        confusion = tally.get("confusion")
        if not isinstance(learner, GradientLearner) or not isinstance(confusion, Confusion):
            return
        counts = confusion.counts.cpu().numpy()
        names = session.dataset.class_names or tuple(str(i) for i in range(len(counts)))
        scores = score_classes(counts, names)
        session.run.figure("class_scores", class_plots.class_scores(scores, "test, by class"), scores, session.step)
        metrics["test/f1_macro"] = float(np.mean([row["f1"] for row in scores if row["items"]]))
        probabilities, labels = _predict(learner, session.whole_dataset)
        self._draw_roc(session, probabilities, labels, names, metrics)
        if self.mistakes:
            self._draw_mistakes(session, probabilities, labels, names)

    @staticmethod
    def _draw_roc(
        session: Session, probabilities: np.ndarray, labels: np.ndarray, names: Sequence[str], metrics: Metrics
    ) -> None:
        from sklearn.metrics import roc_auc_score, roc_curve

        rows: list[dict[str, object]] = []
        areas: dict[str, float] = {}
        for i, name in enumerate(names):
            if not 0 < (labels == i).sum() < len(labels):  # a class that never or always occurs has no curve
                continue
            false, true, thresholds = roc_curve(labels == i, probabilities[:, i])
            areas[name] = float(roc_auc_score(labels == i, probabilities[:, i]))
            for x, y, at in zip(false.tolist(), true.tolist(), thresholds.tolist(), strict=True):
                rows.append({"class": name, "false_positive_rate": x, "true_positive_rate": y, "threshold": at})
        if rows:
            metrics["test/roc_auc_macro"] = float(np.mean(list(areas.values())))
            figure = class_plots.roc_curves(rows, areas, "test, one class against the rest")
            session.run.figure("roc_curves", figure, rows, session.step)

    def _draw_mistakes(
        self, session: Session, probabilities: np.ndarray, labels: np.ndarray, names: Sequence[str]
    ) -> None:
        predicted = probabilities.argmax(axis=1)
        wrong = np.flatnonzero(predicted != labels)
        chosen = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")][: self.mistakes]
        rows = [
            {
                "item": int(i),
                "true": names[int(labels[i])],
                "predicted": names[int(predicted[i])],
                "probability": float(probabilities[i, predicted[i]]),
                "probability_of_true": float(probabilities[i, labels[i]]),
            }
            for i in chosen
        ]
        if not rows:
            return
        images = _find_images(session.whole_dataset, chosen.tolist())
        if images is None:
            session.run.table("confident_mistakes", rows)
            return
        titles = [f"{row['true']} taken for\n{row['predicted']} ({row['probability']:.2f})" for row in rows]
        title = f"{len(wrong):,} of {len(labels):,} test images are wrong: the most confident"
        session.run.figure("confident_mistakes", image_plots.mistakes(images, titles, title), rows, session.step)


ClassScores = TypedDict("ClassScores", {"class": str, "precision": float, "recall": float, "f1": float, "items": int})


def score_classes(counts: np.ndarray, names: Sequence[str]) -> list[ClassScores]:
    """Return precision, recall and F1 of each class; a score that is undefined is 0.

    Args:
        counts: Counts by (true class, predicted class).
        names: The names of the classes.
    """
    rows: list[ClassScores] = []
    for i, name in enumerate(names):
        right = int(counts[i, i])
        predicted = int(counts[:, i].sum())
        items = int(counts[i].sum())
        rows.append(
            {
                "class": name,
                "precision": right / predicted if predicted else 0.0,
                "recall": right / items if items else 0.0,
                "f1": 2 * right / (predicted + items) if predicted + items else 0.0,
                "items": items,
            }
        )
    return rows


def _predict(learner: GradientLearner, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return test probabilities (n, n_classes) and labels (n,)."""
    probabilities: list[Tensor] = []
    labels: list[Tensor] = []
    for batch in dataset.test.batches(AT_ONCE):
        probabilities.append(learner.predict(batch).float().softmax(dim=1))
        labels.append(split_labels(batch)[1])
    return torch.cat(probabilities).cpu().numpy(), torch.cat(labels).cpu().numpy()


def _find_image_split(dataset: Dataset) -> tuple[TensorSplit, Scaled] | None:
    """Find the test split with the images, also where features took their place.

    Returns:
        The split and its transform; None for data without images.
    """
    split = (dataset.images or dataset).test
    if not isinstance(split, TensorSplit) or not isinstance(split.transform, Scaled):
        return None
    shape = split.transform.input_shape
    return (split, split.transform) if len(shape) == 3 and shape[0] in (1, 3) else None


def _find_images(dataset: Dataset, items: Sequence[int]) -> list[np.ndarray] | None:
    """Return test images as stored: (height, width, 3) or (height, width) in [0, 1]; None for data without images."""
    found = _find_image_split(dataset)
    if found is None:
        return None
    split, transform = found
    shape = transform.input_shape
    x = columns_of(split.columns)[0]
    chosen = x[torch.as_tensor(items, device=x.device)].reshape(len(items), *shape)
    scaled = (chosen.float().cpu() / transform.divisor).clamp(0, 1)
    if shape[0] == 1:
        return list(scaled.squeeze(1).numpy())
    return list(scaled.permute(0, 2, 3, 1).numpy())


def _build_batch(dataset: Dataset, item: int) -> Batch:
    """Return a batch of one test image, as the model takes it."""
    found = _find_image_split(dataset)
    assert found is not None, "only called for data with images"
    split, transform = found
    columns = [column[item : item + 1].to(split.device) for column in columns_of(split.columns)]
    return transform(rebuild(split.columns, columns))


def _choose_convolutions(model: nn.Module, most: int) -> list[str]:
    """Return the names of at most `most` convolutions, spread evenly over the model."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    places = np.linspace(0, len(names) - 1, min(most, len(names)))
    return [names[place] for place in sorted({round(place) for place in places})]


def _scale(plane: Tensor) -> np.ndarray:
    low = plane.min()
    high = plane.max()
    return ((plane - low) / (high - low).clamp(min=1e-12)).numpy()
