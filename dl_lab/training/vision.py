"""What a trained classifier sees and where it is wrong: activation maps, scores by class, ROC curves, mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dl_lab import plots
from dl_lab.training.learners import GradientLearner
from dl_lab.training.trainer import Callback, Session
from dl_lab.types import Confusion, Dataset, Metrics, Tally, UserError

AT_ONCE = 256


class ActivationMaps(Callback):
    """At the end of the fit: what convolutions make of one test image, the channels with the greatest mean first.

    layers: dotted names of modules that return (batch, channels, height, width); none: up to `most` convolutions spread
    evenly over the model, the first and the last included. image: its number in the test split. Each map is scaled to
    its own minimum and maximum. A model without a convolution, and data without images, have no such figure.
    Raises UserError at the start of the fit for a layer or an image that is not there.
    """

    def __init__(self, layers: Sequence[str] = (), image: int = 0, channels: int = 8, most: int = 5) -> None:
        if channels < 1 or most < 1 or image < 0:
            raise ValueError(f"channels {channels} and most {most} must be at least 1, image {image} at least 0")
        self.layers, self.image, self.channels, self.most = tuple(layers), image, channels, most

    def fit_start(self, session: Session) -> None:
        if isinstance(session.learner, GradientLearner):
            known = dict(session.learner.model.named_modules())
            for name in self.layers:
                if name not in known:
                    raise UserError(f"Activation maps: the model has no layer {name!r} (see tables/layers.csv).")
        if self.image >= len(session.dataset.test):
            raise UserError(f"Activation maps: the test split has {len(session.dataset.test)} images, no {self.image}.")

    def fit_end(self, session: Session, tally: Tally, metrics: Metrics) -> None:
        learner, images = session.learner, _images(session.dataset, [self.image])
        if not isinstance(learner, GradientLearner) or images is None:
            return
        names = self.layers or _spread(learner.model, self.most)
        found = self._activations(learner, _batch_of(session.dataset, self.image), names)
        rows, pictures = [], {}
        for name, maps in found.items():  # (channels, height, width)
            strength = maps.mean(dim=(1, 2))
            order = strength.argsort(descending=True, stable=True)[: self.channels].tolist()
            rows += [
                {"layer": name, "channel": c, "mean": float(strength[c]), "max": float(maps[c].max())} for c in order
            ]
            pictures[name] = [_scaled(maps[c]) for c in order]
        if pictures:
            title = f"test image {self.image}: strongest channels of each layer"
            figure = plots.activation_maps(images[0], pictures, title)
            session.run.figure("activation_maps", figure, rows, session.step)

    @staticmethod
    def _activations(learner: GradientLearner, batch: Any, names: Sequence[str]) -> dict[str, Tensor]:
        """In the order of `names`; layers that return no maps are left out."""
        found: dict[str, Tensor] = {}

        def keep(name: str) -> Any:
            def hook(module: nn.Module, arguments: Any, output: Any) -> None:
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
    """How good the test predictions are, class by class, and which mistakes were made with the most confidence.

    From the same weights, and in the same look, as the test metrics. Figures with their rows: `class_scores`
    (precision, recall, F1 and number of items of each class), `roc_curves` (one class against the rest, with the area
    under each), `confident_mistakes` (images, where the data are images, with true and predicted class and the
    probability of the latter). The metrics test/f1_macro and test/roc_auc_macro (means over the classes that occur) are
    added. mistakes: how many are shown; 0: none. Other tasks than classification have no such report.
    """

    __test__ = False  # no test of pytest's

    def __init__(self, mistakes: int = 16) -> None:
        if mistakes < 0:
            raise ValueError(f"mistakes {mistakes} is negative")
        self.mistakes = mistakes

    def fit_end(self, session: Session, tally: Tally, metrics: Metrics) -> None:
        learner, confusion = session.learner, tally.get("confusion")
        if not isinstance(learner, GradientLearner) or not isinstance(confusion, Confusion):
            return
        counts = confusion.counts.cpu().numpy()
        names = session.dataset.class_names or tuple(str(i) for i in range(len(counts)))
        scores = class_scores(counts, names)
        session.run.figure("class_scores", plots.class_scores(scores, "test, by class"), scores, session.step)
        metrics["test/f1_macro"] = float(np.mean([row["f1"] for row in scores if row["items"]]))
        probabilities, labels = _predictions(learner, session.dataset)
        self._roc(session, probabilities, labels, names, metrics)
        if self.mistakes:
            self._mistakes(session, probabilities, labels, names)

    @staticmethod
    def _roc(session: Session, probabilities: Any, labels: Any, names: Sequence[str], metrics: Metrics) -> None:
        from sklearn.metrics import roc_auc_score, roc_curve

        rows, areas = [], {}
        for i, name in enumerate(names):
            if 0 < (labels == i).sum() < len(labels):  # the curve of a class that never or always occurs is undefined
                false, true, thresholds = roc_curve(labels == i, probabilities[:, i])
                areas[name] = float(roc_auc_score(labels == i, probabilities[:, i]))
                points = zip(false.tolist(), true.tolist(), thresholds.tolist(), strict=True)
                rows += [
                    {"class": name, "false_positive_rate": x, "true_positive_rate": y, "threshold": at}
                    for x, y, at in points
                ]
        if rows:
            metrics["test/roc_auc_macro"] = float(np.mean(list(areas.values())))
            figure = plots.roc_curves(rows, areas, "test, one class against the rest")
            session.run.figure("roc_curves", figure, rows, session.step)

    def _mistakes(self, session: Session, probabilities: Any, labels: Any, names: Sequence[str]) -> None:
        predicted = probabilities.argmax(axis=1)
        wrong = np.flatnonzero(predicted != labels)
        chosen = wrong[np.argsort(-probabilities[wrong, predicted[wrong]], kind="stable")][: self.mistakes]
        rows = [
            {
                "item": int(i),
                "true": names[labels[i]],
                "predicted": names[predicted[i]],
                "probability": float(probabilities[i, predicted[i]]),
                "probability_of_true": float(probabilities[i, labels[i]]),
            }
            for i in chosen
        ]
        if not rows:
            return
        images = _images(session.dataset, [row["item"] for row in rows])
        if images is None:
            session.run.table("confident_mistakes", rows)
            return
        titles = [f"{row['true']} taken for\n{row['predicted']} ({row['probability']:.2f})" for row in rows]
        title = f"{len(wrong):,} of {len(labels):,} test images are wrong: the most confident"
        session.run.figure("confident_mistakes", plots.mistakes(images, titles, title), rows, session.step)


def class_scores(counts: Any, names: Sequence[str]) -> list[dict[str, Any]]:
    """Of counts (true class, predicted class): precision, recall and F1 of each class, 0 where undefined."""
    rows = []
    for i, name in enumerate(names):
        right, predicted, items = int(counts[i, i]), int(counts[:, i].sum()), int(counts[i].sum())
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


def _predictions(learner: GradientLearner, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Test probabilities (n, n_classes) and labels (n,)."""
    parts = [(learner.predict(batch).float().softmax(dim=1), batch[-1]) for batch in dataset.test.batches(AT_ONCE)]
    probabilities, labels = (torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))
    return probabilities, labels


