"""Figures of a trained classifier agree with scikit-learn and with the layers; other fits have none."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dl_lab.runs.files import read_json
from dl_lab.runs.weights import load_weights
from dl_lab.training.vision import ActivationMaps, TestReport, score_classes
from dl_lab.types import UserError

pytestmark = pytest.mark.figures

NAMES = ["first_layer_filters", "activation_maps", "class_scores", "roc_curves", "confident_mistakes"]
WORDS = [
    "dataset.source=generated",
    "++dataset.n_generated=160",
    "callbacks=vision",
    "callbacks.curves=null",
    "trainer.device=cpu",
    "trainer.max_epochs=1",
    "trainer.batch_size=32",
    "logger=none",
]
TINY = ["dataset=cifar10", "model=cnn", "model.filters=[4,6]", "model.kernels=[3,3]", "model.pools=[2,2]"]


def table(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / "tables" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, execute_in):
    """(folder, metrics, model, test images, labels, probabilities) of a small run."""
    from dl_lab import configs as config

    folder = tmp_path_factory.mktemp("vision") / "run"
    metrics = execute_in(folder, *TINY, *WORDS, "optimizer.lr=0.01", "callbacks.test_report.mistakes=5")
    built = config.build(config.read_config(folder), "procedure")
    model = built.learner.model.eval()
    model.load_state_dict(load_weights(folder / "checkpoints" / "best.safetensors"))
    batch = next(iter(built.dataset.test.batches(1000)))
    with torch.no_grad():
        probabilities = model(batch.x).softmax(dim=1).numpy()
    return folder, metrics, model, batch.x, batch.y.numpy(), probabilities


def test_every_figure_has_its_rows(finished):
    for name in NAMES:
        assert (finished[0] / "figures" / f"{name}.png").stat().st_size > 3_000, name
        assert table(finished[0], name), name


def test_scores_by_class_are_scikit_learns(finished):
    from sklearn import metrics

    folder, measured, _, _, labels, probabilities = finished
    wanted = metrics.precision_recall_fscore_support(
        labels, probabilities.argmax(1), labels=range(10), zero_division=0.0
    )
    rows = table(folder, "class_scores")
    for column, values in zip(("precision", "recall", "f1", "items"), wanted, strict=True):
        assert [float(row[column]) for row in rows] == pytest.approx(values.tolist())
    assert [row["class"] for row in rows][:2] == ["airplane", "automobile"]
    assert measured["test/f1_macro"] == pytest.approx(wanted[2].mean())


def test_curves_and_areas_are_scikit_learns(finished):
    from sklearn import metrics

    folder, measured, _, _, labels, probabilities = finished
    wanted = metrics.roc_auc_score(labels, probabilities, multi_class="ovr", average="macro")
    assert measured["test/roc_auc_macro"] == pytest.approx(wanted)
    rows = [row for row in table(folder, "roc_curves") if row["class"] == "cat"]
    false, true, _ = metrics.roc_curve(labels == 3, probabilities[:, 3])
    assert [float(row["true_positive_rate"]) for row in rows] == pytest.approx(true.tolist())
    assert [float(row["false_positive_rate"]) for row in rows] == pytest.approx(false.tolist())


def test_added_metrics_are_recorded(finished):
    folder, metrics = finished[:2]
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"test/f1_macro", "test/roc_auc_macro"} < last.keys()
    assert read_json(folder / "summary.json")["metrics"] == metrics


def test_mistakes_are_the_most_confident_ones(finished):
    folder, _, _, _, labels, probabilities = finished
    wrong = probabilities.argmax(1) != labels
    wanted = np.sort(probabilities.max(1)[wrong])[::-1][:5]
    rows = table(folder, "confident_mistakes")
    assert [float(row["probability"]) for row in rows] == pytest.approx(wanted.tolist(), rel=1e-5)
    for row in rows:
        item = int(row["item"])
        assert wrong[item] and float(row["probability_of_true"]) == pytest.approx(probabilities[item, labels[item]])


def test_maps_are_the_outputs_of_the_layers(finished):
    folder, _, model, x, _, _ = finished
    rows = table(folder, "activation_maps")
    layers = list(dict.fromkeys(row["layer"] for row in rows))
    assert len(layers) == 2, "both convolutions"
    kept = []
    model.get_submodule(layers[0]).register_forward_hook(lambda module, inputs, output: kept.append(output[0]))
    with torch.no_grad():
        model(x[:1])
    means = kept[0].mean(dim=(1, 2))
    shown = [row for row in rows if row["layer"] == layers[0]]
    assert [int(row["channel"]) for row in shown] == means.argsort(descending=True).tolist()
    assert [float(row["mean"]) for row in shown] == pytest.approx(means.sort(descending=True).values.tolist(), rel=1e-4)


def test_frozen_features_show_their_images(execute):
    words = ["dataset=cifar10", "model=pretrained_resnet18", "procedure=transfer", "procedure.weights=random"]
    folder, _ = execute(*words, "model.trainable=head", "model.batch_norm=eval", *WORDS, "++dataset.n_generated=64")
    for name in NAMES:
        assert (folder / "figures" / f"{name}.png").exists(), name
    assert table(folder, "layers")[0]["output"] == "64 x 16 x 16", "the whole net, not the head alone"


def test_grey_images_and_a_model_without_convolutions(execute):
    folder, metrics = execute("dataset=mnist", "model=linear", *WORDS)
    assert "test/roc_auc_macro" in metrics
    assert (folder / "figures" / "confident_mistakes.png").exists()
    assert not (folder / "figures" / "activation_maps.png").exists()


def test_text_has_a_report_without_images(execute):
    words = [word for word in WORDS if "n_generated" not in word]
    folder, metrics = execute("experiment=ag_news_feedforward", "++dataset.n_generated=160", *words)
    assert "test/f1_macro" in metrics and (folder / "figures" / "roc_curves.png").exists()
    assert not (folder / "figures" / "confident_mistakes.png").exists()


def test_other_tasks_are_left_alone(execute):
    folder, metrics = execute(
        "experiment=cifar_ae_linear", "profile=smoke", "callbacks=vision", "logger=none", "callbacks.model_summary=null"
    )
    assert not (folder / "figures" / "class_scores.png").exists()
    assert not any("f1" in name for name in metrics)


def test_a_missing_layer_or_image_is_refused(execute):
    with pytest.raises(UserError, match="the model has no layer 'conv9'"):
        execute(*TINY, *WORDS, "callbacks.activation_maps.layers=[conv9]")
    with pytest.raises(UserError, match="the test split has 40 images, no 40"):
        execute(*TINY, *WORDS, "callbacks.activation_maps.image=40")


@pytest.mark.parametrize("make", [lambda: ActivationMaps(channels=0), lambda: TestReport(mistakes=-1)])
def test_impossible_settings_are_refused(make):
    with pytest.raises(ValueError, match=r"must be at least|is negative"):
        make()


def test_a_class_that_never_occurs_scores_zero():
    rows = score_classes(np.array([[2, 0], [0, 0]]), ["a", "b"])
    assert rows[1] == {"class": "b", "precision": 0.0, "recall": 0.0, "f1": 0.0, "items": 0}
