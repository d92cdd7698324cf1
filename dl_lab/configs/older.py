"""Configs of older runs: components that have moved, and arguments that belong to another part now.

A run keeps its resolved config. `upgrade` translates the config of a run of dl-lab 0.1 to this version. So the run can
still be resumed, verified and used to predict.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

# Modules and components of dl-lab 0.1, and their names now. A name stands for everything below it.
MOVED = {
    "dl_lab.board.TensorBoard": "dl_lab.runs.tensorboard.TensorBoard",
    "dl_lab.experiments": "dl_lab.procedures",
    "dl_lab.run.NoBoard": "dl_lab.runs.board.NoBoard",
    "dl_lab.sweeps.ray": "dl_lab.sweeps.backends.ray",
    "dl_lab.sweeps.slurm": "dl_lab.sweeps.backends.slurm",
    "dl_lab.datasets.augmentation": "dl_lab.datasets.images.augmentation",
    "dl_lab.datasets.image_folder.food101": "dl_lab.datasets.sets.food101.food101",
    "dl_lab.datasets.glove": "dl_lab.datasets.text.glove",
    "dl_lab.datasets.series.Layout": "dl_lab.datasets.series.layout.Layout",
    "dl_lab.datasets.air_quality.air_quality_layout": "dl_lab.datasets.series.layout.Layout",
    **{
        f"dl_lab.datasets.{name}": f"dl_lab.datasets.sets.{name}"
        for name in (
            "ag_news",
            "ag_news_tokens",
            "air_quality",
            "cifar10",
            "digits",
            "dogs_food_vehicles",
            "image_folder",
            "imdb",
            "lj_speech",
            "mnist",
            "nyc_taxi",
            "octmnist",
        )
    },
}


@dataclass(frozen=True)
class Group:
    """Arguments of dl-lab 0.1 that are one part of a component now.

    Attributes:
        argument: The component's argument that takes the part.
        target: The class or function of the part.
        defaults: The part's arguments, with the values that dl-lab 0.1 used where a config had none.
        renamed: Old name -> new name, for arguments that have another name in the part.
    """

    argument: str
    target: str
    defaults: Mapping[str, object]
    renamed: Mapping[str, str] = field(default_factory=dict)


STORAGE = Group(
    "storage",
    "dl_lab.datasets.storage.Storage",
    {"data_dir": "~/.cache/dl-lab", "cache_dir": "~/.cache/dl-lab/cache", "files": []},
)
LOADING = Group("loading", "dl_lab.datasets.batches.Loading", {"residence": "auto", "workers": 2})
NORMALISE = Group("normalise", "dl_lab.datasets.images.labelled.Normalise", {"mean": [], "std": []})
TEXTS_TARGET = "dl_lab.datasets.text.texts.Texts"
SERIES_LAYOUT = "dl_lab.datasets.series.layout.Layout"
AIR_QUALITY = {
    "columns": [],
    "time_columns": ["Date", "Time"],
    "time_format": "%d/%m/%Y %H.%M.%S",
    "step_minutes": 60,
    "delimiter": ";",
    "decimal": ",",
    "missing": -200,
    "repair": [],
}
SPLITS_TARGET = "dl_lab.datasets.images.layout.Splits"
SPLITS = Group("splits", SPLITS_TARGET, {"seed": 42}, {"split_seed": "seed"})
FOOD_SPLITS = Group(
    "splits",
    SPLITS_TARGET,
    {"train": "train", "val": 0.1, "test": "test", "seed": 42},
    {"split_seed": "seed", "val_share": "val"},
)
IMAGES_HELD_OUT = "dl_lab.datasets.images.layout.HeldOut"
STAND_IN = Group(
    "stand_in",
    "dl_lab.datasets.sets.dogs_food_vehicles.StandIn",
    {"cifar10": None, "classes": ["dog", "frog", "automobile"]},
    {"stand_in": "cifar10", "stand_in_classes": "classes"},
)
FOLDER = Group(
    "layout",
    "dl_lab.datasets.images.layout.Layout",
    {"table": None, "class_names": [], "stratified": True, "n_per_class": None, "n_official": None},
)
DECODING = Group(
    "decoding",
    "dl_lab.datasets.images.decoding.Decoding",
    {
        "resize": "none",
        "shorter_side": None,
        "convert": False,
        "background": None,
        "max_value": None,
        "unreadable": "error",
    },
)
SUBSET = Group(
    "subset",
    "dl_lab.datasets.sets.cifar10.Subset",
    {"n_val": 5000, "seed": 43, "draw": "torch", "n_train": None, "every": 1},
    {"split_seed": "seed", "split_by": "draw"},
)
FEATURES = Group(
    "features",
    "dl_lab.datasets.speech.audio.LogMel",
    {"n_fft": 400, "hop_length": 160, "n_mels": 80, "mel_sample_rate": 16000},
)
PARTS = Group(
    "parts",
    "dl_lab.datasets.speech.clips.Parts",
    {"fractions": [0.75, 0.05], "n_train": None, "n_val": None, "n_test": None},
)
LIMITS = Group(
    "limits",
    "dl_lab.datasets.speech.clips.Limits",
    {"longest": 20.0, "frames_per_symbol": 2, "max_unknown": 0.01},
)
TEXTS = {
    "tokenizer": "basic_english",
    "clean_html": False,
    "specials": ["<unk>", "<pad>"],
    "pad_with": "<pad>",
    "padding": "right",
    "keep": "head",
    "bucketing": True,
}
HELD_OUT = Group(
    "held_out",
    "dl_lab.datasets.text.texts.HeldOut",
    {"n_train": None, "n_val": 12500, "n_test": None, "val_from": "test", "seed": 4242},
    {"split_seed": "seed"},
)
AG_NEWS_HELD_OUT = Group(
    "held_out",
    HELD_OUT.target,
    {"n_train": 10000, "n_val": 1000, "n_test": 1000, "val_from": "test", "seed": 4242},
    HELD_OUT.renamed,
)
# Component of dl-lab 0.1 -> the groups of its arguments.
GROUPS: dict[str, tuple[Group, ...]] = {
    "dl_lab.datasets.ag_news.ag_news": (STORAGE, LOADING, AG_NEWS_HELD_OUT),
    "dl_lab.datasets.ag_news_tokens.ag_news_tokens": (STORAGE, Group("texts", TEXTS_TARGET, TEXTS), HELD_OUT),
    "dl_lab.datasets.air_quality.air_quality": (STORAGE, LOADING, Group("layout", SERIES_LAYOUT, AIR_QUALITY)),
    "dl_lab.datasets.cifar10.cifar10": (STORAGE, LOADING, NORMALISE, SUBSET),
    "dl_lab.datasets.digits.digits": (
        LOADING,
        Group("held_out", IMAGES_HELD_OUT, {"n_val": 200, "n_test": 300, "seed": 0}),
    ),
    "dl_lab.datasets.dogs_food_vehicles.dogs_food_vehicles": (
        STORAGE,
        LOADING,
        NORMALISE,
        FOLDER,
        DECODING,
        SPLITS,
        STAND_IN,
    ),
    "dl_lab.datasets.image_folder.food101": (STORAGE, LOADING, NORMALISE, FOLDER, DECODING, FOOD_SPLITS),
    "dl_lab.datasets.image_folder.image_folder": (STORAGE, LOADING, NORMALISE, FOLDER, DECODING, SPLITS),
    "dl_lab.datasets.imdb.imdb": (STORAGE, Group("texts", TEXTS_TARGET, {**TEXTS, "clean_html": True}), HELD_OUT),
    "dl_lab.datasets.lj_speech.lj_speech": (STORAGE, LOADING, FEATURES, PARTS, LIMITS),
    "dl_lab.datasets.mnist.mnist": (
        STORAGE,
        LOADING,
        Group("held_out", IMAGES_HELD_OUT, {"n_val": 5000, "n_test": None, "seed": 0}),
    ),
    "dl_lab.datasets.nyc_taxi.nyc_taxi": (
        STORAGE,
        LOADING,
        Group("layout", SERIES_LAYOUT, {"columns": ["value"], "repair": []}),
    ),
    "dl_lab.datasets.octmnist.octmnist": (STORAGE, LOADING),
    "dl_lab.datasets.glove.glove": (STORAGE,),
}
# New arguments of a component, with the values that repeat what dl-lab 0.1 did.
GAINED: dict[str, Mapping[str, object]] = {
    "dl_lab.datasets.air_quality.air_quality_layout": {k: AIR_QUALITY[k] for k in AIR_QUALITY if k != "columns"},
    "dl_lab.datasets.digits.digits": {"divisor": 16},
    "dl_lab.datasets.dogs_food_vehicles.dogs_food_vehicles": {"n_generated": 256},
    "dl_lab.datasets.image_folder.food101": {"n_generated": 256},
    "dl_lab.datasets.image_folder.image_folder": {"n_generated": 256},
    "dl_lab.datasets.octmnist.octmnist": {"divisor": 256},
}
# Argument of dl-lab 0.1 that is gone -> the arguments now that stand for each of its values.
REPLACED: dict[str, dict[object, Mapping[str, object]]] = {
    "shuffle": {
        True: {"order": {"_target_": "dl_lab.datasets.batches.shuffled", "_partial_": True}},
        False: {"order": {"_target_": "dl_lab.datasets.batches.in_order", "_partial_": True}},
    },
    "split": {"drawn": {}, "none": {"held_out": None}},
}
# Arguments of a component that have another name now.
RENAMED: dict[str, Mapping[str, str]] = {
    "dl_lab.tasks.binary_classification.BinaryClassification": {"objective": "loss"},
}


def find_new_name(dotted: str) -> str | None:
    """Return the name of a component now; None where it has not moved."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        start = ".".join(parts[:length])
        if start in MOVED:
            return ".".join([MOVED[start], *parts[length:]])
    return None