def _pictured(dataset: Dataset) -> Dataset:
    """The data set that has the images: another where features took their place."""
    return dataset.extras.get("images", dataset)


def _images(dataset: Dataset, items: Sequence[int]) -> list[np.ndarray] | None:
    """Test images as stored, (height, width, 3) or (height, width) in [0, 1]; None where the data are no images."""
    split: Any = _pictured(dataset).test
    shape = getattr(getattr(split, "transform", None), "input_shape", ())
    if len(shape) != 3 or shape[0] not in (1, 3):
        return None
    x = split.columns.x
    chosen = (
        x[torch.as_tensor(items, device=x.device)].reshape(len(items), *shape).float().cpu() / split.transform.divisor
    )
    return [
        image.squeeze(0).numpy() if shape[0] == 1 else image.permute(1, 2, 0).numpy() for image in chosen.clamp(0, 1)
    ]


def _batch_of(dataset: Dataset, item: int) -> Any:
    """A batch of one test item, as the model takes it."""
    split: Any = _pictured(dataset).test
    return split.transform(type(split.columns)(*[column[item : item + 1].to(split.device) for column in split.columns]))


def _spread(model: nn.Module, most: int) -> list[str]:
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    return [names[i] for i in sorted({round(x) for x in np.linspace(0, len(names) - 1, min(most, len(names)))})]


def _scaled(plane: Tensor) -> np.ndarray:
    low, high = plane.min(), plane.max()
    return ((plane - low) / (high - low).clamp(min=1e-12)).numpy()
