"""Defaults of the configs and of the code: where both give one, they give the same, or a reason stands here."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from dl_lab.configs.catalogue import SHIPPED
from dl_lab.configs.targets import locate, targets

# Files of these folders change a chosen part; they do not describe one.
CHANGES = ("experiment", "profile", "sweep", "adapt")

# Reason -> the arguments that a YAML sets to another value than the signature's default, as "file: path of the key".
# The signature's value is meant for a user of the library, who calls the class without this YAML.
DIFFERENT = {
    "The file of this data set is written in this way; the code's default is the commonest way.": (
        "dataset/air_quality: layout.time_columns",
        "dataset/air_quality: layout.time_format",
        "dataset/air_quality: layout.step_minutes",
        "dataset/air_quality: layout.delimiter",
        "dataset/air_quality: layout.decimal",
        "dataset/air_quality: layout.missing",
        "dataset/air_quality: layout.repair",
    ),
    "The course or the paper uses this part of the data.": (
        "dataset/ag_news: held_out.n_test",
        "dataset/ag_news: held_out.n_train",
        "dataset/ag_news_tokens: held_out.n_train",
        "dataset/imdb: held_out.n_val",
    ),
    "Short sounds of a user's own need fewer bands than speech.": ("dataset/audio_folder: features.n_mels",),
    "The YAML is a recipe of augmentation; the class alone changes nothing, or is torchvision's.": (
        "dataset/augment/course: colour.brightness",
        "dataset/augment/course: colour.contrast",
        "dataset/augment/course: colour.saturation",
        "dataset/augment/course: colour.hue",
        "dataset/augment/course: resized_crop.scale",
        "dataset/augment/fast: crop.mode",
        "dataset/augment/fast: cutout.fill",
        "dataset/augment/rand_augment: rand_augment.as_uint8",
    ),
    "The YAML is the variant that its name says.": (
        "model/gru_forecaster: cell",
        "model/lstm_change_forecaster: model.bidirectional",
    ),
    "The YAML is the net of the default run, which overfits without dropout; a layer of the library drops nothing.": (
        "model/mlp: dropout",
    ),
    "The YAML fine-tunes as the course does; the class alone gives an image the same features in every epoch.": (
        "model/pretrained_resnet18: batch_norm",
    ),
    "The YAML shows examples; the class alone asks for none.": ("procedure/analogies: neighbours_of",),
}


def _defaults(target: object) -> dict[str, object]:
    """The arguments of a class or function that have a default, with a dataclass's factories called."""
    assert callable(target)
    found = {}
    for name, parameter in inspect.signature(target).parameters.items():
        if parameter.default is not parameter.empty:
            found[name] = parameter.default
    if dataclasses.is_dataclass(target):
        for field in dataclasses.fields(target):
            if field.default_factory is not dataclasses.MISSING:
                found[field.name] = field.default_factory()
    return found


def _is_same(given: object, default: object) -> bool:
    """Whether a value of a YAML is a default. YAML has lists alone; true is not 1."""
    if isinstance(default, tuple):
        default = list(default)
    return given == default and isinstance(given, bool) == isinstance(default, bool)


def _disagreements(name: str, content: object) -> Iterator[str]:
    """The arguments in the content of a YAML whose value is not the default of the signature."""
    for path, part in targets(content):
        target = part["_target_"]
        if not target.startswith("dl_lab."):
            continue
        defaults = _defaults(locate(path, target))
        for key, given in part.items():
            is_plain = not isinstance(given, Mapping) and "${" not in str(given)
            if key in defaults and is_plain and not _is_same(given, defaults[key]):
                yield f"{name}: {path}.{key}" if path else f"{name}: {key}"


def _read(path: Path) -> object:
    return OmegaConf.to_container(OmegaConf.load(path), resolve=False)


def _disagreements_of_all() -> Iterator[str]:
    for path in sorted(SHIPPED.glob("*/**/*.yaml")):
        name = path.relative_to(SHIPPED).with_suffix("")
        if name.parts[0] not in CHANGES:
            yield from _disagreements(name.as_posix(), _read(path))


def test_a_default_in_yaml_and_in_code_is_the_same_or_has_a_reason():
    """And no reason is left over from a difference that is gone."""
    known = [entry for entries in DIFFERENT.values() for entry in entries]
    assert sorted(_disagreements_of_all()) == sorted(known)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"dropout": 0.5}, ["x: dropout"]),
        ({"dropout": 0.0}, []),
        ({"dropout": 0}, []),
        ({"dropout": False}, ["x: dropout"]),
        ({"dropout": "${learned:dropout}"}, []),
        ({}, []),
    ],
)
def test_a_disagreement_is_found(content, found):
    assert list(_disagreements("x", {"_target_": "dl_lab.models.mlp.MLP", **content})) == found