def upgrade(config: Any) -> Any:
    """Return a copy of an older dl-lab's config, or of a part of it, with the names and arguments of this version."""
    if isinstance(config, list):
        return [upgrade(item) for item in config]
    if not isinstance(config, Mapping):
        return config
    upgraded = {key: upgrade(item) for key, item in config.items()}
    target = upgraded.get("_target_")
    if not isinstance(target, str):
        return upgraded
    upgraded["_target_"] = find_new_name(target) or target
    renamed = RENAMED.get(target, {})
    upgraded = {**GAINED.get(target, {}), **{renamed.get(key, key): item for key, item in upgraded.items()}}
    if target in GROUPS:
        upgraded = _replace(upgraded)
    for group in GROUPS.get(target, ()):
        upgraded = _gather(upgraded, group)
    return upgraded


def _replace(node: Mapping[str, object]) -> dict[str, object]:
    """Return a component's mapping with new arguments in place of those that are gone."""
    replaced: dict[str, object] = {}
    for key, value in node.items():
        known = REPLACED.get(key, {})
        # A damaged config may hold anything here. It keeps its key, which the check refuses in a sentence.
        replaced |= known[value] if isinstance(value, Hashable) and value in known else {key: value}
    return replaced


def _gather(node: Mapping[str, object], group: Group) -> dict[str, object]:
    """Move the arguments of a group from the component's mapping into one part of it.

    An argument of the group's name that was a plain mapping keeps its values; None leaves the part out.
    """
    given = node.get(group.argument)
    is_off = group.argument in node and given is None
    plain = given if isinstance(given, Mapping) and group.argument not in group.renamed else {}
    part = {"_target_": group.target, **group.defaults, **plain}
    rest = {}
    for key, value in node.items():
        name = group.renamed.get(key, key)
        if name in group.defaults:
            part[name] = value
        else:
            rest[key] = value
    return {**rest, group.argument: None if is_off else part}
